package identity_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/operator"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
	"github.com/apikeys-dev/apikeys/server/servertest/issuer"
)

// TestNobodyGrantsMore draws a person, and a key or an operator's token that the person
// may make: whatever call that credential may make, the person may make too, with the
// same token and at the same time.
func TestNobodyGrantsMore(t *testing.T) {
	t.Parallel()
	s := newHarness(t, func(i *identity.Issuer) {
		i.OrganizationClaim, i.Organizations = "org", []string{"*"}
		i.RolesClaim = "roles"
		i.Roles = map[string]identity.Grant{"admin": {Role: "admin"}, "manager": {Role: "manager"}, "app": {Scopes: []string{"app:*"}}, "all": {Scopes: []string{"*"}}}
	})
	all := slices.Concat(apikey.DefaultScopes(), apikey.OperatorScopes())
	some := func(t *rapid.T, label string, of ...string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 0, 4, rapid.ID).Draw(t, label)
	}
	granted := 0
	rapid.Check(t, func(t *rapid.T) {
		p, err := s.all.Find(t.Context(), s.Token(clock.Noon, issuer.Claims{
			"org": some(t, "organizations", "a", "b", "c", "*"), "scope": some(t, "scopes", all...), "roles": some(t, "roles", "admin", "manager", "app", "all"),
			"exp": clock.Noon.Add(time.Duration(rapid.IntRange(1, 4).Draw(t, "hours")) * time.Hour).Unix(),
		}))
		if err != nil {
			return // It maps to nothing.
		}
		admit := func(organization, scope string, at time.Time) (apikey.Rights, error) {
			return operator.Admit(&p.Token, &operator.Request{Organization: organization, Requirement: apikey.Requirement{Scopes: []string{scope}}}, at)
		}
		rights := p.Token.Rights(false)
		by := apikey.Caller{Origin: apikey.Origin{Actor: p.Actor}, Organization: "a", Rights: rights}
		var expires time.Time
		if hours := rapid.IntRange(0, 5).Draw(t, "expiry"); hours > 0 {
			expires = clock.Noon.Add(time.Duration(hours) * time.Hour)
		}
		scopes := some(t, "granted scopes", append(all, "*", "app:*", "operator_tokens.*")...)
		organizations := some(t, "granted organizations", "a", "b", "c")
		if len(organizations) == 0 {
			organizations = []string{"*"}
		}
		token := &operator.Token{ID: "operator_token_x", Scopes: scopes, Organizations: organizations, ExpiresAt: expires}
		key := &apikey.Key{ID: "api_key_x", OrganizationID: "a", Scopes: slices.DeleteFunc(slices.Clone(scopes), apikey.IsOperatorScope), ExpiresAt: expires, Enabled: true, Mode: apikey.ModeLive}
		madeToken := operator.CheckChange(&rights, apikey.TokenCreated, token, nil) == nil
		admitted, err := by.Admit(nil, clock.Noon)
		madeKey := err == nil && admitted.CheckChange(apikey.KeyCreated, p.Actor, key, nil) == nil
		if madeToken || madeKey {
			granted++
		}
		for _, organization := range []string{"", "a", "b", "c", "later"} {
			for _, scope := range append(all, "application.later") {
				for hours := range 6 {
					at := clock.Noon.Add(time.Duration(hours) * time.Hour)
					if _, err := admit(organization, scope, at); err == nil {
						continue
					}
					asked := operator.Request{Organization: organization, Addr: netip.MustParseAddr("10.0.0.1"), Requirement: apikey.Requirement{Scopes: []string{scope}}}
					if _, err := operator.Admit(token, &asked, at); err == nil && madeToken {
						t.Fatalf("%+v made %+v, which may call %s in %q at %v", p, token, scope, organization, at)
					}
					check := &apikey.CheckRequest{Organization: organization, Scopes: []string{scope}}
					if madeKey && organization == "a" && apikey.CheckCaller(key, check, at) == apikey.CodeValid {
						t.Fatalf("%+v made %+v, which may call %s at %v", p, key, scope, at)
					}
				}
			}
		}
		// In the transaction of a change too, nothing is done after the token's end.
		if _, err := by.Admit(nil, p.Token.ExpiresAt); err == nil {
			t.Fatalf("%+v may act at its end", p)
		}
	})
	if granted == 0 && !testing.Short() { // Few draws may grant nothing.
		t.Error("nobody was granted anything")
	}
}
