package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestUpdates plays merge patches, PUT and etags.
func TestUpdates(t *testing.T) {
	t.Parallel()
	full := step{rpc: "CreateApiKey", save: "k", body: `{"label": "before", "description": "d", "scopes": ["products.read"], "ip_allow_list": ["192.0.2.1"],
		"expires_at": "$in(48h)", "owner_id": "o", "metadata": {"a": "1", "b": "2"}, "rate_limit": {"requests": 5, "window_seconds": 6}}`,
		data: `{"updated_at": null, "enabled": true, "state": "active", "mode": "live", "revoked_at": null, "revoke_reason": null,
			"previous_secret_expires_at": null, "metrics": {"total_requests": 0, "last_used_at": null}}`}
	patch := func(body, data string) step {
		return step{rpc: "UpdateApiKey", id: "$k.id", body: body, data: data, save: "k"}
	}
	still := func(body string) step {
		return step{rpc: "UpdateApiKey", id: "$k.id", body: body, quiet: true, data: `{"updated_at": null, "etag": "$k.etag"}`}
	}
	same := full.body
	newHarness(t).play(t, map[string]scenario{
		"one field": {full, patch(`{"label": "after"}`, `{"label": "after", "description": "d", "updated_at": "$in(0s)", "metadata": {"a": "1", "b": "2"}}`),
			{rpc: "GetApiKey", id: "$k.id", data: `{"label": "after", "etag": "$k.etag"}`}},
		"clear": {full,
			patch(`{"description": null, "scopes": null, "ip_allow_list": null, "expires_at": null, "owner_id": null, "metadata": null, "rate_limit": null}`,
				`{"label": "before", "description": "", "scopes": [], "ip_allow_list": [], "expires_at": null, "owner_id": "", "metadata": {}, "rate_limit": null}`),
			patch(`{"enabled": false}`, `{"enabled": false, "state": "disabled"}`)},
		"merge": {full,
			patch(`{"metadata": {"a": null, "c": "3", "x.y": "4", "`+"`"+`": "5"}}`, `{"metadata": {"b": "2", "c": "3", "x.y": "4", "`+"`"+`": "5"}}`),
			patch(`{"rate_limit": {"requests": 7}}`, `{"rate_limit": {"requests": 7, "window_seconds": 6}}`),
			patch(`{"scopes": ["*", "products.read", "*"]}`, `{"scopes": ["*", "products.read"]}`)},
		"put": {full,
			{rpc: "UpdateApiKey", verb: http.MethodPut, id: "$k.id", body: `{"label": "after"}`, data: `{"label": "after", "description": "d", "scopes": ["products.read"]}`},
			{rpc: "UpdateApiKey", verb: http.MethodPut, id: "$k.id", body: `{"label": null}`, want: "INVALID_ARGUMENT", field: "label"}},
		"nothing": {full, still(``), still(`{}`), still(same), still(`{"id": "$k.id"}`), still(`{"metadata": {"a": "1"}}`), still(`{"metadata": {}}`), still(`{"metadata": {"z": null}}`), still(`{"rate_limit": {}}`),
			still(`{"scopes": ["products.read", "products.read"]}`), still(`{"ip_allow_list": ["::ffff:192.0.2.1"]}`), still(`{"enabled": true, "etag": "$k.etag"}`)},
		"etag": {full,
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "a"}`, match: "$k.etag", save: "new"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "b"}`, match: "$k.etag", want: "ETAG_MISMATCH"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "b", "etag": "$k.etag"}`, want: "ETAG_MISMATCH"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "a", "etag": "$k.etag"}`, want: "ETAG_MISMATCH"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "b", "etag": "$new.etag", "id": "$k.id"}`, match: "$new.etag"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "c"}`, head: "If-Match: *"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "c"}`, head: `If-Match: W/"3"`, want: "ETAG_MISMATCH", only: "rest"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "c"}`, head: `If-Match: 3`, want: "INVALID_ARGUMENT", field: "If-Match", only: "rest"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "c", "etag": "1"}`, match: "2", want: "INVALID_ARGUMENT", field: "etag", only: "rest"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"etag": "` + strings.Repeat("1", 129) + `"}`, want: "INVALID_ARGUMENT", field: "etag"}},
		"times": {full, // those of the answers come back unchanged
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"expires_at": "2030-01-01T00:00:00.5Z"}`, data: `{"expires_at": "2030-01-01 00:00:00"}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"expires_at": "2030-01-01 00:00:00"}`, quiet: true}},
	})
}

// TestLives plays states, rotation, revocation and deletion.
func TestLives(t *testing.T) {
	t.Parallel()
	const revoked, expired, missing, rotating = "API_KEY_REVOKED", "API_KEY_EXPIRED", "API_KEY_NOT_FOUND", "ROTATION_IN_PROGRESS"
	made := func(body string) step {
		return step{rpc: "CreateApiKey", body: `{"label": "k"` + body + `}`, save: "k"}
	}
	verify := func(secret, data string) step {
		return step{rpc: "VerifyApiKey", body: `{"key": "` + secret + `"}`, data: data}
	}
	const valid, gone, old = `{"valid": true, "code": "valid", "previous_secret": false}`, `{"valid": false, "code": "not_found", "api_key": null, "previous_secret": false}`, `{"valid": true, "previous_secret": true}`
	newHarness(t).play(t, map[string]scenario{
		"disabled": {made(`, "enabled": false`),
			{rpc: "RotateApiKey", body: endNow, id: "$k.id", save: "new", data: `{"state": "disabled", "enabled": false}`},
			verify("$new.secret", `{"code": "disabled", "api_key": {"state": "disabled"}}`), verify("$k.secret", gone),
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"enabled": true}`, data: `{"state": "active"}`}, verify("$new.secret", valid)},
		"expired": {made(`, "expires_at": "$in(1h)"`), verify("$k.secret", valid),
			{rpc: "GetApiKey", id: "$k.id", after: time.Hour, data: `{"state": "expired", "enabled": true}`},
			verify("$k.secret", `{"code": "expired"}`), {rpc: "RotateApiKey", body: endNow, id: "$k.id", want: expired},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "other", "expires_at": "$in(0s)"}`, data: `{"state": "expired"}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"expires_at": "$in(-1s)"}`, want: "INVALID_ARGUMENT", field: "expires_at"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"expires_at": "$in(1h)"}`, data: `{"state": "active"}`}, verify("$k.secret", valid), {rpc: "RotateApiKey", body: endNow, id: "$k.id"}},
		"rotation": {made(""),
			{rpc: "RotateApiKey", body: endNow, id: "$k.id", save: "second", data: `{"id": "$k.id", "previous_secret_expires_at": null, "updated_at": "$in(0s)"}`},
			verify("$k.secret", gone), verify("$second.secret", valid),
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60}`, save: "third", data: `{"previous_secret_expires_at": "$in(60s)"}`},
			{rpc: "GetApiKey", id: "$k.id", data: `{"previous_secret_expires_at": "$in(60s)", "previous_secret_last_used_at": null, "previous_secret_requests": 0}`},
			verify("$second.secret", old), verify("$third.secret", valid), verify("$k.secret", gone),
			verify("$second.secret", `{"api_key": {"previous_secret_requests": 2, "previous_secret_last_used_at": "$in(0s)", "metrics": {"total_requests": 4}}}`),
			verify("$third.secret", `{"api_key": {"previous_secret_requests": 2, "previous_secret_last_used_at": "$in(0s)", "metrics": {"total_requests": 5}}}`),
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60}`, want: rotating}, // two live at most
			{rpc: "RotateApiKey", id: "$k.id", body: endNow, want: rotating},
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60, "end_previous": false}`, want: rotating},
			verify("$second.secret", old), verify("$third.secret", valid),
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60, "end_previous": true}`, save: "fourth",
				data: `{"previous_secret_requests": 0, "previous_secret_last_used_at": null}`},
			verify("$second.secret", gone), verify("$third.secret", old), verify("$fourth.secret", valid),
			verify("$third.secret", old).later(59 * time.Second),
			verify("$third.secret", gone).later(time.Second),
			{rpc: "GetApiKey", id: "$k.id", data: `{"previous_secret_expires_at": null, "metrics": {"api_key_id": "$k.id"}}`}, verify("$fourth.secret", valid),
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60, "end_previous": true}`, save: "fifth"}, // there is none
			verify("$fourth.secret", old), {rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 0, "end_previous": true}`},
			verify("$fourth.secret", gone), verify("$fifth.secret", gone)},
		"overlap within the expiry": {made(`, "expires_at": "$in(30s)"`),
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60}`, data: `{"previous_secret_expires_at": "$in(30s)"}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"expires_at": "$in(1h)"}`, data: `{"previous_secret_expires_at": "$in(30s)"}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"expires_at": "$in(20s)"}`, data: `{"previous_secret_expires_at": "$in(20s)"}`}},
		"revoked": {made(""),
			{rpc: "RevokeApiKey", id: "$k.id", body: `{"reason": "superseded"}`, data: `{"state": "revoked", "revoked_at": "$in(0s)", "revoke_reason": "superseded", "enabled": true}`},
			verify("$k.secret", `{"code": "revoked", "api_key": {"id": "$k.id"}}`),
			{rpc: "RevokeApiKey", id: "$k.id", body: `{"reason": "key_compromise"}`, quiet: true, after: time.Minute, data: `{"revoke_reason": "superseded", "revoked_at": "$in(-1m)"}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "y"}`, want: revoked}, {rpc: "UpdateApiKey", id: "$k.id", body: `{}`, want: revoked},
			{rpc: "RotateApiKey", body: endNow, id: "$k.id", want: revoked}, {rpc: "GetApiKey", id: "$k.id", data: `{"label": "k", "state": "revoked"}`},
			{rpc: "DeleteApiKey", id: "$k.id"}, {rpc: "RevokeApiKey", id: "$k.id", want: missing}},
		"reasons": {
			made(""), {rpc: "RevokeApiKey", id: "$k.id", data: `{"revoke_reason": "unspecified"}`},
			made(""), {rpc: "RevokeApiKey", id: "$k.id", body: `{"reason": "unspecified"}`, data: `{"revoke_reason": "unspecified"}`},
			made(""), {rpc: "RevokeApiKey", id: "$k.id", body: `{"reason": "key_compromise"}`, data: `{"revoke_reason": "key_compromise"}`},
			made(""), {rpc: "RevokeApiKey", id: "$k.id", body: `{"reason": "no_longer_needed"}`, data: `{"revoke_reason": "no_longer_needed"}`},
			made(""), {rpc: "RevokeApiKey", id: "$k.id", body: `{"reason": "privilege_withdrawn"}`, data: `{"revoke_reason": "privilege_withdrawn"}`}},
		"revoked first, disabled next": {made(`, "enabled": false, "expires_at": "$in(1s)"`),
			{rpc: "GetApiKey", id: "$k.id", after: time.Second, data: `{"state": "disabled"}`},
			{rpc: "RevokeApiKey", id: "$k.id", data: `{"state": "revoked"}`}},
		"deleted": {made(""),
			{rpc: "DeleteApiKey", id: "$k.id", data: `{"id": "$k.id"}`}, verify("$k.secret", gone),
			{rpc: "GetApiKey", id: "$k.id", want: missing}, {rpc: "DeleteApiKey", id: "$k.id", want: missing}, {rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "x"}`, want: missing}},
		"modes": {made(`, "mode": "test"`), verify("$k.secret", `{"valid": true, "api_key": {"mode": "test"}}`), made(""), {rpc: "GetApiKey", id: "$k.id", data: `{"mode": "live"}`}},
	})
}

