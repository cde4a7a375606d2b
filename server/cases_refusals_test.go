package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// TestRefusals plays refused uses of keys. A stop stores what is on record, so what one
// server has refused a second one tells.
func TestRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inDir := func(c *server.Config) { c.DataDir = dir }
	first := newHarness(t, inDir)
	verify := func(more string) step { return step{rpc: "VerifyApiKey", body: `{` + more + `}`} }
	const elsewhere = "X-Organization-Id: org_other"
	first.playOne(t, "uses", "rest", scenario{
		{rpc: "CreateApiKey", body: `{"label": "refused", "scopes": ["api_keys.read", "api_keys.update"]}`, save: "k"},
		{rpc: "CreateApiKey", body: `{"label": "never used"}`, save: "n"},
		{rpc: "CreateApiKey", body: `{"label": "deleted"}`, save: "d"},
		{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60}`, save: "r"},
		// What nobody is told of: no cost, another organization, no key.
		verify(`"key": "$k.secret", "scopes": ["x"], "cost": 0`),
		{rpc: "VerifyApiKey", body: `{"key": "$k.secret", "scopes": ["x"]}`, head: elsewhere},
		verify(`"key": "junk"`),
		// By the second.
		verify(`"key": "$k.secret", "scopes": ["x"], "ip": "::ffff:192.0.2.1", "user_agent": "Mozilla/5.0\u0000 (X11)"`).later(time.Second),
		step{rpc: "ListWebhooks", as: "$k.secret", head: "User-Agent: curl/8.5", want: "INSUFFICIENT_SCOPE"}.later(time.Second),
		step{rpc: "ListApiKeys", as: "$k.secret", head: elsewhere, want: "WRONG_ORGANIZATION"}.later(time.Second),
		step{rpc: "UpdateApiKey", as: "$k.secret", id: "$k.id", body: `{"label": "x"}`, want: "PREVIOUS_SECRET"}.later(time.Second),
		step{rpc: "BatchVerifyApiKeys", body: `{"keys": [{"key": "$r.secret", "scopes": ["y"], "user_agent": "$r.secret"}, {"key": "$r.secret", "ip": "192.0.2.9", "user_agent": "one"}]}`}.later(time.Second),
		verify(`"key": "$r.secret", "ip": "192.0.2.10", "user_agent": "` + strings.Repeat("u", 300) + `"`).later(time.Second),
		// A secret that a rotation has ended, and the states of a key.
		verify(`"key": "$k.secret"`).later(time.Minute),
		step{rpc: "UpdateApiKey", id: "$k.id", body: `{"enabled": false}`}.later(time.Second), verify(`"key": "$r.secret"`),
		step{rpc: "ListApiKeys", as: "$r.secret", want: "UNAUTHENTICATED"}.later(time.Second),
		{rpc: "VerifyApiKey", body: `{"key": "$d.secret", "scopes": ["x"]}`}, {rpc: "DeleteApiKey", id: "$d.id"}, {rpc: "VerifyApiKey", body: `{"key": "$d.secret"}`},
		{rpc: "VerifyApiKey", body: `{"key": "$n.secret", "user_agent": "` + strings.Repeat("u", 8193) + `"}`, want: "INVALID_ARGUMENT", field: "user_agent"},
		{rpc: "ListEvents", data: `[]`, body: "types=api_key.expired"}, // No event tells of a refusal.
	})
	first.Stop()
	w := newHarness(t, inDir)
	for name, text := range first.saved {
		w.saved[name] = text
	}
	w.clock.Advance(10 * time.Minute)
	const caller = `"via": "authentication", "caller": {"kind": "api_key", "id": "$k.id", "name": "refused"}`
	const root = `"via": "verification", "caller": {"kind": "operator", "id": "root", "name": "root"}`
	w.play(t, map[string]scenario{
		"the record": {{rpc: "ListApiKeyRefusals", id: "$k.id", data: `[
			{"code": "disabled", ` + caller + `},
			{"code": "disabled", "ip": "", "user_agent": "", ` + root + `},
			{"code": "not_found", ` + root + `},
			{"code": "insufficient_scope", "user_agent": "sk_live_` + apikey.Redacted + `", ` + root + `},
			{"code": "previous_secret", "ip": "127.0.0.1", ` + caller + `},
			{"code": "wrong_organization", "ip": "127.0.0.1", ` + caller + `},
			{"code": "insufficient_scope", "ip": "127.0.0.1", "user_agent": "curl/8.5", ` + caller + `},
			{"code": "insufficient_scope", "ip": "192.0.2.1", "user_agent": "Mozilla/5.0 (X11)", ` + root + `}]`}},
		"a page":     {{rpc: "ListApiKeyRefusals", id: "$k.id", body: "page_size=1", data: `[{"code": "disabled", ` + caller + `}]`}},
		"never used": {{rpc: "ListApiKeyRefusals", id: "$n.id", data: `[]`}, {rpc: "GetApiKey", id: "$n.id", data: `{"last_use": null}`}},
		"last use": {{rpc: "GetApiKey", id: "$k.id", data: `{"last_use": {"ip": "192.0.2.10", "user_agent": "` + strings.Repeat("u", 256) + `", "addresses_today": 3}}`},
			{rpc: "VerifyApiKey", body: `{"key": "$r.secret", "cost": 0}`, data: `{"api_key": {"last_use": null}}`}},
		"no key": {{rpc: "ListApiKeyRefusals", id: "$d.id", want: "API_KEY_NOT_FOUND"}, {rpc: "ListApiKeyRefusals", id: "x", want: "API_KEY_NOT_FOUND"},
			{rpc: "ListApiKeyRefusals", id: "$k.id", head: elsewhere, want: "API_KEY_NOT_FOUND"}},
		"faults": {{rpc: "ListApiKeyRefusals", id: "$k.id", body: "page_size=1001", want: "INVALID_ARGUMENT", field: "page_size"},
			{rpc: "ListApiKeyRefusals", id: "$k.id", body: "page_token=x&page_size=0", want: "INVALID_ARGUMENT", field: "page_token"},
			{rpc: "ListApiKeyRefusals", id: "$k.id", body: "order=asc", want: "INVALID_ARGUMENT", field: "order"},
			{rpc: "ListApiKeyRefusals", id: "$k.id", head: "X-Organization-Id: *", want: "INVALID_ARGUMENT", field: "x-organization-id"}},
		"rights": {keyWith("v", `["api_keys.verify"]`), {rpc: "ListApiKeyRefusals", id: "$k.id", as: "$v.secret", want: "INSUFFICIENT_SCOPE"}},
		"events by time": {
			{rpc: "ListEvents", body: "order=up", want: "INVALID_ARGUMENT", field: "order"},
			{rpc: "ListEvents", body: "since=2025-07-01T00:00:00Z&until=2025-06-01T00:00:00Z", want: "INVALID_ARGUMENT", field: "until"},
			{rpc: "ListEvents", body: "order=desc&until=2025-01-01T00:00:00Z", data: `[]`},
			{rpc: "ListEvents", body: "order=desc&page_size=1&resource_ids=$k.id", data: `[{"type": "api_key.updated", "api_key": {"last_use": null}}]`},
		},
	})

	w.clock.Advance(24 * time.Hour)
	w.playOne(t, "the next day", "rest", scenario{{rpc: "GetApiKey", id: "$k.id", data: `{"last_use": {"ip": "192.0.2.10", "addresses_today": 0}}`}})

	// Over REST a header tells how many there were, and what follows.
	answer := w.Call(t, http.MethodGet, keysPath+"/"+w.saved["k.id"]+"/refusals?page_size=5", "")
	if answer.Header.Get("X-Total-Count") != "8" || answer.Header.Get("X-Next-Page-Token") == "" {
		t.Errorf("headers %v", answer.Header)
	}
}

// keyWith makes a key with scopes.
func keyWith(name, scopes string) step {
	return step{rpc: "CreateApiKey", body: `{"label": "` + name + `", "scopes": ` + scopes + `}`, save: name}
}
