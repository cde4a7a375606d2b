package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/servertest"
)

// The paths of webhooks, and of their deliveries.
const (
	hooksPath = "/developers/webhooks"
	subsPath  = "/api/v1/webhooks/subscriptions"
	queuePath = "/developers/webhooks_queue"
)

const (
	noHook     = "WEBHOOK_NOT_FOUND"
	noDelivery = "DELIVERY_NOT_FOUND"
)

// newHook is a step that makes a webhook that nothing is ever sent to: its
// endpoint is one that no name resolves to.
func newHook(more string) step {
	return step{rpc: "CreateWebhook", save: "w", body: `{"label": "Billing", "url": "https://hooks.invalid/x?token=hunter2", "events": ["webhook.failing"]` + more + `}`}
}

func (s step) wants(reason, fields string) step {
	s.save, s.want, s.field = "", reason, fields
	return s
}

func (s step) gives(data string) step {
	s.data = data
	return s
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	change := func(body string) step { return step{rpc: "UpdateWebhook", id: "$w.id", body: body} }
	get := func(data string) step { return step{rpc: "GetWebhook", id: "$w.id", data: data} }
	w.play(t, map[string]scenario{
		"defaults": {
			newHook("").gives(`{"organization_id": "org_default", "label": "Billing", "description": "", "url": "https://hooks.invalid/x?token=hunter2", "events": ["webhook.failing"],
				"format": "classic", "headers": {}, "enabled": true, "updated_at": null, "disabled_reason": null, "etag": "1"}`),
			get(`{"label": "Billing", "format": "classic", "enabled": true, "etag": "1"}`),
		},
		"everything": {
			newHook(`, "description": "d", "format": "cloudevents", "headers": {"x-b": "2", "Authorization": "Bearer hunter3"}, "enabled": false`).
				gives(`{"description": "d", "format": "cloudevents", "headers": {"Authorization": "********", "X-B": "********"}, "enabled": false}`),
			get(`{"headers": {"Authorization": "********", "X-B": "********"}}`),
		},
		"repeated events": {
			newHook("").replacing(`["webhook.failing"]`, `["api_key.created", "*", "api_key.created", "webhook.disabled"]`).gives(`{"events": ["api_key.created", "*", "webhook.disabled"]}`),
		},
		"patch": {
			newHook(`, "headers": {"X-A": "1", "X-B": "2"}, "description": "d"`),
			{rpc: "UpdateWebhook", id: "$w.id", body: `{"label": "Other", "description": null, "url": "https://example.com", "events": ["*"], "format": "standard", "enabled": false, "id": "$w.id", "headers": {"X-A": "1", "X-B": "2"}}`,
				after: time.Second, data: `{"label": "Other", "description": "", "url": "https://example.com", "events": ["*"], "format": "standard", "enabled": false, "etag": "2", "updated_at": "$in(0s)"}`},
			change(`{"headers": {"X-B": null, "x-c": "3"}}`).gives(`{"headers": {"X-A": "********", "X-C": "********"}, "etag": "3"}`),
			change(`{"headers": {"X-A": "********"}}`).silent().gives(`{"etag": "3"}`),
			change(`{"headers": {"X-New": "********"}}`).wants("INVALID_ARGUMENT", "headers.X-New"),
			change(`{"headers": null}`).gives(`{"headers": {}, "etag": "4"}`),
			change(`{}`).silent().gives(`{"etag": "4"}`),
			change(`{"label": "Other", "events": ["*", "*"]}`).silent().gives(`{"etag": "4"}`),
			change(`{"label": "Stale", "etag": "3"}`).wants("ETAG_MISMATCH", ""),
			{rpc: "UpdateWebhook", id: "$w.id", match: "3", body: `{"label": "Stale"}`, want: "ETAG_MISMATCH"},
			{rpc: "UpdateWebhook", id: "$w.id", match: "4", body: `{"label": "Fresh"}`, data: `{"label": "Fresh", "etag": "5"}`},
			change(`{"label": "Fresher", "etag": "5"}`).gives(`{"etag": "6"}`),
			get(`{"label": "Fresher", "etag": "6"}`),
		},
		"another origin": {
			newHook(`, "headers": {"X-A": "1", "X-B": "2"}`),
			change(`{"url": "https://hooks.invalid/other"}`),
			change(`{"url": "https://evil.invalid/x"}`).wants("INVALID_ARGUMENT", "headers"),
			change(`{"url": "https://hooks.invalid:8443/x"}`).wants("INVALID_ARGUMENT", "headers"),
			change(`{"url": "https://evil.invalid/x", "headers": {"X-A": "1", "X-B": "********"}}`).wants("INVALID_ARGUMENT", "headers"),
			change(`{"url": "https://evil.invalid/x", "headers": {"X-A": "1"}}`).wants("INVALID_ARGUMENT", "headers"),
			{rpc: "UpdateWebhook", verb: http.MethodPut, id: "$w.id", body: `{"label": "Put", "url": "https://evil.invalid/x"}`, want: "INVALID_ARGUMENT", field: "headers"},
			change(`{"url": "https://evil.invalid/x", "headers": {"X-A": "1", "X-B": null}}`).gives(`{"url": "https://evil.invalid/x", "headers": {"X-A": "********"}}`),
			change(`{"url": "https://hooks.invalid/x", "headers": null}`).gives(`{"url": "https://hooks.invalid/x", "headers": {}}`),
		},
		"put": {
			newHook(""),
			{rpc: "UpdateWebhook", verb: http.MethodPut, id: "$w.id", body: `{"label": "Put"}`, data: `{"label": "Put", "events": ["webhook.failing"]}`},
			{rpc: "UpdateWebhook", verb: http.MethodPut, id: "$w.id", body: `{"enabled": false}`, want: "INVALID_ARGUMENT", field: "label"},
		},
		"required": {
			newHook(""),
			change(`{"label": null}`).wants("INVALID_ARGUMENT", "label"), change(`{"label": ""}`).wants("INVALID_ARGUMENT", "label"),
			change(`{"url": null}`).wants("INVALID_ARGUMENT", "url"), change(`{"events": null}`).wants("INVALID_ARGUMENT", "events"),
			change(`{"events": []}`).wants("INVALID_ARGUMENT", "events"), change(`{"format": null}`).wants("INVALID_ARGUMENT", "format"),
			{rpc: "CreateWebhook", body: `{}`, want: "INVALID_ARGUMENT", field: "label url events"},
			get(`{"etag": "1"}`),
		},
		"all faults at once": {
			newHook(`, "description": "a\u202eb", "headers": {"host": "x", "X-A": "`+strings.Repeat("x", 4097)+`"}`).replacing("Billing", "\u200b").replacing(`["webhook.failing"]`, `["x"]`).
				replacing("https://hooks.invalid/x?token=hunter2", "https://10.0.0.1").wants("INVALID_ARGUMENT", "label description url events[0] headers.Host headers.X-A"),
			newHook(""),
			change(`{"label": "", "description": "a\u0000b", "url": "x", "events": ["*", "", "x"], "format": null, "headers": {"": "x", "host": "y"}}`).
				wants("INVALID_ARGUMENT", "label description url events[1] events[2] format headers headers.Host"),
			change(`{"label": "a\u0085b"}`).wants("INVALID_ARGUMENT", "label"), change(`{"label": " "}`).wants("INVALID_ARGUMENT", "label"),
			change(`{"etag": null}`).wants("INVALID_ARGUMENT", "etag"), change(`{"id": null}`).wants("INVALID_ARGUMENT", "id"), change(`{"etag": ""}`).wants("INVALID_ARGUMENT", "etag"),
			get(`{"etag": "1"}`),
		},
		"what cannot be read, with the rest": {
			newHook(""),
			{rpc: "UpdateWebhook", id: "$w.id", only: "rest", want: "INVALID_ARGUMENT", field: "label url events[1] events[2] secret headers.Host",
				body: `{"label": 1, "url": "x", "events": ["*", 2, "x"], "secret": "y", "headers": {"host": "z"}}`},
			{rpc: "CreateWebhook", only: "rest", want: "INVALID_ARGUMENT", field: "label url events format", body: `{"url": "x", "events": "*", "format": "xml"}`},
			get(`{"etag": "1"}`),
		},
		"sent back as it was read": {
			newHook(`, "headers": {"X-A": "1"}`),
			{rpc: "UpdateWebhook", verb: http.MethodPut, id: "$w.id", quiet: true, data: `{"etag": "1"}`, body: `{"id": "$w.id", "organization_id": "org_default", "label": "Billing", "headers": {"X-A": "********"},
				"events": ["webhook.failing"], "secret": "x", "created_at": "now", "updated_at": null, "disabled_reason": null, "etag": "1"}`},
			{rpc: "UpdateWebhook", verb: http.MethodPut, id: "$w.id", body: `{"label": "Billing", "colour": "red", "secret": 1}`, want: "INVALID_ARGUMENT", field: "colour"},
		},
		"read-only": {
			newHook(""),
			change(`{"secret": "x"}`).wants("INVALID_ARGUMENT", "secret"), change(`{"created_at": null}`).wants("INVALID_ARGUMENT", "created_at"),
			change(`{"disabled_reason": null, "organization_id": "x"}`).wants("INVALID_ARGUMENT", "disabled_reason organization_id"),
			change(`{"id": "webhook_1"}`).wants("INVALID_ARGUMENT", "id"),
			newHook(`, "collection": "subscriptions"`).wants("INVALID_ARGUMENT", "collection"),
			newHook(`, "id": "x", "secret": "y"`).wants("INVALID_ARGUMENT", "id secret"),
		},
		"rotate": {
			newHook("").saved("old"),
			{rpc: "RotateWebhookSecret", id: "$old.id", save: "new", data: `{"id": "$old.id", "etag": "2"}`},
			{rpc: "RotateWebhookSecret", id: "$old.id", body: `{"overlap_seconds": 0}`, data: `{"etag": "3"}`},
			{rpc: "RotateWebhookSecret", id: "$old.id", body: `{"overlap_seconds": 2592000}`},
			{rpc: "RotateWebhookSecret", id: "$old.id", body: `{"overlap_seconds": 2592001}`, want: "INVALID_ARGUMENT", field: "overlap_seconds"},
			{rpc: "RotateWebhookSecret", id: "$old.id", body: `{"overlap_seconds": -1}`, want: "INVALID_ARGUMENT", field: "overlap_seconds"},
		},
		"five secrets": {
			newHook("").saved("old"),
			{rpc: "RotateWebhookSecret", id: "$old.id"}, {rpc: "RotateWebhookSecret", id: "$old.id", body: `{"overlap_seconds": 3600}`},
			{rpc: "RotateWebhookSecret", id: "$old.id"}, {rpc: "RotateWebhookSecret", id: "$old.id", data: `{"etag": "5"}`},
			{rpc: "RotateWebhookSecret", id: "$old.id", want: "TOO_MANY_SECRETS"},
			{rpc: "RotateWebhookSecret", id: "$old.id", body: `{"end_oldest": false}`, want: "TOO_MANY_SECRETS"},
			{rpc: "GetWebhook", id: "$old.id", data: `{"etag": "5"}`},
			{rpc: "RotateWebhookSecret", id: "$old.id", body: `{"end_oldest": true}`, data: `{"etag": "6"}`},
			{rpc: "RotateWebhookSecret", id: "$old.id", body: `{"overlap_seconds": 0}`, data: `{"etag": "7"}`},
			{rpc: "RotateWebhookSecret", id: "$old.id", data: `{"etag": "8"}`},
		},
		"health": {
			newHook("").gives(`{"health": {"state": "unknown", "failing_since": null, "last_success_at": null, "last_error": null, "pending": 0}}`),
			get(`{"health": {"state": "unknown", "pending": 0}}`),
			change(`{"health": null}`).wants("INVALID_ARGUMENT", "health"),
		},
		"deleted": {
			newHook(""),
			{rpc: "DeleteWebhook", id: "$w.id", data: `{"id": "$w.id"}`},
			{rpc: "DeleteWebhook", id: "$w.id", want: noHook}, {rpc: "GetWebhook", id: "$w.id", want: noHook}, change(`{"label": "x"}`).wants(noHook, ""),
			{rpc: "RotateWebhookSecret", id: "$w.id", want: noHook}, {rpc: "TestWebhook", id: "$w.id", want: noHook},
			{rpc: "ReplayEvents", id: "$w.id", body: `{"since": "$in(-1h)"}`, want: noHook},
		},
		"of another organization": {
			newHook("").in("org_a"),
			step{rpc: "GetWebhook", id: "$w.id"}.in("org_a"),
			{rpc: "GetWebhook", id: "$w.id", want: noHook}, {rpc: "DeleteWebhook", id: "$w.id", want: noHook}, change(`{"label": "x"}`).wants(noHook, ""),
			{rpc: "TestWebhook", id: "$w.id", want: noHook}, {rpc: "RotateWebhookSecret", id: "$w.id", want: noHook},
			{rpc: "ReplayEvents", id: "$w.id", body: `{"since": "$in(-1h)"}`, want: noHook},
			{rpc: "GetWebhook", id: "webhook_1", want: noHook}, {rpc: "GetWebhook", id: "api_key_0197c0ec-a197-719f-84a9-99270a79b42a", want: noHook},
		},
		"disabled": {
			newHook(`, "enabled": false`),
			{rpc: "TestWebhook", id: "$w.id", want: "WEBHOOK_DISABLED"},
			{rpc: "ReplayEvents", id: "$w.id", body: `{"since": "$in(-1h)"}`, want: "WEBHOOK_DISABLED"},
		},
		"replay": {
			newHook(""),
			{rpc: "ReplayEvents", id: "$w.id", want: "INVALID_ARGUMENT", field: "since"},
			{rpc: "ReplayEvents", id: "$w.id", body: `{"since": "soon"}`, want: "INVALID_ARGUMENT", field: "since"},
			{rpc: "ReplayEvents", id: "$w.id", body: `{"since": "$in(0s)", "until": "$in(-1h)"}`, want: "INVALID_ARGUMENT", field: "until"},
			{rpc: "ReplayEvents", id: "$w.id", body: `{"since": "$in(-1h)", "until": "$in(1h)"}`, data: `{"matched": 0, "queued": 0, "until": "$in(1h)"}`},
			{rpc: "ReplayEvents", id: "$w.id", body: `{"since": "$in(1h)"}`, want: "INVALID_ARGUMENT", field: "until"},
		},
		"lists": {
			newHook("").in("org_list").saved("a"), newHook("").in("org_list").saved("b"), newHook("").in("org_list").saved("c"),
			step{rpc: "ListWebhooks", body: "page_size=2", data: `[{"id": "$a.id"}, {"id": "$b.id"}]`, save: "page"}.in("org_list"),
			step{rpc: "ListWebhooks", body: "page_size=2&page_token=$page.next", data: `[{"id": "$c.id"}]`}.in("org_list"),
			step{rpc: "ListWebhooks", body: "page_size=1001", want: "INVALID_ARGUMENT", field: "page_size"}.in("org_list"),
			step{rpc: "ListWebhooks", body: "page_token=x", want: "INVALID_ARGUMENT", field: "page_token"}.in("org_list"),
			step{rpc: "ListWebhooks"}.in("*"),
			{rpc: "DeleteWebhook", id: "$a.id", head: "X-Organization-Id: org_list"}, {rpc: "DeleteWebhook", id: "$b.id", head: "X-Organization-Id: org_list"},
			{rpc: "DeleteWebhook", id: "$c.id", head: "X-Organization-Id: org_list"},
		},
	})
}

