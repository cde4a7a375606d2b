package identity_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
	"github.com/apikeys-dev/apikeys/server/servertest/issuer"
)

// TestRotation has the issuer change its keys: a token of a new key is good at once, one
// of a key that is gone until the keys are fetched again, and a flood of unknown key ids
// fetches once in a while.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := newHarness(t)
	first := s.Key()
	old := s.token(nil)
	s.good(t, old)
	second := issuer.NewKey("second", "EdDSA")
	s.clock.Advance(10 * time.Second)
	s.Rotate(second, first)
	s.good(t, s.token(nil))
	if n := s.Fetches.Load(); n != 2 {
		t.Fatalf("%d fetches", n)
	}

	// Unknown key ids.
	unknown := func() string {
		return issuer.NewKey("", "ES256").Sign(issuer.Claims{"alg": "ES256", "kid": "x", "typ": "JWT"}, s.Claims(s.clock.Now(), nil))
	}
	for range 20 {
		s.want(t, unknown(), apikey.KindUnauthenticated)
	}
	if n := s.Fetches.Load(); n != 2 {
		t.Errorf("a flood of unknown key ids had the keys fetched %d times", n-2)
	}
	s.clock.Advance(10 * time.Second)
	var flood sync.WaitGroup
	for range 20 {
		flood.Go(func() { s.want(t, unknown(), apikey.KindUnauthenticated) })
	}
	flood.Wait()
	if n := s.Fetches.Load(); n != 3 {
		t.Errorf("20 unknown key ids at a time had the keys fetched %d times", n-2)
	}

	// The first key is withdrawn: its tokens, remembered ones too, end with the next fetch.
	s.Rotate(second)
	s.good(t, old)
	s.clock.Advance(10 * time.Second)
	s.want(t, unknown(), apikey.KindUnauthenticated)
	s.want(t, old, apikey.KindUnauthenticated)
	s.good(t, s.token(nil))
	if n := s.Discoveries.Load(); n != 1 {
		t.Errorf("%d discoveries", n)
	}
	want := identity.Stats{Tokens: [5]uint64{identity.Checked: 4, identity.Refused: 42}, Fetches: 4}
	if diff := cmp.Diff(want, s.all.Stats()); diff != "" {
		t.Error(diff)
	}
}

// TestStaleKeys has keys fetched anew beside their use when they are five minutes old, so
// that a withdrawn key ends without an unknown key id.
func TestStaleKeys(t *testing.T) {
	t.Parallel()
	s := newHarness(t)
	old := s.token(nil)
	s.good(t, old)
	s.Rotate(issuer.NewKey("second", "ES256"))
	s.clock.Advance(5 * time.Minute)
	s.good(t, old) // begins the fetch
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := s.all.Find(t.Context(), old)
		if got, failed := kind(err); failed && got == apikey.KindUnauthenticated {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a token of a withdrawn key is still good: %v", err)
		}
	}
}

// TestIdleKeys has nobody use the keys of an issuer for a while in which one is withdrawn:
// its tokens are not good once more, however many come at a time.
func TestIdleKeys(t *testing.T) {
	t.Parallel()
	s := newHarness(t)
	first := s.Key()
	s.good(t, s.token(nil))
	s.Rotate(issuer.NewKey("second", "ES256"))
	s.clock.Advance(10 * time.Minute)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			s.want(t, first.Sign(issuer.Claims{"alg": "ES256", "kid": "first"}, s.Claims(s.clock.Now(), issuer.Claims{"scope": "api_keys.read"})), apikey.KindUnauthenticated)
		})
	}
	all.Wait()
	s.good(t, s.token(nil))
	if n := s.Fetches.Load(); n != 2 {
		t.Errorf("%d fetches", n)
	}
}

