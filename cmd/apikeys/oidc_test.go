package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
)

// FuzzIssuers reads any YAML as the setting oidc: it is taken, or refused in one line that
// names the setting; what is taken can be checked.
func FuzzIssuers(f *testing.F) {
	for _, text := range []string{
		`[{issuer: "https://a", audience: b, organizations: ["*"], scopes_claim: scope}]`, `[{roles: {a: admin, b: [x, "*"]}, clock_skew: 1m}]`,
		`- audience: [a, &x b, *x]`, `[{issuer: [x]}]`, `{}`, `[[]]`, `x`, `[{roles: {a: {}}}]`, `[{clock_skew: 99999999999d}]`, `- &a {issuer: *a}`, `[{typ: null, roles: ~}]`,
		`- <<: {issuer: x}`, `[{"issuer": "\u202e\n"}]`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := newSources([]string{envPrefix + "OIDC=" + text}).issuers()
		if err != nil {
			if !strings.HasPrefix(err.Error(), "APIKEYS_OIDC") || strings.Contains(err.Error(), "\n") || len(err.Error()) > 500 || !errors.As(err, new(usageError)) {
				t.Fatalf("%q", err)
			}
			return
		}
		for _, p := range identity.Check(all, true, apikey.DefaultScopes()) {
			if !strings.HasPrefix(p.Field, "oidc") || p.Problem == "" {
				t.Fatalf("%+v", p)
			}
		}
	})
}