func (s step) saved(name string) step { s.save = name; return s }

func (s step) silent() step { s.quiet = true; return s }

func (s step) in(organization string) step { s.head = "X-Organization-Id: " + organization; return s }

func (s step) replacing(old, with string) step {
	s.body = strings.Replace(s.body, old, with, 1)
	return s
}

// TestWebhookFaults plays what is refused when it is set, so that nothing is left
// to fail when it is sent.
func TestWebhookFaults(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	wrong := func(old, with, field string) step {
		return newHook("").replacing(old, with).wants("INVALID_ARGUMENT", field)
	}
	url := func(text string) step { return wrong("https://hooks.invalid/x?token=hunter2", text, "url") }
	header := func(name, value, field string) step {
		return newHook(`, "headers": {`+name+`: `+value+`}`).wants("INVALID_ARGUMENT", field)
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	var urls, headers scenario
	for _, text := range []string{
		"", "x", "/x", "//example.com", "ftp://example.com", "javascript:alert(1)", "https://", "https:///x", "https://user@example.com", "https://user:hunter2@example.com",
		"https://example.com/#x", "https://example.com:0", "https://example.com:65536", "https://example.com:25", "https://example.com:80", "https://example.com:1023", "http://127.0.0.1:22", "https://exa mple.com", "https://example.com/\\u000d\\u000aX: y", "https://[::1", "https://10.0.0.1", "https://10.0.0.1.",
		"https://192.0.0.1", "https://198.18.0.1", "https://100.64.0.1", "https://169.254.169.254", "https://[::ffff:10.0.0.1]", "https://[::ffff:a00:1]", "https://[64:ff9b::a00:1]", "https://[2002:a00:1::]",
		"https://[fe80::1%25eth0]", "https://[fc00::1]", "https://2130706433x.1", "https://2886729729", "https://0x0a000001", "https://012.0.0.1", "https://10.1", "https://0xa.0.0.1", "https://224.0.0.1", "https://0.0.0.0",
		"https://example.com/" + long(2048),
	} {
		urls = append(urls, url(text))
	}
	for _, name := range []string{
		"host", "Host", "webhook-id", "Webhook_Id", "x-webhook-event", "X-Webhook-Anything", "content-type", "Content-Length", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
		"proxy-authorization", "expect", "accept-encoding", "transfer_encoding",
	} {
		headers = append(headers, header(`"`+name+`"`, `"x"`, "headers."+http.CanonicalHeaderKey(name)))
	}
	w.play(t, map[string]scenario{
		"urls": urls,
		"headers": append(headers,
			header(`"X-A"`, `"a\r\nX-B: c"`, "headers.X-A"), header(`"X-A"`, `"a\nb"`, "headers.X-A"), header(`"X-A"`, `"a\u0000b"`, "headers.X-A"), header(`"X-A"`, `" a"`, "headers.X-A"),
			header(`"X(A"`, `"a"`, "headers.X(A"), header(`"X:A"`, `"a"`, "headers.X:A"), header(`""`, `"a"`, "headers"), header(`"X-A": "1", "x-a"`, `"2"`, "headers.X-A"),
			header(`"X-A"`, `"`+long(4097)+`"`, "headers.X-A"), header(`"X-A"`, `"`+long(4094)+`"`, "headers.X-A"), header(`"`+long(129)+`"`, `"a"`, "headers"), header(`"X-A"`, `1`, "headers.X-A"),
			newHook(`, "headers": {`+numbered(21, `"X-%d": "x"`)+`}`).wants("INVALID_ARGUMENT", "headers"), newHook(`, "headers": {`+numbered(20, `"X-%d": "x"`)+`}`), newHook(`, "headers": []`).wants("INVALID_ARGUMENT", "headers"),
		),
		"fields": {
			wrong("Billing", long(256), "label"), wrong(`"Billing"`, "1", "label"), newHook("").replacing("Billing", long(255)),
			newHook(`, "description": "`+long(2001)+`"`).wants("INVALID_ARGUMENT", "description"), newHook(`, "description": "` + long(2000) + `"`),
			wrong(`["webhook.failing"]`, `[]`, "events"), wrong(`["webhook.failing"]`, `"*"`, "events"), wrong(`["webhook.failing"]`, `["*", "x"]`, "events[1]"),
			wrong(`["webhook.failing"]`, `["webhook.test"]`, "events[0]"), wrong(`["webhook.failing"]`, `["webhook.*"]`, "events[0]"), wrong(`["webhook.failing"]`, `[`+numbered(51, `"x%d"`)+`]`, "events"),
			wrong(`["webhook.failing"]`, `["`+long(65)+`"]`, "events[0]"),
			newHook(`, "format": "xml"`).wants("INVALID_ARGUMENT", "format"), newHook(`, "format": 1`).wants("INVALID_ARGUMENT", "format"), newHook(`, "enabled": "yes"`).wants("INVALID_ARGUMENT", "enabled"),
			newHook(`, "colour": "red"`).wants("INVALID_ARGUMENT", "colour"),
		},
	})
}

// numbered returns n times a form of a number, with commas.
func numbered(n int, form string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(form, i)
	}
	return strings.Join(all, ", ")
}

