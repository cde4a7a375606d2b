package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestIdempotency plays repeated calls over both protocols.
func TestIdempotency(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	key := func(name string) string { return "Idempotency-Key: " + name }
	for _, protocol := range []string{"rest", "grpc"} {
		in := "\nX-Organization-Id: org_" + protocol
		take := func(name string, s step) {
			t.Helper()
			s.head += in
			w.take(t, name, protocol, s)
		}
		take("create", step{rpc: "CreateApiKey", body: `{"label": "a"}`, head: key("k1"), save: "a"})
		take("create again", step{rpc: "CreateApiKey", body: `{"label": "a"}`, head: key(`"k1"`), quiet: true, data: w.fill(`{"id": "$a.id", "secret": "$a.secret"}`)})
		take("another request", step{rpc: "CreateApiKey", body: `{"label": "b"}`, head: key("k1"), want: "IDEMPOTENCY_KEY_REUSED"})
		take("another method", step{rpc: "RevokeApiKey", id: "$a.id", body: `{}`, head: key("k1"), want: "IDEMPOTENCY_KEY_REUSED"})
		take("rotate", step{rpc: "RotateApiKey", id: "$a.id", body: endNow, head: key("k2"), save: "r"})
		take("rotate again", step{rpc: "RotateApiKey", id: "$a.id", body: endNow, head: key("k2"), quiet: true, data: w.fill(`{"secret": "$r.secret"}`)})
		take("update", step{rpc: "UpdateApiKey", id: "$a.id", body: `{"label": "c"}`, head: key("k3"), save: "u"})
		take("update again", step{rpc: "UpdateApiKey", id: "$a.id", body: `{"label": "c"}`, head: key("k3"), quiet: true, data: w.fill(`{"etag": "$u.etag"}`)})
		take("revoke", step{rpc: "RevokeApiKey", id: "$a.id", body: `{}`, head: key("k4")})
		take("revoke again", step{rpc: "RevokeApiKey", id: "$a.id", body: `{}`, head: key("k4"), quiet: true})
		take("a refusal is not kept", step{rpc: "RotateApiKey", id: "$a.id", body: endNow, head: key("k5"), want: "API_KEY_REVOKED"})
		take("the key of a refusal", step{rpc: "CreateApiKey", body: `{"label": "d"}`, head: key("k5")})
		take("delete ignores it", step{rpc: "DeleteApiKey", id: "$a.id", head: key("k1")})
		take("after deletion", step{rpc: "RotateApiKey", id: "$a.id", body: endNow, head: key("k2"), quiet: true, data: w.fill(`{"secret": "$r.secret"}`)})
		take("verify ignores it", step{rpc: "VerifyApiKey", body: `{"key": "$r.secret"}`, head: key("k1"), data: `{"code": "not_found"}`})
		take("too late", step{after: 24 * time.Hour, rpc: "CreateApiKey", body: `{"label": "another"}`, head: key("k1")})
		for _, bad := range []string{"a b", strings.Repeat("x", 256), `"a`, `"a"b"`, "a\nIdempotency-Key: b", `""`} {
			take("bad key "+bad, step{rpc: "CreateApiKey", body: `{"label": ""}`, head: key(bad), want: "INVALID_ARGUMENT", field: "label idempotency-key"})
		}
		take("longest", step{rpc: "CreateApiKey", body: `{"label": "a"}`, head: key(strings.Repeat("x", 255))})
		w.take(t, "other organization", protocol, step{rpc: "CreateApiKey", body: `{"label": "x"}`, head: key("k2") + "\nX-Organization-Id: org_other_" + protocol})
	}
}

