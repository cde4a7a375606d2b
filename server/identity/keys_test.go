package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"testing"
)

// FuzzKeySet reads any text as a key set: what is taken of it is public, of a kind that is
// known and within the bounds, and found by no header that asks for another kind.
func FuzzKeySet(f *testing.F) {
	const ed = `{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	const ec = `{"kty":"EC","crv":"P-256","kid":"k","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`
	for _, text := range []string{
		`{"keys":[` + ed + `]}`, `{"keys":[` + ec + `,` + ed + `]}`, `{"keys":[]}`, `{"keys":null}`, `{`, `[]`, ed,
		`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`, `{"keys":[{"kty":"RSA","n":"","e":""}]}`,
		`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"","d":""}]}`,
		`{"keys":[` + ed[:len(ed)-1] + `,"use":"enc"}]}`, `{"keys":[` + ed[:len(ed)-1] + `,"alg":"RS256"}]}`, `{"keys":[{"x5c":["AAAA"],"kty":"RSA"}]}`,
	} {
		f.Add([]byte(text))
	}
	kinds := map[string]func(key any) bool{
		"RS256": func(key any) bool { _, ok := key.(*rsa.PublicKey); return ok },
		"ES256": func(key any) bool { k, ok := key.(*ecdsa.PublicKey); return ok && k.Params().BitSize == 256 },
		"EdDSA": func(key any) bool { _, ok := key.(ed25519.PublicKey); return ok },
		"HS256": func(any) bool { return false },
		"none":  func(any) bool { return false },
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := parseKeySet(text)
		if err != nil {
			if set != nil || len(err.Error()) > 500 {
				t.Fatalf("%v with %v", err, set)
			}
			return
		}
		if len(set.keys) == 0 || len(set.keys) > maxKeys {
			t.Fatalf("%d keys", len(set.keys))
		}
		for _, key := range set.keys {
			if !key.IsPublic() || !suits(&key) || key.Use == "enc" {
				t.Fatalf("%+v", key)
			}
			for algorithm, is := range kinds {
				if found, ok := set.find(header{algorithm: algorithm, keyID: key.KeyID}); ok && !is(found.Key) {
					t.Fatalf("%T is found for %s", found.Key, algorithm)
				}
			}
		}
	})
}
