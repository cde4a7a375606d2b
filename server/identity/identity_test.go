package identity_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
	"github.com/apikeys-dev/apikeys/server/servertest/issuer"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
)

// harness is an issuer and the server's side of it.
type harness struct {
	*issuer.Issuer
	clock *clock.Clock
	log   *logtest.Buffer
	all   *identity.Issuers
}

// trusting returns the configuration that trusts an issuer, of people of one organization
// who have the scopes that their tokens say.
func trusting(i *issuer.Issuer) identity.Issuer {
	return identity.Issuer{
		URL: i.URL, Audience: []string{issuer.Audience}, Organizations: []string{"org_a"}, ScopesClaim: "scope",
	}
}

func newHarness(t *testing.T, change ...func(*identity.Issuer)) *harness {
	t.Helper()
	s := &harness{Issuer: issuer.Start(t), clock: clock.At(clock.Noon)}
	c := trusting(s.Issuer)
	for _, f := range change {
		f(&c)
	}
	if faults := identity.Check([]identity.Issuer{c}, true, apikey.DefaultScopes()); len(faults) > 0 {
		t.Fatal(faults)
	}
	logger, log := logtest.New(0)
	all, err := identity.New(identity.Config{
		Issuers: []identity.Issuer{c}, Catalogue: apikey.DefaultScopes(), Now: s.clock.Now, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.all, s.log = all, log
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = all.Run(ended)
	})
	return s
}

// token returns a token with the scope to read keys, and with more claims.
func (s *harness) token(more issuer.Claims) string {
	claims := issuer.Claims{"scope": "api_keys.read"}
	for name, value := range more {
		claims[name] = value
	}
	return s.Token(s.clock.Now(), claims)
}

// kind returns the kind of an error, and whether it is an error at all.
func kind(err error) (apikey.Kind, bool) {
	known := apikey.AsError(err)
	if known == nil {
		return 0, err != nil
	}
	return known.Kind, true
}

func (s *harness) want(t *testing.T, token string, want apikey.Kind) {
	t.Helper()
	if p, err := s.all.Find(t.Context(), token); p != nil || err == nil {
		t.Errorf("got %+v, %v", p, err)
	} else if got, _ := kind(err); got != want {
		t.Errorf("got %v, want kind %v", err, want)
	}
}

func (s *harness) good(t *testing.T, token string) *identity.Person {
	t.Helper()
	p, err := s.all.Find(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestForged presents tokens that prove nothing: each is a bad credential, nobody's
// signature is checked more often than it must be, and no error holds a token.
func TestForged(t *testing.T) {
	t.Parallel()
	s := newHarness(t)
	s.good(t, s.token(nil))
	for name, token := range s.Forged(clock.Noon, issuer.Claims{"scope": "api_keys.read"}) {
		_, err := s.all.Find(t.Context(), token)
		got, failed := kind(err)
		if !failed || got != apikey.KindUnauthenticated {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := err.Error(); len(text) > 500 || strings.Contains(text, token) || strings.Contains(text, "eyJ") {
			t.Errorf("%s: the error shows too much: %s", name, text)
		}
		if answer := apikey.AsError(err).Message; answer != apikey.ErrBadCredential().Message {
			t.Errorf("%s: is answered %q", name, answer)
		}
	}
	if n := s.Fetches.Load(); n > 2 {
		t.Errorf("forged tokens had the keys fetched %d times", n)
	}
}

// TestTimes holds how a token's times are checked: its expiry to the second, its beginning
// with what clocks may differ by.
func TestTimes(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) int64 { return clock.Noon.Add(d).Unix() }
	for name, test := range map[string]struct {
		skew   time.Duration
		claims issuer.Claims
		bad    bool
	}{
		"a fraction":          {claims: issuer.Claims{"exp": float64(at(time.Second)) + 0.9}},
		"a second left":       {claims: issuer.Claims{"exp": at(time.Second)}},
		"no second left":      {claims: issuer.Claims{"exp": at(0)}, bad: true},
		"skew of an expiry":   {skew: 5 * time.Minute, claims: issuer.Claims{"exp": at(-time.Second)}, bad: true},
		"begins in a minute":  {claims: issuer.Claims{"nbf": at(time.Minute)}},
		"and a second":        {claims: issuer.Claims{"nbf": at(61 * time.Second)}, bad: true},
		"begins later":        {skew: 2 * time.Minute, claims: issuer.Claims{"nbf": at(2 * time.Minute), "iat": at(2 * time.Minute)}},
		"without skew":        {skew: -1, claims: issuer.Claims{"iat": at(time.Second)}, bad: true},
		"without skew, good":  {skew: -1, claims: issuer.Claims{"iat": at(0), "nbf": at(0)}},
		"without iat":         {claims: issuer.Claims{"iat": nil}},
		"a scientific expiry": {claims: issuer.Claims{"exp": 1.8e9}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newHarness(t, func(i *identity.Issuer) { i.ClockSkew = test.skew })
			if token := s.token(test.claims); test.bad {
				s.want(t, token, apikey.KindUnauthenticated)
			} else {
				s.good(t, token)
			}
		})
	}
}

// TestAlgorithms has tokens of every kind of key taken, by the list of algorithms alone.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		s := newHarness(t)
		s.Rotate(issuer.NewKey("k", algorithm))
		s.good(t, s.token(nil))
		strict := newHarness(t, func(i *identity.Issuer) { i.Algorithms = []string{"ES384"} })
		strict.Rotate(issuer.NewKey("k", algorithm))
		strict.want(t, strict.token(nil), apikey.KindUnauthenticated)
		strict.Rotate(issuer.NewKey("k384", "ES384"))
		strict.good(t, strict.token(nil))
	}
}

