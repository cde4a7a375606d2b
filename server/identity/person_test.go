package identity_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
	"github.com/apikeys-dev/apikeys/server/servertest/issuer"
)

func TestPerson(t *testing.T) {
	t.Parallel()
	s := newHarness(t)
	p := s.good(t, s.token(issuer.Claims{"name": "Anna", "scope": "openid api_keys.read invoices.read api_keys.read * app:* operator_tokens.*", "aud": []string{"x", issuer.Audience}}))
	if want := (apikey.Actor{Kind: apikey.ActorPerson, ID: s.URL + "|anna", Name: "Anna"}); p.Actor != want {
		t.Errorf("actor %+v", p.Actor)
	}
	if diff := cmp.Diff(apikey.Scopes{"api_keys.read", "invoices.read"}, p.Token.Scopes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"org_a"}, p.Token.Organizations); diff != "" {
		t.Error(diff)
	}
	if want := clock.Noon.Add(time.Hour); !p.Token.ExpiresAt.Equal(want) {
		t.Errorf("ends at %v, want %v", p.Token.ExpiresAt, want)
	}
}

// TestMapping holds what claims mean.
func TestMapping(t *testing.T) {
	t.Parallel()
	byClaim := func(i *identity.Issuer) { i.OrganizationClaim, i.Organizations = "org", nil }
	among := func(allowed ...string) func(*identity.Issuer) {
		return func(i *identity.Issuer) { i.OrganizationClaim, i.Organizations = "org", allowed }
	}
	byRole := func(i *identity.Issuer) {
		i.ScopesClaim, i.RolesClaim = "", "realm_access.roles"
		i.Roles = map[string]identity.Grant{"admins": {Role: "admin"}, "gate": {Role: "verifier"}, "pay": {Scopes: []string{"payments.read", "app:*"}}}
	}
	roles := func(values ...any) issuer.Claims {
		return issuer.Claims{"realm_access": issuer.Claims{"roles": values}}
	}
	many := make([]string, 101)
	for n := range many {
		many[n] = "o" + strings.Repeat("x", n)
	}
	secret, err := apikey.NewSecret("sk_live_", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change        func(*identity.Issuer)
		claims        issuer.Claims
		organizations []string
		scopes        apikey.Scopes
		nothing       bool
		name          string
	}{
		"one organization":          {change: byClaim, claims: issuer.Claims{"org": "a"}, organizations: []string{"a"}},
		"several":                   {change: byClaim, claims: issuer.Claims{"org": []string{"a", "b", "a"}}, organizations: []string{"a", "b"}},
		"none":                      {change: byClaim, nothing: true},
		"an empty list":             {change: byClaim, claims: issuer.Claims{"org": []string{}}, nothing: true},
		"null":                      {change: byClaim, claims: issuer.Claims{"org": issuer.Claims(nil)}, nothing: true},
		"a number":                  {change: byClaim, claims: issuer.Claims{"org": 7}, nothing: true},
		"an object":                 {change: byClaim, claims: issuer.Claims{"org": issuer.Claims{"a": 1}}, nothing: true},
		"a number in a list":        {change: byClaim, claims: issuer.Claims{"org": []any{"a", 7}}, nothing: true},
		"a bad form":                {change: byClaim, claims: issuer.Claims{"org": "a b"}, nothing: true},
		"a bad form in a list":      {change: byClaim, claims: issuer.Claims{"org": []string{"a", "a/b"}}, nothing: true},
		"empty":                     {change: byClaim, claims: issuer.Claims{"org": ""}, nothing: true},
		"too many":                  {change: byClaim, claims: issuer.Claims{"org": many}, nothing: true},
		"* is not asked for":        {change: byClaim, claims: issuer.Claims{"org": "*"}, nothing: true},
		"* in a list":               {change: byClaim, claims: issuer.Claims{"org": []string{"a", "*"}}, nothing: true},
		"* among some":              {change: among("a", "b"), claims: issuer.Claims{"org": []string{"*", "b"}}, organizations: []string{"b"}},
		"* that may be":             {change: among("*"), claims: issuer.Claims{"org": []string{"b", "*"}}, organizations: []string{"*"}},
		"any that may be":           {change: among("*"), claims: issuer.Claims{"org": "b"}, organizations: []string{"b"}},
		"a secret as one":           {change: byClaim, claims: issuer.Claims{"org": secret.Reveal()}, nothing: true},
		"one that may be":           {change: among("a", "b"), claims: issuer.Claims{"org": []string{"c", "b", "not one"}}, organizations: []string{"b"}},
		"none that may be":          {change: among("a", "b"), claims: issuer.Claims{"org": "c"}, nothing: true},
		"within a claim":            {change: func(i *identity.Issuer) { i.OrganizationClaim, i.Organizations = "a.b.c", nil }, claims: issuer.Claims{"a": issuer.Claims{"b": issuer.Claims{"c": "x"}}}, organizations: []string{"x"}},
		"a claim that has dots":     {change: func(i *identity.Issuer) { i.OrganizationClaim, i.Organizations = "https://example.com/org", nil }, claims: issuer.Claims{"https://example.com/org": "x"}, organizations: []string{"x"}},
		"all of them by the set-up": {change: func(i *identity.Issuer) { i.Organizations = []string{"*"} }, organizations: []string{"*"}},

		"scopes in a list":    {claims: issuer.Claims{"scope": []string{"api_keys.verify", "x", "operator_tokens.read"}}, scopes: apikey.Scopes{"api_keys.verify", "operator_tokens.read"}},
		"unknown scopes":      {claims: issuer.Claims{"scope": "openid profile"}, nothing: true},
		"no scopes":           {claims: issuer.Claims{"scope": nil}, nothing: true},
		"*":                   {claims: issuer.Claims{"scope": "*"}, nothing: true},
		"a number as scope":   {claims: issuer.Claims{"scope": 1}, nothing: true},
		"a number in scopes":  {claims: issuer.Claims{"scope": []any{"api_keys.read", true}}, nothing: true},
		"scopes in capitals":  {claims: issuer.Claims{"scope": "API_KEYS.READ"}, nothing: true},
		"a role":              {change: byRole, claims: roles("offline_access", "gate"), scopes: apikey.Scopes{"api_keys.verify"}},
		"two roles":           {change: byRole, claims: roles("gate", "pay"), scopes: apikey.Scopes{"api_keys.verify", "payments.read", "app:*"}},
		"admin":               {change: byRole, claims: roles("admins"), scopes: apikey.Scopes{"*", "operator_tokens.*"}},
		"an unknown role":     {change: byRole, claims: roles("root", "admin", "verifier"), nothing: true},
		"a number as role":    {change: byRole, claims: roles("gate", 7), nothing: true},
		"no role":             {change: byRole, claims: roles(), nothing: true},
		"a scope, not a role": {change: byRole, claims: issuer.Claims{"scope": "api_keys.read"}, nothing: true},
		"both": {
			change: func(i *identity.Issuer) { byRole(i); i.ScopesClaim = "scope" },
			claims: issuer.Claims{"scope": "api_keys.read", "realm_access": issuer.Claims{"roles": "gate"}}, scopes: apikey.Scopes{"api_keys.read", "api_keys.verify"},
		},
		"the subject's role": {
			change: func(i *identity.Issuer) {
				i.ScopesClaim, i.RolesClaim, i.Roles = "", "sub", map[string]identity.Grant{"anna": {Role: "viewer"}}
			},
			scopes: apikey.Scopes{"api_keys.read", "webhooks.read", "webhooks_queue.read", "events.read", "invoices.read", "payments.read", "products.read", "notifications.read", "notifications_settings.read", "organizations.read", "users.sessions.read", "operator_tokens.read"},
		},

		"a name":              {claims: issuer.Claims{"name": " Anna\u202e B\n", "email": "x"}, name: "Anna B"},
		"another name":        {claims: issuer.Claims{"name": 7, "preferred_username": "", "email": "anna@example.com"}, name: "anna@example.com"},
		"a chosen name":       {change: func(i *identity.Issuer) { i.NameClaim = "nick" }, claims: issuer.Claims{"name": "Anna", "nick": "ann"}, name: "ann"},
		"no such name":        {change: func(i *identity.Issuer) { i.NameClaim = "nick" }, claims: issuer.Claims{"name": "Anna"}},
		"a secret as name":    {claims: issuer.Claims{"name": secret.Reveal()}},
		"a long name":         {claims: issuer.Claims{"name": strings.Repeat("\u00e4", 300)}, name: strings.Repeat("\u00e4", 255)},
		"a secret as subject": {claims: issuer.Claims{"sub": secret.Reveal()}, nothing: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var change []func(*identity.Issuer)
			if test.change != nil {
				change = append(change, test.change)
			}
			s := newHarness(t, change...)
			token := s.token(test.claims)
			if test.nothing {
				s.want(t, token, apikey.KindPermissionDenied)
				s.want(t, token, apikey.KindPermissionDenied) // as it is remembered
				return
			}
			p := s.good(t, token)
			if want := test.organizations; want != nil && !cmp.Equal(want, p.Token.Organizations) {
				t.Errorf("organizations %q, want %q", p.Token.Organizations, want)
			}
			if want := test.scopes; want != nil && !cmp.Equal(want, p.Token.Scopes) {
				t.Errorf("scopes %q, want %q", p.Token.Scopes, want)
			}
			if p.Actor.Name != test.name {
				t.Errorf("name %q, want %q", p.Actor.Name, test.name)
			}
		})
	}
}
