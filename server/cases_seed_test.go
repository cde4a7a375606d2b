package server_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"testing"
)

// The answers that the vendor's documentation shows, with its own values.
const (
	sampleCreate = `{"status": 200, "data": {"id": "api_key_0197c0ec-a197-719f-84a9-99270a79b42a",
		"secret": "sk_live_MDE5N2MwZWMtYTE5Ny03NDVlLWE1YmMtYzQyNTQ4M2JiZjAxX2JpdGdwdA", "scopes": ["products.create"], "ip_allow_list": ["127.0.0.1"],
		"expires_at": "2026-05-30 20:23:16", "created_at": "2025-06-30 15:00:22", "updated_at": null},
		"error": null, "log": null, "validator": null, "support_id": null, "message": "Resource created successfully", "env": "development"}`
	sampleGet = `{"status": 200, "data": {"id": "api_key_0197c0ec-a197-719f-84a9-99270a79b42a", "label": "My API Key", "description": "Key for accessing product APIs",
		"scopes": ["products.create", "products.read"], "ip_allow_list": ["127.0.0.1", "192.168.1.0/24"], "expires_at": "2026-05-30 20:23:16",
		"created_at": "2025-06-30 15:00:22", "updated_at": "2025-07-01 10:30:45", "metrics": {"api_key_id": "api_key_0197c0ec-a197-719f-84a9-99270a79b42a",
		"total_requests": 1250, "last_used_at": "2025-07-01 09:15:30"}},
		"error": null, "log": null, "validator": null, "support_id": null, "message": "Resource created successfully", "env": "development"}`
	sampleList = `{"status": 200, "data": [{"id": "api_key_0197c0ec-a197-719f-84a9-99270a79b42a", "secret": "sk_live_MDE5N2MwZWMt...GdwdA", "scopes": ["products.create"],
		"ip_allow_list": ["127.0.0.1"], "expires_at": "2026-05-30 20:23:16", "created_at": "2025-06-30 15:00:22", "updated_at": null}],
		"error": null, "log": null, "validator": null, "support_id": null, "message": "Resource created successfully", "env": "development"}`
)

// forms are what texts of answers look like; the first that fits a sample's text
// has to fit ours.
var forms = []*regexp.Regexp{
	regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$`),
	regexp.MustCompile(`^api_key_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$`),
	regexp.MustCompile(`^sk_live_[0-9A-Za-z]{12}\.\.\.[0-9A-Za-z]{5}$`),
	regexp.MustCompile(`^sk_live_[0-9A-Za-z]{49,}$`),
	regexp.MustCompile(`^\d{1,3}(\.\d{1,3}){3}(/\d+)?$`),
	regexp.MustCompile(`.`),
}

// sameForm reports each place where got has not the form of sample: a name that is
// not there, or a value of another kind.
func sameForm(t *testing.T, at string, sample, got any) {
	t.Helper()
	switch s := sample.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for name := range s {
			value, ok := g[name]
			if !ok {
				t.Errorf("%s.%s is not there", at, name)
				continue
			}
			sameForm(t, at+"."+name, s[name], value)
		}
	case []any:
		g, _ := got.([]any)
		if len(g) == 0 {
			t.Errorf("%s is %v", at, got)
		}
		for i := range g {
			sameForm(t, at+"[]", s[0], g[i])
		}
	case string:
		text, ok := got.(string)
		for _, form := range forms {
			if form.MatchString(s) {
				if !ok || !form.MatchString(text) {
					t.Errorf("%s: %v has not the form of %s", at, got, s)
				}
				break
			}
		}
	case float64:
		if _, ok := got.(float64); !ok {
			t.Errorf("%s: %v is no number", at, got)
		}
	case nil:
		if got != nil {
			t.Errorf("%s: %v is not null", at, got)
		}
	}
}

// TestSamples plays the vendor's samples: the request bodies work, and the answers
// have all their fields in their form. Our sentences are better than theirs, which
// tell of a creation in an answer to GET.
func TestSamples(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	body := func(sample string) any {
		var v any
		if err := json.Unmarshal([]byte(sample), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	compare := func(name, sample, method, path, request string, headers ...string) string {
		a := w.Call(t, method, path, request, headers...)
		sameForm(t, name, body(sample), body(string(a.Body)))
		var data struct{ ID string }
		_ = json.Unmarshal(a.Envelope.Data, &data) // a list has none
		return data.ID
	}
	const create = `{
  "label": "My API Key",
  "description": "Key for accessing product APIs",
  "scopes": [
    "products.create"
  ],
  "ip_allow_list": [
    "127.0.0.1"
  ],
  "expires_at": "2026-05-30 20:23:16"
}
`
	id := compare("create", sampleCreate, http.MethodPost, keysPath, create)
	compare("list", sampleList, http.MethodGet, keysPath, "")
	compare("list", sampleList, http.MethodGet, keysPath, "", "Authorization: "+"servertest-root-token-of-enough-length")
	w.Call(t, http.MethodPatch, keysPath+"/"+id, `{"scopes": ["products.create", "products.read"], "ip_allow_list": ["127.0.0.1", "192.168.1.0/24"]}`)
	var made struct{ Secret string }
	w.Call(t, http.MethodPost, keysPath+"/"+id+"/rotate", endNow).Into(t, &made)
	w.Call(t, http.MethodPost, keysPath+"/verify", `{"key": "`+made.Secret+`", "ip": "127.0.0.1"}`)
	w.Server.Stop() // the count is stored at the latest now
	again := newHarnessIn(t, w.Dir)
	a := again.Call(t, http.MethodGet, keysPath+"/"+id, "")
	sameForm(t, "get", body(sampleGet), body(string(a.Body)))
	if a := again.Call(t, http.MethodPost, keysPath, `{"label": "x", "scopes": ["invoices.create"], "expires_at": null}`); a.Status != http.StatusOK {
		t.Error(a)
	}
	for _, scope := range []string{
		"invoices.create", "invoices.update", "invoices.read", "payments.create", "payments.update", "payments.read", "products.create", "products.read", "products.update", "products.delete",
		"api_keys.create", "api_keys.update", "api_keys.delete", "api_keys.read", "webhooks.create", "webhooks.read", "webhooks.update", "webhooks.delete", "webhooks_queue.read", "webhooks_queue.update",
		"notifications.read", "notifications.update", "notifications_settings.read", "notifications_settings.update", "organizations.create", "organizations.read", "organizations.update",
		"organizations.deactivate", "users.update", "users.deactivate", "users.sessions.read", "users.sessions.deactivate", "api_keys.verify", "events.read",
	} {
		if a := again.Call(t, http.MethodPost, keysPath, `{"label": "x", "scopes": ["`+scope+`"]}`); a.Status != http.StatusOK {
			t.Error(a)
		}
	}
}