// TestUnknown plays ids of another organization, of the wrong form and of nothing
// with every RPC: the answers are the same to the word.
func TestUnknown(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.take(t, "create", "rest", step{rpc: "CreateApiKey", body: `{"label": "x"}`, save: "k", head: "X-Organization-Id: org_others"})
	w.take(t, "create", "rest", caller("c", ""))
	words := make(map[string]bool)
	ids := []string{"$k.id", "api_key_0197c0ec-a197-719f-84a9-99270a79b42a", "api_key_0197C0EC-A197-719F-84A9-99270A79B42A", "0197c0ec-a197-719f-84a9-99270a79b42a",
		"api_key_0197c0eca197719f84a999270a79b42a", "webhook_0197c0ec-a197-719f-84a9-99270a79b42a", "x", "api_key_", "*", "ü", strings.Repeat("x", 3000), "a b", "%", "\x00", "$k.id ", "a:b", "$k.id:x"}
	for _, id := range ids {
		for _, s := range []step{
			{rpc: "GetApiKey"}, {rpc: "UpdateApiKey", body: `{"label": "y"}`}, {rpc: "UpdateApiKey", body: `{"scopes": ["x"], "expires_at": "$in(-1h)"}`, match: "7"},
			{rpc: "RotateApiKey", body: endNow}, {rpc: "RevokeApiKey"}, {rpc: "DeleteApiKey"},
		} {
			for _, as := range []string{"", "$c.secret"} {
				s.id, s.as, s.want = id, as, "API_KEY_NOT_FOUND"
				w.play(t, map[string]scenario{fmt.Sprintf("%.20q %s", id, s.rpc): {s}})
				s.id, s.as, s.body = w.fill(s.id), w.fill(s.as), w.fill(s.body)
				words[w.rest(t, s).text], words[w.grpc(t, s).text] = true, true
			}
		}
	}
	if len(words) != 1 {
		t.Errorf("words: %v", words)
	}
}