// TestIdempotencyOfWebhooks repeats the calls of webhooks and deliveries, those of
// several transactions among them: the answer is the same, and is marked.
func TestIdempotencyOfWebhooks(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.take(t, "create", "rest", step{
		rpc: "CreateWebhook", body: `{"label": "hook", "url": "https://receiver.example.com/", "events": ["api_key.created"]}`, save: "w",
	})
	id := w.saved["w.id"]
	test := w.Call(t, http.MethodPost, "/developers/webhooks/"+id+"/test", "", "Idempotency-Key: test")
	var delivery struct{ ID string }
	test.Into(t, &delivery)
	for _, call := range []struct{ method, path, body string }{
		{"POST", "/developers/webhooks", `{"label": "hook", "url": "https://receiver.example.com/", "events": ["api_key.created"]}`},
		{"POST", "/developers/webhooks/" + id + "/test", ``},
		{"PATCH", "/developers/webhooks/" + id, `{"label": "renamed"}`},
		{"POST", "/developers/webhooks/" + id + "/rotate_secret", `{"overlap_seconds": 0}`},
		{"POST", "/developers/webhooks/" + id + "/replay", `{"since": "2025-06-30 00:00:00"}`},
		{"POST", "/developers/webhooks/" + id + "/retry", `{"states": ["pending"]}`},
		{"POST", "/developers/webhooks_queue/" + delivery.ID + "/cancel", ``},
		{"POST", "/developers/webhooks_queue/" + delivery.ID + "/retry", ``},
		{"POST", "/developers/operator_tokens", `{"name": "gateway", "scopes": ["api_keys.verify"], "organizations": ["*"]}`},
	} {
		key := "Idempotency-Key: key-of-" + strings.ReplaceAll(call.path, "/", "-")
		first := w.Call(t, call.method, call.path, call.body, key)
		events := len(w.events(t))
		again := w.Call(t, call.method, call.path, call.body, key)
		if first.Status != 200 || first.Header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%s %s: %d, %s", call.method, call.path, first.Status, first.Body)
		}
		if again.Status != 200 || again.Header.Get("Idempotency-Replayed") != "true" || string(again.Body) != string(first.Body) {
			t.Errorf("%s %s again: %d %v\n%s\nfirst\n%s", call.method, call.path, again.Status, again.Header, again.Body, first.Body)
		}
		if n := len(w.events(t)); n != events {
			t.Errorf("%s %s again: %d events more", call.method, call.path, n-events)
		}
		if ignored := w.Call(t, http.MethodPut, "/developers/webhooks/"+id, `{"label": "put"}`, key); ignored.Status != 200 || ignored.Header.Get("Idempotency-Replayed") != "" {
			t.Errorf("PUT: %d %v", ignored.Status, ignored.Header)
		}
	}
}

// TestIdempotencyOverBoth makes a call over gRPC and repeats it over REST, as another
// caller too, and at the limit.
func TestIdempotencyOverBoth(t *testing.T) {
	t.Parallel()
	w := newHarness(t, func(c *server.Config) { c.IdempotencyMax = 2 })
	keys := apikeysv1.NewApiKeysServiceClient(w.Conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+servertest.RootToken, "idempotency-key", "one")
	var header metadata.MD
	made, err := keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "a", Scopes: []string{"api_keys.create"}}, grpc.Header(&header))
	if err != nil || len(header.Get("idempotency-replayed")) > 0 {
		t.Fatal(err, header)
	}
	again, err := keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "a", Scopes: []string{"api_keys.create"}}, grpc.Header(&header))
	if err != nil || again.GetApiKey().GetSecret() != made.GetApiKey().GetSecret() || len(header.Get("idempotency-replayed")) != 1 {
		t.Errorf("again: %v, %v, %v", again, header, err)
	}
	const body = `{"label": "a", "scopes": ["api_keys.create"]}`
	rest := w.Call(t, http.MethodPost, keysPath, body, "Idempotency-Key: one")
	if rest.Status != 200 || !strings.Contains(string(rest.Body), made.GetApiKey().GetSecret()) || rest.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("over REST: %d %s", rest.Status, rest.Body)
	}
	as := "Authorization: Bearer " + made.GetApiKey().GetSecret()
	other := w.Call(t, http.MethodPost, keysPath, body, "Idempotency-Key: one", as)
	if other.Status != 200 || other.Header.Get("Idempotency-Replayed") != "" {
		t.Errorf("another caller: %d %s", other.Status, other.Body)
	}
	if full := w.Call(t, http.MethodPost, keysPath, body, "Idempotency-Key: two"); full.Status != 429 || !strings.Contains(string(full.Body), "IDEMPOTENCY_LIMIT") {
		t.Errorf("over the limit: %d %s", full.Status, full.Body)
	}
	// A caller that has lost its scope gets no answer again.
	w.Call(t, http.MethodPatch, keysPath+"/"+made.GetApiKey().GetId(), `{"scopes": []}`)
	if lost := w.Call(t, http.MethodPost, keysPath, body, "Idempotency-Key: one", as); lost.Status != 403 {
		t.Errorf("without the scope: %d %s", lost.Status, lost.Body)
	}
	if n := len(w.column(t, "SELECT id FROM idempotency_records")); n != 2 {
		t.Errorf("%d records", n)
	}
}

