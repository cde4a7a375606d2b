package server_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server"
)

// TestWebhookSecrets looks for what is told of secrets, in answers and events, in
// the log and in the files of the database.
func TestWebhookSecrets(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	masked := regexp.MustCompile(`^whsec_[0-9A-Za-z+/]{4}\.\.\.[0-9A-Za-z+/]{4}=$`)
	whole := regexp.MustCompile(`^whsec_[0-9A-Za-z+/]{43}=$`)
	w.take(t, "create", "rest", newHook(`, "headers": {"X-Token": "hunter3"}`))
	id, secret := w.saved["w.id"], w.saved["w.secret"]
	if !whole.MatchString(secret) {
		t.Errorf("created with %q", secret)
	}
	w.take(t, "get", "rest", step{rpc: "GetWebhook", id: id, save: "g"})
	if !masked.MatchString(w.saved["g.secret"]) || w.saved["g.secret"][:10] != secret[:10] {
		t.Errorf("read as %q", w.saved["g.secret"])
	}
	w.take(t, "rotate", "grpc", step{rpc: "RotateWebhookSecret", id: id, save: "r"})
	if next := w.saved["r.secret"]; !whole.MatchString(next) || next == secret {
		t.Errorf("rotated to %q", next)
	}
	w.take(t, "change", "grpc", step{rpc: "UpdateWebhook", id: id, body: `{"label": "x"}`})
	w.take(t, "test", "rest", step{rpc: "TestWebhook", id: id, data: `{"event": "webhook.test", "resource_id": "` + id + `", "payload": {"id": "` + id + `", "headers": {"X-Token": "********"}}, "state": "pending"}`})
	list := w.Call(t, http.MethodGet, hooksPath, "")
	log := w.Call(t, http.MethodGet, "/developers/events?after=start", "")
	w.Server.Stop()
	for _, text := range []string{secret[6:], w.saved["r.secret"][6:], "hunter3"} {
		if strings.Contains(string(list.Body)+string(log.Body), text) {
			t.Errorf("an answer has %q", text)
		}
		for name, content := range files(t, w.Dir) {
			if strings.Contains(content, text) {
				t.Errorf("%s has %q", name, text)
			}
		}
	}
	for _, text := range []string{secret, w.saved["r.secret"], "hunter2", "hunter3"} {
		if strings.Contains(w.Log.String(), text) {
			t.Errorf("the log has %q", text)
		}
	}
	var events []struct {
		Type    string
		Webhook struct {
			ID, Secret string
			Headers    map[string]string
		}
		APIKey any `json:"api_key"`
	}
	if err := json.Unmarshal(log.Envelope.Data, &events); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"webhook.created", "webhook.secret_rotated", "webhook.updated", "webhook.test"} {
		if e := events[i]; e.Type != want || e.Webhook.ID != id || !masked.MatchString(e.Webhook.Secret) || e.Webhook.Headers["X-Token"] != "********" || e.APIKey != nil {
			t.Errorf("event %d: %+v", i, e)
		}
	}
}

// TestWebhookScopes calls each RPC with a key that has all scopes but its own, and
// with one that has no other.
func TestWebhookScopes(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	steps := map[string][]step{
		"webhooks.create":       {newHook("").saved("")},
		"webhooks.read":         {{rpc: "ListWebhooks"}, {rpc: "GetWebhook", id: "$w.id"}},
		"webhooks.update":       {{rpc: "UpdateWebhook", id: "$w.id", body: `{}`, quiet: true}, {rpc: "RotateWebhookSecret", id: "$w.id"}, {rpc: "TestWebhook", id: "$w.id"}},
		"webhooks_queue.read":   {{rpc: "ListDeliveries"}, {rpc: "GetDelivery", id: "$d.id"}},
		"webhooks_queue.update": {{rpc: "CancelDelivery", id: "$d.id"}, {rpc: "RetryDelivery", id: "$d.id"}, {rpc: "ReplayEvents", id: "$w.id", body: `{"since": "$in(-1h)"}`}},
		"webhooks.delete":       {{rpc: "DeleteWebhook", id: "$w.id"}},
	}
	var all []string
	for scope := range steps {
		all = append(all, scope)
	}
	scenarios := make(map[string]scenario)
	for scope, calls := range steps {
		others := strings.ReplaceAll(`"`+strings.Join(all, `","`)+`"`, `"`+scope+`"`, `"products.read"`)
		play := scenario{
			newHook(""), {rpc: "TestWebhook", id: "$w.id", save: "d"},
			{rpc: "CreateApiKey", body: `{"label": "x", "scopes": [` + others + `, "events.read"]}`, save: "others"}, {rpc: "CreateApiKey", body: `{"label": "x", "scopes": ["` + scope + `", "events.read"]}`, save: "own"},
			{rpc: "ListWebhookEventTypes", as: "$own.secret"}, {rpc: "ListWebhookEventTypes", as: "-", want: "UNAUTHENTICATED"},
		}
		for _, s := range calls {
			refused, allowed := s, s
			refused.as, refused.want = "$others.secret", "INSUFFICIENT_SCOPE"
			allowed.as = "$own.secret"
			play = append(play, refused, allowed)
		}
		scenarios[scope] = play
	}
	w.play(t, scenarios)
	var types []struct{ Type, Description string }
	w.Call(t, http.MethodGet, hooksPath+"/events", "").Into(t, &types)
	if len(types) < 13 || types[0].Type != "api_key.created" || types[0].Description == "" {
		t.Errorf("types %v", types)
	}
}

// TestTooManyWebhooks fills an organization.
func TestTooManyWebhooks(t *testing.T) {
	t.Parallel()
	w := newHarness(t, func(c *server.Config) { c.WebhooksMax = 2 })
	full := newHook("").wants("TOO_MANY_WEBHOOKS", "")
	w.playOne(t, "full", "rest", scenario{
		newHook(""), newHook(""), full, newHook("").in("org_other"), {rpc: "DeleteWebhook", id: "$w.id", head: "X-Organization-Id: org_other"}, full,
	})
}