// TestLists plays pages and filters.
func TestLists(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	create := func(organization, body string) string {
		w.take(t, "create", "rest", step{rpc: "CreateApiKey", body: `{"label": ` + body + `}`, head: "X-Organization-Id: " + organization, save: "new"})
		return w.saved["new.id"]
	}
	plain := create("org_l", `"Plain"`)
	owned := create("org_l", `"owned 100%", "owner_id": "o_1"`)
	expiring := create("org_l", `"expiring", "expires_at": "$in(1h)"`)
	disabled := create("org_l", `"disabled_Ü", "enabled": false`)
	revoked := create("org_l", `"revoked"`)
	w.take(t, "revoke", "rest", step{rpc: "RevokeApiKey", id: revoked, head: "X-Organization-Id: org_l"})
	expired := create("org_l", `"expired", "expires_at": "$in(1s)"`)
	others := create("org_m", `"Plain", "owner_id": "o_1"`)
	all := []string{plain, owned, expiring, disabled, revoked, expired}
	w.clock.Advance(time.Second)

	list := func(t *testing.T, protocol, head, query string) ([]string, string) {
		t.Helper()
		s := step{rpc: "ListApiKeys", body: query, head: head}
		a := w.grpc
		if protocol == "rest" {
			a = w.rest
		}
		got := a(t, s)
		if got.status != http.StatusOK {
			t.Fatalf("%s: %d %s", query, got.status, got.text)
		}
		ids := make([]string, 0, 8)
		for _, k := range got.data.([]any) {
			ids = append(ids, k.(map[string]any)["id"].(string))
			if secret := k.(map[string]any)["secret"].(string); len(secret) != 28 || secret[20:23] != "..." {
				t.Errorf("secret %s", secret)
			}
		}
		return ids, got.next
	}
	soon := strings.ReplaceAll(w.fill("$in(2h)"), " ", "+")
	for _, protocol := range []string{"rest", "grpc"} {
		for query, want := range map[string][]string{
			"": all, "state=active": {plain, owned, expiring}, "state=disabled": {disabled}, "state=revoked": {revoked}, "state=expired": {expired},
			"owner_id=o_1": {owned}, "owner_id=o_": {}, "q=PLAIN": {plain}, "q=100%25": {owned}, "q=%25": {owned}, "q=_": {disabled}, "q=%C3%9C": {disabled}, "q=x": {expiring, expired},
			"expires_before=" + soon: {expiring, expired}, "expires_before=" + strings.ReplaceAll(w.fill("$in(3599s)"), " ", "+"): {expired},
			"unused_since=" + soon: all, "state=active&q=e&owner_id=o_1&unused_since=" + soon: {owned}, "q=": all, "q='": {}, "q=%5C": {},
		} {
			if ids, next := list(t, protocol, "X-Organization-Id: org_l", query); !slices.Equal(ids, want) || next != "" {
				t.Errorf("%s %s: got %q and next %q, want %q", protocol, query, ids, next, want)
			}
			var pages []string // the same, in pages of one
			for next, first := "", true; first || next != ""; first = false {
				var ids []string
				ids, next = list(t, protocol, "X-Organization-Id: org_l", query+"&page_size=1&page_token="+next)
				if pages = append(pages, ids...); len(ids) > 1 || len(pages) > len(all) {
					t.Fatalf("%s %s: page %q", protocol, query, ids)
				}
			}
			if !slices.Equal(pages, want) {
				t.Errorf("%s %s in pages: got %q, want %q", protocol, query, pages, want)
			}
		}
		if ids, _ := list(t, protocol, "X-Organization-Id: *", "owner_id=o_1"); !slices.Equal(ids, []string{owned, others}) {
			t.Errorf("%s, all organizations: %q", protocol, ids)
		}
	}
	link := w.Call(t, http.MethodGet, keysPath+"?state=active&page_size=2", "", "X-Organization-Id: org_l").Header.Get("Link")
	target, ok := strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	if !ok || !strings.HasPrefix(target, keysPath+"?") {
		t.Fatalf("Link: %s", link)
	}
	var last []struct{ ID string }
	if w.Call(t, http.MethodGet, target, "", "X-Organization-Id: org_l").Into(t, &last); len(last) != 1 || last[0].ID != expiring {
		t.Errorf("%s led to %v", link, last)
	}
}

