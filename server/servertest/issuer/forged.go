package issuer

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Forged returns tokens that prove nothing at a time to a server that takes this issuer's
// tokens for [Audience], of the types at+jwt and JWT. The claims of each are otherwise
// those of a good token with what more says.
func (i *Issuer) Forged(now time.Time, more Claims) map[string]string {
	key := i.Key()
	good := func(name string, value any) Claims { return i.Claims(now, merged(more, Claims{name: value})) }
	header := func(name string, value any) Claims {
		h := Claims{"alg": key.Algorithm, "kid": key.ID, "typ": "at+jwt"}
		if h[name] = value; value == nil {
			delete(h, name)
		}
		return h
	}
	plain := i.Claims(now, more)
	withClaim := func(name string, value any) string { return key.Sign(header("kid", key.ID), good(name, value)) }
	withHeader := func(name string, value any) string { return key.Sign(header(name, value), plain) }
	token := key.Sign(header("kid", key.ID), plain)
	parts := strings.Split(token, ".")
	text, err := json.Marshal(plain)
	if err != nil {
		panic(err)
	}
	other := NewKey("other", "ES256")
	public := jose.JSONWebKey{Key: other.Private.Public(), KeyID: "other"}
	later := func(d time.Duration) int64 { return now.Add(d).Unix() }
	return map[string]string{
		"no algorithm":                   encode(header("alg", "none")) + "." + parts[1] + ".",
		"no algorithm, signed":           withHeader("alg", "none"),
		"no algorithm in capitals":       encode(header("alg", "NONE")) + "." + parts[1] + "." + parts[2],
		"algorithm is missing":           withHeader("alg", nil),
		"algorithm is a number":          withHeader("alg", 1),
		"HS256 with the public key":      hs256(header("alg", "HS256"), plain, key),
		"another algorithm":              withHeader("alg", "RS256"),
		"a longer algorithm":             withHeader("alg", "ES512"),
		"no signature":                   parts[0] + "." + parts[1] + ".",
		"another signature":              parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"signed by another":              other.Sign(header("kid", key.ID), plain),
		"another key id":                 withHeader("kid", "unknown"),
		"a path as key id":               withHeader("kid", "../../../../dev/null"),
		"a URL as key id":                withHeader("kid", "https://evil.invalid/jwks"),
		"SQL as key id":                  withHeader("kid", "' OR 1=1 --"),
		"a number as key id":             withHeader("kid", 1),
		"an enormous key id":             withHeader("kid", strings.Repeat("k", 4000)),
		"a key of its own":               other.Sign(Claims{"alg": "ES256", "typ": "at+jwt", "jwk": public}, plain),
		"a key set of its own":           other.Sign(Claims{"alg": "ES256", "typ": "at+jwt", "kid": "other", "jku": "https://evil.invalid/jwks"}, plain),
		"a certificate of its own":       other.Sign(Claims{"alg": "ES256", "typ": "at+jwt", "x5u": "https://evil.invalid/cert"}, plain),
		"certificates of its own":        other.Sign(Claims{"alg": "ES256", "typ": "at+jwt", "x5c": []string{"AAAA"}}, plain),
		"a good key, and one of its own": withHeader("jwk", public),
		"an extension":                   withHeader("crit", []string{"exp"}),
		"no base64":                      key.Sign(Claims{"alg": key.Algorithm, "kid": key.ID, "typ": "at+jwt", "b64": false}, plain),
		"another token within":           withHeader("cty", "JWT"),
		"compressed":                     withHeader("zip", "DEF"),
		"an ID token by type":            withHeader("typ", "id_token+jwt"),
		"a logout token by type":         withHeader("typ", "logout+jwt"),
		"a number as type":               withHeader("typ", 7),
		"an ID token by nonce":           withClaim("nonce", "n"),
		"an ID token by hash":            withClaim("at_hash", "h"),
		"an ID token by use":             withClaim("token_use", "id"),
		"an ID token as Keycloak's":      withClaim("typ", "ID"),
		"a refresh token as Keycloak's":  withClaim("typ", "Refresh"),
		"another issuer":                 withClaim("iss", "https://evil.invalid"),
		"the issuer with a slash":        withClaim("iss", i.URL+"/"),
		"the issuer in capitals":         withClaim("iss", strings.ToUpper(i.URL)),
		"issuer is missing":              withClaim("iss", nil),
		"a list of issuers":              withClaim("iss", []string{i.URL}),
		"a number as issuer":             withClaim("iss", 1),
		"another audience":               withClaim("aud", "elsewhere"),
		"other audiences":                withClaim("aud", []string{"elsewhere", Audience + "x"}),
		"audience in capitals":           withClaim("aud", strings.ToUpper(Audience)),
		"audience is missing":            withClaim("aud", nil),
		"audience is empty":              withClaim("aud", []string{}),
		"audience is null":               key.Sign(header("kid", key.ID), strings.Replace(string(text), `"aud":"`+Audience+`"`, `"aud":null`, 1)),
		"a number among audiences":       withClaim("aud", []any{Audience, 1}),
		"an object as audience":          withClaim("aud", Claims{Audience: true}),
		"expired":                        withClaim("exp", later(-time.Second)),
		"expires now":                    withClaim("exp", later(0)),
		"expiry is missing":              withClaim("exp", nil),
		"a text as expiry":               withClaim("exp", fmt.Sprint(later(time.Hour))),
		"a negative expiry":              withClaim("exp", -1),
		"an endless expiry":              key.Sign(header("kid", key.ID), strings.Replace(string(text), fmt.Sprintf(`"exp":%d`, later(time.Hour)), `"exp":1e400`, 1)),
		"an expiry after the year 9999":  withClaim("exp", int64(1)<<40),
		"not yet":                        withClaim("nbf", later(2*time.Minute)),
		"a text as begin":                withClaim("nbf", "0"),
		"issued in the future":           withClaim("iat", later(2*time.Minute)),
		"an object as issue":             withClaim("iat", Claims{}),
		"subject is missing":             withClaim("sub", nil),
		"subject is empty":               withClaim("sub", ""),
		"subject is a number":            withClaim("sub", 7),
		"subject is a list":              withClaim("sub", []string{"anna"}),
		"subject is long":                withClaim("sub", strings.Repeat("s", 256)),
		"subject has a line":             withClaim("sub", "anna\nroot"),
		"subject has a NUL":              withClaim("sub", "anna\x00"),
		"subject is only a space":        withClaim("sub", " "),
		"subject is not ASCII":           withClaim("sub", "ann\u00e4"),
		"huge":                           withClaim("padding", strings.Repeat("p", 8<<10)),
		"a claim twice":                  key.Sign(header("kid", key.ID), `{"sub":"root",`+string(text[1:])),
		"a claim twice within another":   key.Sign(header("kid", key.ID), `{"a":{"b":1,"b":2},`+string(text[1:])),
		"a member of the header twice":   key.Sign(fmt.Sprintf(`{"alg":"none","alg":%q,"kid":%q,"typ":"at+jwt"}`, key.Algorithm, key.ID), plain),
		"claims in capitals":             key.Sign(header("kid", key.ID), strings.Replace(string(text), `"sub"`, `"SUB"`, 1)),
		"claims that are a list":         key.Sign(header("kid", key.ID), `[]`),
		"claims that are null":           key.Sign(header("kid", key.ID), `null`),
		"claims that are not JSON":       key.Sign(header("kid", key.ID), string(text)+`}`),
		"two JSON texts":                 key.Sign(header("kid", key.ID), string(text)+` {}`),
		"claims in bad UTF-8":            key.Sign(header("kid", key.ID), `{"x":"`+"\xff"+`",`+string(text[1:])),
		"encrypted":                      parts[0] + "." + parts[1] + "." + parts[2] + ".AAAA.AAAA",
		"four parts":                     token + ".AAAA",
		"garbage behind it":              token + "AAAA",
		"a dot behind it":                token + ".",
		"padding":                        parts[0] + "." + parts[1] + "." + parts[2] + "=",
		"the other base64":               parts[0] + "." + parts[1] + "+/" + "." + parts[2],
		"a line within":                  parts[0][:8] + "\t" + parts[0][8:] + "." + parts[1] + "." + parts[2],
		"JSON in place of a token":       encode(`{"payload":`) + "." + parts[1] + "." + parts[2],
		"the header alone":               parts[0] + "..",
	}
}

// hs256 signs a token with the public key as if that were a secret.
func hs256(header, claims any, key Key) string {
	der, err := x509.MarshalPKIXPublicKey(key.Private.Public())
	if err != nil {
		panic(err)
	}
	mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	signed := encode(header) + "." + encode(claims)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func merged(all ...Claims) Claims {
	sum := make(Claims)
	for _, claims := range all {
		for name, value := range claims {
			sum[name] = value
		}
	}
	return sum
}