// TestIdempotencyOfDelegates has an operator of one organization use up what that one may
// keep, and nobody else's, with calls that are in no organization.
func TestIdempotencyOfDelegates(t *testing.T) {
	t.Parallel()
	w := newHarness(t, func(c *server.Config) { c.IdempotencyMax = 2 })
	body := func(organizations string) string {
		return `{"name": "a", "scopes": ["operator_tokens.create"], "organizations": [` + organizations + `]}`
	}
	for _, own := range []string{`"org_a"`, `"org_b", "org_c"`} {
		var made struct{ Secret string }
		w.Call(t, http.MethodPost, tokensPath, body(own)).Into(t, &made)
		for i, want := range []int{200, 200, 429} {
			if got := w.Call(t, http.MethodPost, tokensPath, body(own), "Idempotency-Key: "+string(rune('a'+i)), "Authorization: Bearer "+made.Secret); got.Status != want {
				t.Errorf("call %d of one for %s: %d %s", i, own, got.Status, got.Body)
			}
		}
	}
	if got := w.Call(t, http.MethodPost, tokensPath, body(`"*"`), "Idempotency-Key: a"); got.Status != 200 {
		t.Errorf("another operator: %d %s", got.Status, got.Body)
	}
}

// TestExternalID plays keys that their makers name.
func TestExternalID(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	for _, protocol := range []string{"rest", "grpc"} {
		in := "X-Organization-Id: org_" + protocol
		for i, s := range []step{
			{rpc: "CreateApiKey", body: `{"label": "a", "external_id": "order/1"}`, save: "x", data: `{"external_id": "order/1"}`},
			{rpc: "CreateApiKey", body: `{"label": "a", "external_id": "order/1"}`, want: "EXTERNAL_ID_TAKEN"},
			{rpc: "CreateApiKey", body: `{"label": "a", "external_id": "order 1"}`, want: "INVALID_ARGUMENT", field: "external_id"},
			{rpc: "UpdateApiKey", id: "$x.id", body: `{"external_id": "order/2"}`, want: "INVALID_ARGUMENT", field: "external_id", only: "rest"},
			{rpc: "GetApiKey", id: "$x.id", data: `{"external_id": "order/1"}`},
			{rpc: "DeleteApiKey", id: "$x.id"},
			{rpc: "CreateApiKey", body: `{"label": "b", "external_id": "order/1"}`, save: "y"},
		} {
			s.head = in
			w.take(t, protocol+" "+string(rune('1'+i)), protocol, s)
		}
		list := w.Call(t, http.MethodGet, keysPath+"?external_id=order/1", "", in)
		var found []struct{ ID string }
		if list.Into(t, &found); len(found) != 1 || found[0].ID != w.saved["y.id"] {
			t.Errorf("%s: found %s", protocol, list.Body)
		}
		taken := w.Call(t, http.MethodPost, keysPath, `{"label": "c", "external_id": "order/1"}`, in)
		if !strings.Contains(string(taken.Body), `"api_key_id":"`+w.saved["y.id"]+`"`) {
			t.Errorf("taken: %s", taken.Body)
		}
	}
	if n := len(w.column(t, "SELECT id FROM events WHERE CAST(payload AS text) LIKE '%order/1%' AND type = 'api_key.created'")); n != 4 && !w.OnPostgres() {
		t.Errorf("%d events tell of the external id", n)
	}
}
