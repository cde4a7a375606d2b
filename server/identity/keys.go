package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The bounds of a key set.
const (
	maxKeySet  = 1 << 20 // bytes
	maxKeys    = 100
	minRSABits = 2048
	maxRSABits = 8192 // a larger one makes each signature check a burden
)

// keySet is the public keys of an issuer at a time. It is immutable.
type keySet struct {
	keys []jose.JSONWebKey
	sum  [sha256.Size]byte // of the text that it was read from
}

// parseKeySet reads a JWKS. Keys that are of no use here are passed over, such as those
// for encryption, and those of kinds that this server does not know.
func parseKeySet(text []byte) (*keySet, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil || set.Keys == nil {
		return nil, errors.New(`must be a JSON Web Key Set, {"keys": [...]}`)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("has %d keys, more than %d", len(set.Keys), maxKeys)
	}
	s := &keySet{sum: sha256.Sum256(text)}
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) != nil || !key.Valid() {
			continue
		}
		if key.Use != "" && key.Use != "sig" || len(key.KeyID) > maxKeyID {
			continue
		}
		if !key.IsPublic() {
			// That it stands here means that others have it.
			return nil, fmt.Errorf("holds a key that is not public, %q: take it out, and replace it at the issuer", apikey.Excerpt(key.KeyID))
		}
		if suits(&key) {
			s.keys = append(s.keys, key)
		}
	}
	if len(s.keys) == 0 {
		return nil, fmt.Errorf("has no key of the kinds that are taken: RSA of %d to %d bits, EC P-256, P-384 and P-521, Ed25519", minRSABits, maxRSABits)
	}
	return s, nil
}

// suits reports whether a key is one to check signatures with.
func suits(key *jose.JSONWebKey) bool {
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		bits := public.N.BitLen()
		return bits >= minRSABits && bits <= maxRSABits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// find returns the key that a header names, and whether there is one. A header without a
// key id names the only key that its algorithm can be of.
func (s *keySet) find(h header) (found *jose.JSONWebKey, ok bool) {
	for n := range s.keys {
		key := &s.keys[n]
		if h.keyID != "" && key.KeyID != h.keyID || key.Algorithm != "" && key.Algorithm != h.algorithm || !canSign(key.Key, h.algorithm) {
			continue
		}
		if found != nil {
			return nil, false
		}
		found = key
	}
	return found, found != nil
}

// canSign reports whether a key is of the kind that an algorithm asks for.
func canSign(key any, algorithm string) bool {
	switch public := key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")
	case *ecdsa.PublicKey:
		bits := map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}[algorithm]
		return bits == public.Curve.Params().BitSize
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// oneKey is the set of the key that a token is checked with.
type oneKey struct {
	key       *jose.JSONWebKey
	algorithm string
}

var _ oidc.KeySet = oneKey{}

// VerifySignature returns the payload of a token that the key has signed.
func (k oneKey) VerifySignature(_ context.Context, text string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(k.algorithm)})
	if err != nil {
		return nil, err
	}
	return jws.Verify(k.key.Key)
}

// readKeyFile reads the keys of an issuer from a file.
func readKeyFile(path string) (*keySet, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeySet+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxKeySet {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxKeySet)
	}
	set, err := parseKeySet(bytes.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return set, nil
}
