package store_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	tokens "github.com/apikeys-dev/apikeys/server/operator"
)

var tokenTests = map[string]func(*testing.T, *fixture){
	"ChangedTokenHasItsUse":  testChangedTokenHasItsUse,
	"TokensCountForDelegate": testTokensCountForDelegate,
}

// createToken makes a token that may make others, and returns it with how many counted
// towards the bound of its delegate before.
func (f *fixture) createToken(t *testing.T, by *apikey.Caller) (made tokens.Token, before int) {
	t.Helper()
	made, err := f.CreateToken(t.Context(), by, func(count int, _ time.Time) (tokens.Token, error) {
		_, secret := newSecret(t)
		before = count
		return tokens.Token{
			Name: "delegate", Scopes: apikey.Scopes{"operator_tokens.create"}, Organizations: []string{org}, Secret: secret, Version: 1,
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return made, before
}

// A token counts towards the bound of the person, or of the token made with a root
// token, that it comes from, also when that one is gone.
func testTokensCountForDelegate(t *testing.T, f *fixture) {
	root := apikey.System("test")
	root.Actor, root.Root = operator.Actor, true
	caller := func(actor apikey.Actor) *apikey.Caller {
		return &apikey.Caller{Origin: apikey.Origin{Actor: actor}, Rights: apikey.AllRights(), Requirement: apikey.Requirement{NoOrganization: true}}
	}
	person, other := caller(apikey.Actor{Kind: apikey.ActorPerson, ID: "https://issuer.invalid|anna"}), caller(apikey.Actor{Kind: apikey.ActorPerson, ID: "https://issuer.invalid|bert"})
	want := func(by *apikey.Caller, count int, delegate string) *apikey.Caller {
		t.Helper()
		made, got := f.createToken(t, by)
		if got != count || made.CountedFor != delegate {
			t.Errorf("%s: %d counted, the new one for %q; want %d, for %q", by.Actor.ID, got, made.CountedFor, count, delegate)
		}
		if stored, err := f.Token(t.Context(), made.ID); err != nil || stored.CountedFor != delegate {
			t.Errorf("stored for %q, %v", stored.CountedFor, err)
		}
		return caller(made.Actor())
	}
	first := want(root, 0, "")
	second := want(root, 1, "")
	child := want(first, 0, first.Actor.ID)
	grandchild := want(child, 1, first.Actor.ID)
	want(second, 0, second.Actor.ID)
	of := want(person, 0, person.Actor.ID)
	want(of, 1, person.Actor.ID)
	want(other, 0, other.Actor.ID)
	if err := f.DeleteToken(t.Context(), root, first.Actor.ID); err != nil {
		t.Fatal(err)
	}
	want(grandchild, 2, first.Actor.ID)
	want(root, 1, "")
}

// What a change of a token answers tells of its latest use, as a read does.
func testChangedTokenHasItsUse(t *testing.T, f *fixture) {
	made, err := f.CreateToken(t.Context(), operator, func(int, time.Time) (tokens.Token, error) {
		_, secret := newSecret(t)
		return tokens.Token{
			Name: "gateway", Scopes: apikey.Scopes{"api_keys.verify"}, Organizations: []string{org}, Secret: secret, Version: 1,
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	use := tokens.Use{At: f.clock.stored(), Addr: netip.MustParseAddr("192.0.2.1")}
	if err := f.RecordTokenUses(t.Context(), map[string]tokens.Use{made.ID: use}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gateway", "edge"} { // the first changes nothing
		got, err := f.ChangeToken(t.Context(), operator, made.ID, apikey.TokenUpdated, func(token *tokens.Token, _ time.Time) error {
			token.Name = name
			return nil
		})
		if err != nil || got.Name != name || got.Use != use {
			t.Errorf("changed to %q: %+v, %v", name, got.Use, err)
		}
	}
}