// TestUnreachable has the issuer fail: its tokens cannot be checked, which is said, until
// it is back. Keys that are known stay in use for an hour.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]http.HandlerFunc{
		"fails":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"goes":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"no keys": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys": []}`)) },
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.2:1/", http.StatusFound)
		},
		"in a circle": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
		"another name": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"issuer": "https://evil.invalid", "jwks_uri": "https://evil.invalid/"}`))
		},
		"no end": func(w http.ResponseWriter, _ *http.Request) {
			for text := []byte(strings.Repeat(" ", 1<<16)); ; {
				if _, err := w.Write(text); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newHarness(t)
			s.Break(broken)
			token := s.token(issuer.Claims{"exp": s.clock.Now().Add(3 * time.Hour).Unix()})
			s.want(t, token, apikey.KindUnavailable)
			s.want(t, token, apikey.KindUnavailable)
			if lines := s.log.Lines("could not be fetched"); len(lines) != 1 || len(lines[0]) > 1200 {
				t.Errorf("log: %q", lines)
			}
			if got := s.all.Stats(); got.Fetches != 1 || got.Failures != 1 || got.Failing != 1 || got.Tokens[identity.Unavailable] != 2 {
				t.Errorf("%+v", got)
			}
			// It is back, which is tried no sooner than in 10 s.
			s.Break(nil)
			s.want(t, token, apikey.KindUnavailable)
			s.clock.Advance(10 * time.Second)
			s.good(t, token)
			// It fails again.
			s.Break(broken)
			s.clock.Advance(59 * time.Minute)
			s.good(t, token)
			s.clock.Advance(2 * time.Minute)
			s.want(t, token, apikey.KindUnavailable)
		})
	}
}

// TestKeyFile takes keys from a file, which is read anew when that is asked for.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jwks.json")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i := issuer.Start(t)
	private := i.Key().JWK()
	c := trusting(i)
	c.JWKSFile = path
	open := func() (*identity.Issuers, error) {
		return identity.New(identity.Config{Issuers: []identity.Issuer{c}, Catalogue: apikey.DefaultScopes(), Now: clock.At(clock.Noon).Now})
	}
	for text, want := range map[string]string{
		`{"keys": [{"kty": "oct", "k": "AAAA"}]}`: "has no key of the kinds",
		`{"keys": [` + private + `]}`:             "not public",
		`{"keys": []}`:                            "has no key of the kinds",
		`{"keys": [{"kty": "x"}]}`:                "has no key of the kinds",
		`{}`:                                      "must be a JSON Web Key Set",
		`-----BEGIN PUBLIC KEY---`:                "must be a JSON Web Key Set",
		`{"keys": [` + strings.Repeat(`{"kty": "x"},`, 200) + `{}]}`: "has 201 keys",
		strings.Repeat(" ", 2<<20):                                   "more than 1048576 bytes",
	} {
		write(text)
		if _, err := open(); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "oidc[0].jwks_file: ") {
			t.Errorf("%.40s: %v", text, err)
		}
	}
	write(string(i.JWKS()))
	all, err := open()
	if err != nil {
		t.Fatal(err)
	}
	find := func(token string) error { _, err := all.Find(t.Context(), token); return err }
	old := i.Token(clock.Noon, issuer.Claims{"scope": "api_keys.read"})
	if err := find(old); err != nil {
		t.Fatal(err)
	}
	i.Rotate(issuer.NewKey("second", "ES256"))
	token := i.Token(clock.Noon, issuer.Claims{"scope": "api_keys.read"})
	if got, _ := kind(find(token)); got != apikey.KindUnauthenticated {
		t.Errorf("a key that the file lacks: %v", find(token))
	}
	write("{")
	if err := all.Reload(); err == nil || find(old) != nil {
		t.Errorf("a file that cannot be read: %v; then %v", err, find(old))
	}
	write(string(i.JWKS()))
	if err := all.Reload(); err != nil || find(token) != nil {
		t.Errorf("read anew: %v; then %v", err, find(token))
	}
	if got, _ := kind(find(old)); got != apikey.KindUnauthenticated {
		t.Errorf("a key that is gone: %v", find(old))
	}
	if n := i.Fetches.Load() + i.Discoveries.Load(); n != 0 {
		t.Errorf("%d requests to an issuer whose keys are in a file", n)
	}
}

// TestNoKeyID takes a token without a key id where only one key can be meant.
func TestNoKeyID(t *testing.T) {
	t.Parallel()
	s := newHarness(t)
	token := s.Key().Sign(issuer.Claims{"alg": "ES256"}, s.Claims(clock.Noon, issuer.Claims{"scope": "api_keys.read"}))
	s.good(t, token)
	two := newHarness(t)
	two.Rotate(two.Key(), issuer.NewKey("second", "ES256"))
	two.want(t, two.Key().Sign(issuer.Claims{"alg": "ES256"}, two.Claims(clock.Noon, issuer.Claims{"scope": "api_keys.read"})), apikey.KindUnauthenticated)
}
