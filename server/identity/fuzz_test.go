package identity_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
	"github.com/apikeys-dev/apikeys/server/servertest/issuer"
)

// fuzzHarness returns an issuer whose keys are fetched already, and a configuration that
// looks at every kind of claim.
func fuzzHarness(f *testing.F) (*issuer.Issuer, *identity.Issuers) {
	i := issuer.Start(f)
	c := trusting(i)
	c.OrganizationClaim, c.Organizations = "org.id", nil
	c.RolesClaim, c.Roles = "realm_access.roles", map[string]identity.Grant{"admins": {Role: "admin"}}
	all, err := identity.New(identity.Config{Issuers: []identity.Issuer{c}, Catalogue: apikey.DefaultScopes(), Now: clock.At(clock.Noon).Now})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = all.Run(ended)
	})
	return i, all
}

// check fails on a person that no token can be of, and on an error that a caller could
// not be told.
func check(t *testing.T, i *issuer.Issuer, token string, p *identity.Person, err error) {
	t.Helper()
	if err != nil {
		if got, _ := kind(err); p != nil || got != apikey.KindUnauthenticated && got != apikey.KindPermissionDenied {
			t.Fatalf("%v with %+v", err, p)
		}
		if len(err.Error()) > 1000 || !utf8.ValidString(err.Error()) || strings.Contains(err.Error(), token) {
			t.Fatalf("the error shows too much: %s", err)
		}
		return
	}
	subject, ok := strings.CutPrefix(p.Actor.ID, i.URL+"|")
	if !ok || subject == "" || len(subject) > 255 || p.Actor.Kind != apikey.ActorPerson || !utf8.ValidString(p.Actor.Name) || strings.ContainsAny(p.Actor.Name, "\n\x00\u202e") {
		t.Fatalf("%+v", p.Actor)
	}
	if len(p.Token.Scopes) == 0 || len(p.Token.Organizations) == 0 || !clock.Noon.Before(p.Token.ExpiresAt) || p.Token.ExpiresAt.Year() > 9999 {
		t.Fatalf("%+v", p.Token)
	}
	for _, o := range p.Token.Organizations {
		if apikey.ValidateOrganizationID(o) != nil {
			t.Fatalf("organization %q", o)
		}
	}
}

// FuzzClaims signs any claims as the issuer, beside those of a good token.
func FuzzClaims(f *testing.F) {
	i, all := fuzzHarness(f)
	for _, claims := range []string{
		`{"org":{"id":"a"},"scope":"api_keys.read"}`, `{"org":{"id":["a","b"]},"realm_access":{"roles":["admins"]}}`,
		`{"org.id":"a","scope":["events.read"],"name":"\u202e"}`, `{"org":{"id":"*"}}`, `{"sub":"x","exp":1e11}`, `{"nbf":1e400}`, `{"aud":[]}`,
		`{"org":{"id":"a"},"scope":"api_keys.read","exp":253402300799,"email":"a@b"}`, `{"a":1,"a":2}`, `[]`, `null`, ``, `{"org":{"id":{}}}`,
	} {
		f.Add(claims)
	}
	f.Fuzz(func(t *testing.T, text string) {
		claims := i.Claims(clock.Noon, nil)
		var more issuer.Claims
		var token string
		header := issuer.Claims{"alg": "ES256", "kid": "first", "typ": "at+jwt"}
		if json.Unmarshal([]byte(text), &more) == nil {
			for name, value := range more {
				claims[name] = value
			}
			token = i.Key().Sign(header, claims)
		} else {
			token = i.Key().Sign(header, text)
		}
		p, err := all.Find(t.Context(), token)
		check(t, i, token, p, err)
	})
}

// FuzzToken presents any text as a token, and any header over good claims.
func FuzzToken(f *testing.F) {
	i, all := fuzzHarness(f)
	good := i.Token(clock.Noon, issuer.Claims{"org": issuer.Claims{"id": "a"}, "scope": "api_keys.read"})
	if _, err := all.Find(context.Background(), good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, token := range i.Forged(clock.Noon, nil) {
		f.Add(token)
	}
	f.Add(`{"alg":"ES256","kid":"first"}`)
	f.Add(`{"alg":"none"}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := all.Find(t.Context(), text)
		check(t, i, good, p, err)
		if err == nil && text != good {
			t.Fatalf("another text than the issuer's is a good token: %q", text)
		}
		token := i.Key().Sign(text, i.Claims(clock.Noon, issuer.Claims{"org": issuer.Claims{"id": "a"}, "scope": "api_keys.read"}))
		p, err = all.Find(t.Context(), token)
		check(t, i, token, p, err)
	})
}