// TestCreatedBy plays who made a key or a webhook: it stays who it was through
// every change, stands in the resource, its events and its lists, and filters them.
func TestCreatedBy(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	maker := step{rpc: "CreateApiKey", save: "maker", data: `{"created_by": {"kind": "operator", "id": "root"}}`,
		body: `{"label": "maker", "scopes": ["*"]}`}
	const byMaker = `"created_by": {"kind": "api_key", "id": "$maker.id"}`
	w.play(t, map[string]scenario{
		"a key": {
			maker,
			{rpc: "CreateApiKey", as: "$maker.secret", body: `{"label": "made"}`, save: "k", data: `{` + byMaker + `}`},
			{rpc: "GetApiKey", id: "$k.id", data: `{` + byMaker + `}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "x"}`, data: `{` + byMaker + `}`},
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60}`, data: `{` + byMaker + `}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"created_by": {"kind": "operator", "id": "x"}}`, want: "INVALID_ARGUMENT", field: "created_by"},
			{rpc: "ListApiKeys", body: "created_by=$maker.id", data: `[{"id": "$k.id", ` + byMaker + `}]`},
			{rpc: "ListApiKeys", body: "created_by=$maker.id&owner_id=x", data: `[]`},
			{rpc: "ListApiKeys", body: "created_by=$k.id", data: `[]`},
			step{rpc: "ListApiKeys", body: "created_by=$maker.id", data: `[{"id": "$k.id"}]`}.in("*"),
			step{rpc: "ListApiKeys", body: "created_by=$maker.id", data: `[]`}.in("org_other"),
			{rpc: "ListApiKeys", body: "created_by=" + strings.Repeat("a", 512), want: "INVALID_ARGUMENT", field: "created_by"},
			{rpc: "RevokeApiKey", id: "$k.id", data: `{` + byMaker + `}`},
		},
		"a webhook": {
			maker,
			{rpc: "CreateWebhook", as: "$maker.secret", body: `{"label": "w", "url": "https://example.com/", "events": ["*"]}`, save: "w", data: `{` + byMaker + `}`},
			{rpc: "GetWebhook", id: "$w.id", data: `{` + byMaker + `}`},
			{rpc: "UpdateWebhook", id: "$w.id", body: `{"label": "x"}`, data: `{` + byMaker + `}`},
			{rpc: "UpdateWebhook", id: "$w.id", body: `{"created_by": null}`, want: "INVALID_ARGUMENT", field: "created_by"},
			{rpc: "ListWebhooks", body: "created_by=$maker.id", data: `[{"id": "$w.id", ` + byMaker + `}]`},
			{rpc: "ListWebhooks", body: "created_by=$w.id", data: `[]`},
			step{rpc: "ListWebhooks", body: "created_by=$maker.id", data: `[]`}.in("org_other"),
			{rpc: "ListWebhooks", body: "created_by=%00", want: "INVALID_ARGUMENT", field: "created_by"},
			{rpc: "DeleteWebhook", id: "$w.id"},
		},
	})
}
