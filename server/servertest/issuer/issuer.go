// Package issuer is an OpenID Connect issuer for tests: keys, a key set and a discovery
// document over HTTP on loopback, and tokens with any header and any claims. It imports
// nothing of this module, so that the tests of every package can use it.
package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Audience is for whom tokens are by default.
const Audience = "apikeys"

// Issuer is an issuer that runs until its test ends.
type Issuer struct {
	// URL names it.
	URL string
	// Discoveries and Fetches count the requests for the discovery document and for the
	// keys.
	Discoveries, Fetches atomic.Int64

	mu     sync.Mutex
	keys   []Key
	broken http.HandlerFunc // answers in place of everything
}

// Key is a key to sign with.
type Key struct {
	ID        string
	Algorithm string
	Private   crypto.Signer
}

// Claims are the claims of a token.
type Claims = map[string]any

// rsaKey makes the one RSA key of this package, since that takes long.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// NewKey returns a key for an algorithm. There is one RSA key only.
func NewKey(id, algorithm string) Key {
	key := Key{ID: id, Algorithm: algorithm}
	var err error
	switch {
	case algorithm == "EdDSA":
		_, key.Private, err = ed25519.GenerateKey(rand.Reader)
	case algorithm == "ES256":
		key.Private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case algorithm == "ES384":
		key.Private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		key.Private = rsaKey()
	}
	if err != nil {
		panic(err)
	}
	return key
}

// Start runs an issuer with a key named first, of ES256.
func Start(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{keys: []Key{NewKey("first", "ES256")}}
	server := httptest.NewServer(http.HandlerFunc(i.serve))
	t.Cleanup(server.Close)
	i.URL = server.URL
	return i
}

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	keys := i.JWKS()
	i.mu.Lock()
	broken := i.broken
	i.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		i.Discoveries.Add(1)
	case "/jwks":
		i.Fetches.Add(1)
	}
	switch {
	case broken != nil:
		broken(w, r)
	case r.URL.Path == "/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q, "id_token_signing_alg_values_supported": ["RS256"]}`, i.URL, i.URL+"/jwks")
	case r.URL.Path == "/jwks":
		_, _ = w.Write(keys)
	default:
		http.NotFound(w, r)
	}
}

// Break has the issuer answer everything with serve; nil mends it.
func (i *Issuer) Break(serve http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.broken = serve
}

// Rotate replaces the keys. The first of them signs.
func (i *Issuer) Rotate(keys ...Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

// Key returns the key that signs.
func (i *Issuer) Key() Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[0]
}

// JWKS returns the public keys.
func (i *Issuer) JWKS() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, key := range i.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Private.Public(), KeyID: key.ID, Algorithm: key.Algorithm, Use: "sig"})
	}
	text, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return text
}

// JWK returns the private key as JSON.
func (k Key) JWK() string {
	text, err := json.Marshal(jose.JSONWebKey{Key: k.Private, KeyID: k.ID, Algorithm: k.Algorithm, Use: "sig"})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// Claims returns the claims of a token of this issuer that is good for an hour from now,
// with what more says: a nil value takes a claim away.
func (i *Issuer) Claims(now time.Time, more Claims) Claims {
	claims := Claims{
		"iss": i.URL, "aud": Audience, "sub": "anna", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for name, value := range more {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	return claims
}

// Token returns a token with such claims, signed as it should be.
func (i *Issuer) Token(now time.Time, more Claims) string {
	key := i.Key()
	return key.Sign(Claims{"alg": key.Algorithm, "kid": key.ID, "typ": "at+jwt"}, i.Claims(now, more))
}

// Sign returns a token with a header and claims, which are JSON texts or what becomes
// JSON, signed with the key by its algorithm, whatever the header says.
func (k Key) Sign(header, claims any) string {
	signed := encode(header) + "." + encode(claims)
	return signed + "." + base64.RawURLEncoding.EncodeToString(k.signature(signed))
}

func encode(part any) string {
	if text, ok := part.(string); ok {
		return base64.RawURLEncoding.EncodeToString([]byte(text))
	}
	text, err := json.Marshal(part)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// signature signs a text.
func (k Key) signature(text string) []byte {
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[strings.TrimLeft(k.Algorithm, "EPRS")]
	var digest []byte
	var options crypto.SignerOpts = hash
	if k.Algorithm == "EdDSA" {
		digest, options = []byte(text), crypto.Hash(0)
	} else {
		h := hash.New()
		h.Write([]byte(text))
		digest = h.Sum(nil)
	}
	switch private := k.Private.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, private, digest)
		if err != nil {
			panic(err)
		}
		size := (private.Params().BitSize + 7) / 8
		signature := make([]byte, 2*size)
		r.FillBytes(signature[:size])
		s.FillBytes(signature[size:])
		return signature
	default:
		if strings.HasPrefix(k.Algorithm, "PS") {
			options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
		signature, err := k.Private.Sign(rand.Reader, digest, options)
		if err != nil {
			panic(err)
		}
		return signature
	}
}