func TestTypes(t *testing.T) {
	t.Parallel()
	s := newHarness(t)
	s.good(t, s.token(issuer.Claims{"typ": "Bearer", "nonce": "n"})) // as of Keycloak
	s.want(t, s.token(issuer.Claims{"typ": "ID", "nonce": "n"}), apikey.KindUnauthenticated)
	strict := newHarness(t, func(i *identity.Issuer) { i.Types = []string{"AT+JWT"} })
	sign := func(s *harness, typ any) string {
		header := issuer.Claims{"alg": "ES256", "kid": "first"}
		if typ != nil {
			header["typ"] = typ
		}
		return s.Key().Sign(header, s.Claims(clock.Noon, issuer.Claims{"scope": "api_keys.read"}))
	}
	for _, typ := range []any{"at+jwt", "application/at+jwt", "APPLICATION/AT+JWT", "JWT", "jwt", nil} {
		s.good(t, sign(s, typ))
	}
	for _, typ := range []any{"at+jwt", "application/at+jwt"} {
		strict.good(t, sign(strict, typ))
	}
	for _, typ := range []any{"JWT", nil, "", "at+jwt ", "x"} {
		strict.want(t, sign(strict, typ), apikey.KindUnauthenticated)
	}
}

// TestRemembered holds how long a token is remembered, by what is asked of the issuer.
func TestRemembered(t *testing.T) {
	t.Parallel()
	s := newHarness(t)
	token := s.token(issuer.Claims{"exp": clock.Noon.Add(90 * time.Second).Unix()})
	p := s.good(t, token)
	if s.good(t, token) != p {
		t.Error("the token was checked again at once")
	}
	s.clock.Advance(59 * time.Second)
	if s.good(t, token) != p {
		t.Error("the token was checked again within a minute")
	}
	s.clock.Advance(time.Second)
	if s.good(t, token) == p {
		t.Error("the token was remembered for a minute")
	}
	s.clock.Advance(30*time.Second - time.Nanosecond)
	s.good(t, token)
	s.clock.Advance(time.Nanosecond)
	s.want(t, token, apikey.KindUnauthenticated)
	s.clock.Advance(-30 * time.Second)
	s.good(t, token)
	s.clock.Advance(-time.Hour) // It was not issued yet.
	s.want(t, token, apikey.KindUnauthenticated)
}

// TestNobody has a server without issuers, and calls that are given up.
func TestNobody(t *testing.T) {
	t.Parallel()
	s := newHarness(t)
	var none *identity.Issuers
	if _, err := none.Find(t.Context(), s.token(nil)); apikey.AsError(err) == nil || apikey.AsError(err).Kind != apikey.KindUnauthenticated {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	block := make(chan struct{})
	s.Break(func(http.ResponseWriter, *http.Request) { <-block })
	defer close(block)
	if _, err := s.all.Find(ended, s.token(nil)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestMeant finds the tokens for this server in what surrounds them.
func TestMeant(t *testing.T) {
	t.Parallel()
	s := newHarness(t)
	token := s.token(nil)
	cut := token[:strings.LastIndexByte(token, '.')]
	for text, want := range map[string]bool{
		token: true, token + "_": true, token + ".": true, token + "==": true, token + ".json": true, token + "-" + token: true,
		cut + ".x": true, cut: false, cut + ".": false, "": false, "...": false, "eyJ.eyJ.eyJ": false,
		s.token(issuer.Claims{"aud": "x"}) + "." + token: true,
		s.token(issuer.Claims{"aud": "x"}):               false, s.token(issuer.Claims{"iss": "https://login.invalid"}): false,
		s.token(issuer.Claims{"exp": 1}): true,
	} {
		if got := s.all.Meant(text); got != want {
			t.Errorf("%v for %s", got, text)
		}
	}
}
