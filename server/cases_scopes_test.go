package server_test

import (
	"slices"
	"testing"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// TestListScopes reads the catalogue of a server that names scopes of its
// application: the server's own are always in it, each with the methods that ask
// for it, and any credential may read it.
func TestListScopes(t *testing.T) {
	t.Parallel()
	w := newHarness(t, func(c *server.Config) { c.Scopes = []string{"reports.read", "reports.write", "events.read"} })
	w.play(t, map[string]scenario{"the application's": {
		{rpc: "CreateApiKey", body: `{"label": "x", "scopes": ["reports.read", "api_keys.verify", "events.read", "*"]}`},
		{rpc: "CreateApiKey", body: `{"label": "x", "scopes": ["products.read"]}`, want: "INVALID_ARGUMENT", field: "scopes[0]"},
		{rpc: "CreateApiKey", body: `{"label": "x", "scopes": []}`, save: "none"},
		{rpc: "ListScopes", as: "$none.secret"}, {rpc: "ListScopes", head: "X-Organization-Id: *"},
		{rpc: "ListScopes", as: "sk_live_x", want: "UNAUTHENTICATED"}, {rpc: "ListScopes", body: "page_size=1", want: "INVALID_ARGUMENT", field: "page_size", only: "rest"},
	}})
	resp, err := w.Keys.ListScopes(w.Context(t.Context()), &apikeysv1.ListScopesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range resp.GetScopes() {
		names = append(names, s.GetName())
		if own := slices.Contains(apikey.ServerScopes(), s.GetName()); own != (len(s.GetMethods()) > 0) || own != (len(s.GetRoutes()) > 0) {
			t.Errorf("%s: methods %v, routes %v", s.GetName(), s.GetMethods(), s.GetRoutes())
		}
	}
	if want := append(apikey.ServerScopes(), "reports.read", "reports.write"); !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	for _, s := range resp.GetScopes() {
		if s.GetName() == "webhooks.read" && (!slices.Contains(s.GetMethods(), "WebhooksService.ListWebhooks") ||
			!slices.Contains(s.GetRoutes(), "GET /api/v1/webhooks/subscriptions/{id}")) {
			t.Errorf("webhooks.read opens %v and %v", s.GetMethods(), s.GetRoutes())
		}
	}
	// A scope that is refused names the nearest.
	for scope, want := range map[string]string{
		"report.read": "; nearest: reports.read", "API_KEYS.READ": "; nearest: api_keys.read, api_keys.create",
		"reports.delete": "; nearest: reports.read, reports.write", "reports.": "; nearest: reports.read, reports.write",
		"something.else": "", "x": "",
	} {
		_, err := w.Keys.CreateApiKey(w.Context(t.Context()), &apikeysv1.CreateApiKeyRequest{Label: "x", Scopes: []string{scope}})
		if a := w.failure(t, err); a.validator["scopes[0]"] != "is not a scope of this server's catalogue"+want {
			t.Errorf("%s: %s", scope, a.validator["scopes[0]"])
		}
	}
}

// TestKeysMax makes as many keys as an organization may have.
func TestKeysMax(t *testing.T) {
	t.Parallel()
	made := step{rpc: "CreateApiKey", body: `{"label": "x"}`}
	full, bad := made, step{rpc: "CreateApiKey", body: `{"label": ""}`, want: "INVALID_ARGUMENT", field: "label"}
	full.want = "TOO_MANY_KEYS"
	for _, protocol := range []string{"rest", "grpc"} {
		w := newHarness(t, func(c *server.Config) { c.KeysMax = 3 })
		for _, s := range []step{made, made, made.saved("k"), full, bad, made.in("org_b"), full, {rpc: "DeleteApiKey", id: "$k.id"}, made, full} {
			w.take(t, "keys", protocol, s)
		}
	}
}
