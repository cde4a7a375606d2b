package operator_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/operator"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// drawToken returns any token whose fields the rules take.
func drawToken(t *rapid.T, name string) *operator.Token {
	scopes := slices.Concat(apikey.DefaultScopes(), apikey.OperatorScopes(),
		[]string{apikey.AllScopes, apikey.AllScopes, apikey.AllApplicationScopes, apikey.AllOperatorScopes, apikey.AllOperatorScopes})
	token := &operator.Token{
		ID: "operator_token_" + name, Name: name,
		Scopes:        rapid.SliceOfNDistinct(rapid.SampledFrom(scopes), 1, 6, rapid.ID).Draw(t, name+" scopes"),
		Organizations: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3, rapid.ID).Draw(t, name+" organizations"),
	}
	if rapid.Bool().Draw(t, name+" all organizations") {
		token.Organizations = []string{apikey.AllOrganizations}
	}
	for _, text := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/9", "10.128.0.0/9", "::/0"}), 0, 3, rapid.ID).Draw(t, name+" ranges") {
		token.IPAllowList = append(token.IPAllowList, netip.MustParsePrefix(text))
	}
	if rapid.Bool().Draw(t, name+" expires") {
		token.ExpiresAt = noon.Add(time.Duration(rapid.IntRange(1, 4).Draw(t, name+" hours")) * time.Hour)
	}
	return token
}

// mayCall reports whether a caller with the token may make a call at a time.
func mayCall(token *operator.Token, organization, scope string, addr netip.Addr, at time.Time) bool {
	_, err := operator.Admit(token, &operator.Request{
		Organization: organization, Addr: addr, Requirement: apikey.Requirement{Scopes: []string{scope}},
	}, at)
	return err == nil
}

// TestNobodyGrantsMore draws a token and another that it may make, or make of it by an
// update or a rotation: whatever call the other may make, the first may make too.
func TestNobodyGrantsMore(t *testing.T) {
	t.Parallel()
	addrs := []netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.200.0.1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	scopes := slices.Concat(apikey.DefaultScopes(), apikey.OperatorScopes(), []string{"application.later"})
	granted := 0
	rapid.Check(t, func(t *rapid.T) {
		caller, other := drawToken(t, "caller"), drawToken(t, "other")
		if rapid.Bool().Draw(t, "within the caller") { // else few may be made
			other.Scopes = rapid.SliceOfNDistinct(rapid.SampledFrom(caller.Scopes), 1, len(caller.Scopes), rapid.ID).Draw(t, "some scopes")
			other.Organizations, other.IPAllowList, other.ExpiresAt = caller.Organizations, caller.IPAllowList, caller.ExpiresAt
		}
		rights := caller.Rights(false)
		event := rapid.SampledFrom([]apikey.EventType{apikey.TokenCreated, apikey.TokenRotated, apikey.TokenUpdated}).Draw(t, "event")
		var changes []string
		if event == apikey.TokenUpdated {
			changes = []string{"name", "scopes", "organizations", "ip_allow_list", "expires_at"}
		}
		if operator.CheckChange(&rights, event, other, changes) != nil {
			return
		}
		granted++
		for _, organization := range []string{"", "a", "b", "c", "later"} {
			for _, scope := range scopes {
				for _, addr := range addrs {
					for hours := range 6 {
						at := noon.Add(time.Duration(hours) * time.Hour)
						if mayCall(other, organization, scope, addr, at) && !mayCall(caller, organization, scope, addr, at) {
							t.Fatalf("%+v made %+v, which may call %s in %q from %v at %v", caller, other, scope, organization, addr, at)
						}
					}
				}
			}
		}
	})
	if granted == 0 && !testing.Short() { // Few draws may grant nothing.
		t.Error("nobody was granted anything")
	}
}

// TestNoKeyHoldsOperatorScopes holds every way in which a key could come to hold the
// scopes of operators.
func TestNoKeyHoldsOperatorScopes(t *testing.T) {
	t.Parallel()
	rules := apikey.Rules{Catalogue: apikey.DefaultScopes(), Formats: apikey.DefaultKeyFormats()}
	for _, scope := range append(apikey.OperatorScopes(), apikey.AllOperatorScopes, apikey.AllApplicationScopes) {
		if _, err := rules.Create(apikey.Key{Label: "k", Scopes: apikey.Scopes{scope}}, noon); err == nil {
			t.Errorf("a key was made with %s", scope)
		}
	}
	for _, held := range []apikey.Scopes{{"*"}, {"operator_tokens.create"}, {"operator_tokens.*", "*"}} {
		k := &apikey.Key{OrganizationID: "a", Enabled: true, Scopes: held}
		asked := &apikey.CheckRequest{Scopes: []string{"operator_tokens.create"}}
		if code := apikey.CheckCaller(k, asked, noon); code != apikey.CodeInsufficientScope {
			t.Errorf("a key that is stored with %q calls: %s", held, code)
		}
	}
}