// TestSubscriptions is the other REST path: the same webhooks, another default
// format.
func TestSubscriptions(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	const body = `{"label": "x", "url": "https://hooks.invalid", "events": ["*"]`
	var made struct{ ID, Format string }
	for format, want := range map[string]string{``: "resource", `, "format": "standard"`: "standard"} {
		if s.Call(t, http.MethodPost, subsPath, body+format+`}`).Into(t, &made); made.Format != want {
			t.Errorf("format %s", made.Format)
		}
	}
	for _, path := range []string{subsPath, hooksPath} {
		if a := s.Call(t, http.MethodPost, path, body+`, "collection": "webhooks"}`); a.Status != http.StatusBadRequest || a.Envelope.Validator["collection"] == "" {
			t.Errorf("%s: %s", path, a)
		}
		if a := s.Call(t, http.MethodGet, path+"/"+made.ID, ""); a.Status != http.StatusOK || a.Header.Get("ETag") == "" {
			t.Errorf("%s: %s", path, a)
		}
		var list []struct{ ID string }
		if s.Call(t, http.MethodGet, path, "").Into(t, &list); len(list) != 2 {
			t.Errorf("%s: %v", path, list)
		}
		if a := s.Call(t, http.MethodPut, path+"/"+made.ID, `{"label": "`+path+`"}`); a.Status != http.StatusOK {
			t.Errorf("%s: %s", path, a)
		}
		if a := s.Call(t, http.MethodPatch, path+"/"+made.ID, `{"description": "`+path+`"}`); a.Status != http.StatusOK {
			t.Errorf("%s: %s", path, a)
		}
	}
	if a := s.Call(t, http.MethodPost, "/api/v1/webhooks/other", body+`}`); a.Status != http.StatusNotFound {
		t.Errorf("another collection: %s", a)
	}
	if a := s.Call(t, http.MethodDelete, subsPath+"/"+made.ID, ""); a.Status != http.StatusOK {
		t.Error(a)
	}
}
