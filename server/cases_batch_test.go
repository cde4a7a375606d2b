package server_test

import (
	"fmt"
	"strings"
	"testing"
)

// inOrg returns the header of an organization.
func inOrg(name string) string { return "X-Organization-Id: " + name }

// TestChangesOfManyKeys plays the calls for many keys over both protocols.
func TestChangesOfManyKeys(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	const (
		revoke, update, rotate, remove = "BatchRevokeApiKeys", "BatchUpdateApiKeys", "BatchRotateApiKeys", "BatchDeleteApiKeys"
		done, unchanged                = `"outcome": "done", "error": null`, `"outcome": "unchanged", "error": null`
	)
	refused := func(reason string) string { return `"outcome": "refused", "error": {"reason": "` + reason + `"}` }
	for _, protocol := range []string{"rest", "grpc"} {
		organization := inOrg("org_" + protocol)
		take := func(name string, s step) {
			t.Helper()
			if !strings.Contains(s.head, "X-Organization-Id") {
				s.head = strings.TrimPrefix(s.head+"\n"+organization, "\n")
			}
			w.take(t, protocol+": "+name, protocol, s)
		}
		for _, name := range []string{"a", "b", "c", "d"} {
			take("create", step{rpc: "CreateApiKey", body: `{"label": "` + name + `", "owner_id": "o_` + protocol + `", "scopes": ["invoices.read"], "metadata": {"env": "prod"}}`, save: name})
		}
		filter := `"filter": {"owner_id": "o_` + protocol + `"}`
		four := func(outcome string) string {
			return fmt.Sprintf(`[{"id": "$a.id", %[1]s}, {"id": "$b.id", %[1]s}, {"id": "$c.id", %[1]s}, {"id": "$d.id", %[1]s}]`, outcome)
		}
		times := func(n int, event string) string { return strings.Repeat(event+" ", n) }

		take("dry run", step{rpc: update, body: `{` + filter + `, "validate_only": true, "update": {"enabled": false}}`, data: `{"done": 4, "unchanged": 0, "refused": 0, "next_page_token": "", "results": ` + four(done) + `}`})
		take("disable", step{rpc: update, body: `{` + filter + `, "update": {"enabled": false}}`, makes: times(4, "api_key.updated"), data: `{"done": 4, "results": ` + four(done) + `}`})
		take("disable again", step{rpc: update, body: `{` + filter + `, "update": {"enabled": false}}`, data: `{"done": 0, "unchanged": 4, "results": ` + four(unchanged) + `}`})
		take("enable two", step{rpc: update, body: `{"ids": ["$b.id", "$a.id", "$b.id", "api_key_none"], "update": {"enabled": true}}`, makes: times(2, "api_key.updated"),
			data: `{"done": 2, "refused": 1, "results": [{"id": "$a.id", "label": "a", ` + done + `}, {"id": "$b.id", "label": "b", ` + done + `}, {"id": "api_key_none", "label": "", ` + refused("API_KEY_NOT_FOUND") + `}]}`})
		take("update fields", step{rpc: update, body: `{"filter": {"state": "active"}, "update": {"metadata": {"env": null, "team": "x"}, "rate_limit": {"requests": 5, "window_seconds": 60}}}`, makes: times(2, "api_key.updated"), data: `{"done": 2}`})
		take("it is so", step{rpc: "GetApiKey", id: "$a.id", data: `{"metadata": {"team": "x"}, "rate_limit": {"requests": 5, "window_seconds": 60}, "enabled": true}`})
		take("one of the parts", step{rpc: update, body: `{` + filter + `, "update": {"rate_limit": {"requests": 7}}}`, makes: times(2, "api_key.updated"),
			data: `{"done": 2, "refused": 2, "results": [{` + done + `}, {` + done + `}, {` + refused("INVALID_ARGUMENT") + `}, {` + refused("INVALID_ARGUMENT") + `}]}`})
		take("quotas", step{rpc: update, body: `{"filter": {"metadata": {"team": "x"}}, "update": {"quota": {"limit": 9}}}`, makes: times(2, "api_key.updated"), data: `{"done": 2}`})

		take("revoke a page", step{rpc: revoke, body: `{` + filter + `, "reason": "superseded", "page_size": 3}`, makes: times(3, "api_key.revoked"), data: `{"done": 3}`, save: "page"})
		take("the next", step{rpc: revoke, body: `{` + filter + `, "reason": "superseded", "page_size": 3, "page_token": "$page.next"}`, makes: times(1, "api_key.revoked"), data: `{"done": 1, "next_page_token": ""}`})
		take("its reason", step{rpc: "GetApiKey", id: "$d.id", data: `{"state": "revoked", "revoke_reason": "superseded"}`})
		take("from the beginning", step{rpc: revoke, body: `{` + filter + `}`, data: `{"done": 0, "unchanged": 4}`})
		take("none of that state", step{rpc: revoke, body: `{"filter": {"owner_id": "o_` + protocol + `", "state": "active"}}`, data: `{"done": 0, "results": []}`})
		take("update what is revoked", step{rpc: update, body: `{` + filter + `, "update": {"label": "x"}}`, data: `{"refused": 4, "results": ` + four(refused("API_KEY_REVOKED")) + `}`})
		take("delete", step{rpc: remove, body: `{"ids": ["$a.id", "$b.id"]}`, makes: times(2, "api_key.deleted"), data: `{"done": 2}`})
		take("delete again", step{rpc: remove, body: `{"ids": ["$a.id", "$b.id"]}`, data: `{"refused": 2}`})
		take("delete the rest", step{rpc: remove, body: `{"filter": {"state": "revoked"}}`, makes: times(2, "api_key.deleted"), data: `{"done": 2}`})

		// Rotations.
		for _, name := range []string{"a", "b"} {
			take("create", step{rpc: "CreateApiKey", body: `{"label": "` + name + `", "owner_id": "r"}`, save: name})
		}
		rotation := `{"filter": {"owner_id": "r"}, "overlap_seconds": 60}`
		take("dry run", step{rpc: rotate, body: strings.Replace(rotation, "{", `{"validate_only": true, `, 1), data: `{"done": 2, "results": [{"id": "$a.id", "secret": ""}, {"id": "$b.id", "secret": ""}]}`})
		take("no idempotency key", step{rpc: rotate, body: rotation, want: "INVALID_ARGUMENT", field: "idempotency-key"})
		key := "Idempotency-Key: rotation\n" + organization
		var first, again answer
		call := w.rest
		if protocol == "grpc" {
			call = w.grpc
		}
		s := step{rpc: rotate, body: rotation, head: key}
		first, again = call(t, s), call(t, s)
		if a, b := fmt.Sprint(first.data), fmt.Sprint(again.data); first.status != 200 || a != b || strings.Count(a, "sk_live_") != 2 {
			t.Errorf("%s: the first answer %d %s, and the second %s", protocol, first.status, a, b)
		}
		secret := first.data.(map[string]any)["results"].([]any)[0].(map[string]any)["secret"].(string)
		take("a new secret", step{rpc: "VerifyApiKey", body: `{"key": "` + secret + `"}`, data: `{"code": "valid", "previous_secret": false}`})
		take("the old one", step{rpc: "VerifyApiKey", body: `{"key": "$a.secret"}`, data: `{"code": "valid", "previous_secret": true}`})
		take("another request", step{rpc: rotate, body: `{"ids": ["$a.id"], "overlap_seconds": 60}`, head: key, want: "IDEMPOTENCY_KEY_REUSED"})
		take("too early", step{rpc: rotate, body: rotation, head: strings.Replace(key, "rotation", "second", 1), data: `{"refused": 2, "results": [{` + refused("ROTATION_IN_PROGRESS") + `}, {` + refused("ROTATION_IN_PROGRESS") + `}]}`})
		take("end the previous", step{rpc: rotate, body: `{"ids": ["$a.id"], "overlap_seconds": 0, "end_previous": true}`, head: strings.Replace(key, "rotation", "third", 1), makes: "api_key.rotated", data: `{"done": 1, "results": [{"previous_secret_expires_at": null}]}`})

		// Faulty requests.
		for name, c := range map[string]struct{ rpc, body, field string }{
			"nothing chosen":     {revoke, `{}`, "ids"},
			"both":               {revoke, `{"ids": ["x"], "filter": {"q": "x"}}`, "filter"},
			"an empty filter":    {revoke, `{"filter": {}}`, "filter"},
			"a faulty filter":    {revoke, `{"filter": {"q": "a\u0000", "secret": "x", "expires_before": "1969-01-01 00:00:00"}, "reason": "no"}`, "filter.q filter.secret filter.expires_before reason"},
			"no update":          {update, `{"ids": ["x"]}`, "update"},
			"faulty values":      {update, `{"ids": ["x"], "update": {"label": "", "scopes": ["nope"], "expires_at": "2001-01-01 00:00:00", "ip_allow_list": ["x"], "id": "x", "etag": "y"}}`, ""},
			"a mask":             {update, `{"ids": ["x"], "update": {"label": "y"}, "update_mask": {"paths": ["label"]}}`, "update_mask"},
			"no overlap":         {rotate, `{"ids": ["x"]}`, "overlap_seconds idempotency-key"},
			"too many":           {rotate, `{"ids": ["x"], "overlap_seconds": 1, "page_size": 101}`, "page_size idempotency-key"},
			"a token of another": {revoke, `{"filter": {"q": "x"}, "page_token": "$page.next"}`, "page_token"},
			"a token of a list":  {revoke, `{"filter": {"q": "x"}, "page_token": "x"}`, "page_token"},
		} {
			s := step{rpc: c.rpc, body: c.body, want: "INVALID_ARGUMENT", field: c.field}
			if name == "faulty values" { // those of JSON come alone over gRPC
				s.field = "update.label update.scopes[0] update.expires_at update.ip_allow_list[0] update.id update.etag"
				s.only = "rest"
			}
			if strings.Contains(c.field, "reason") || name == "a mask" {
				s.only = "rest"
			}
			take(name, s)
		}
		take("all organizations", step{rpc: revoke, body: `{"filter": {"q": "x"}}`, head: inOrg("*"), want: "INVALID_ARGUMENT", field: "x-organization-id"})
	}
}

// TestRightsOfManyKeys plays what a key may do to many, which is what it may do to each.
func TestRightsOfManyKeys(t *testing.T) {
	t.Parallel()
	newHarness(t).play(t, map[string]scenario{
		"a filter tells": {
			{rpc: "CreateApiKey", body: `{"label": "c", "scopes": ["api_keys.delete"]}`, save: "c"},
			{rpc: "CreateApiKey", body: `{"label": "k", "owner_id": "f"}`, save: "k"},
			{rpc: "BatchRevokeApiKeys", as: "$c.secret", body: `{"filter": {"owner_id": "f"}}`, want: "INSUFFICIENT_SCOPE"},
			{rpc: "BatchUpdateApiKeys", as: "$c.secret", body: `{"ids": ["$k.id"], "update": {"label": "x"}}`, want: "INSUFFICIENT_SCOPE"},
			{rpc: "BatchRevokeApiKeys", as: "$c.secret", body: `{"ids": ["$k.id"]}`, makes: "api_key.revoked"},
		},
		"nobody grants more than they hold": {
			{rpc: "CreateApiKey", body: `{"label": "c", "scopes": ["api_keys.update", "invoices.read"]}`, save: "c"},
			{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["invoices.read"]}`, save: "k"},
			{rpc: "CreateApiKey", body: `{"label": "l", "scopes": ["invoices.create"]}`, save: "l"},
			{rpc: "BatchUpdateApiKeys", as: "$c.secret", body: `{"ids": ["$k.id", "$l.id"], "update": {"enabled": false}}`, makes: "api_key.updated api_key.updated", data: `{"done": 2}`},
			{rpc: "BatchUpdateApiKeys", as: "$c.secret", body: `{"ids": ["$k.id", "$l.id"], "update": {"enabled": true}, "validate_only": true}`,
				data: `{"done": 1, "refused": 1, "results": [{"id": "$k.id", "outcome": "done"}, {"id": "$l.id", "outcome": "refused", "error": {"reason": "EXCEEDS_CALLER"}}]}`},
			{rpc: "BatchUpdateApiKeys", as: "$c.secret", body: `{"ids": ["$k.id", "$l.id"], "update": {"enabled": true}}`, makes: "api_key.updated",
				data: `{"done": 1, "refused": 1, "results": [{"id": "$k.id", "outcome": "done"}, {"id": "$l.id", "outcome": "refused", "error": {"reason": "EXCEEDS_CALLER"}}]}`},
			{rpc: "GetApiKey", id: "$l.id", data: `{"enabled": false}`},
			{rpc: "BatchUpdateApiKeys", as: "$c.secret", body: `{"ids": ["$c.id", "$k.id"], "update": {"rate_limit": {"requests": 1, "window_seconds": 1}}}`, makes: "api_key.updated",
				data: `{"results": [{"outcome": "refused", "error": {"reason": "OWN_LIMITS"}}, {"outcome": "done"}]}`},
		},
		"a caller that ends itself ends the call": {
			{rpc: "CreateApiKey", body: `{"label": "k", "owner_id": "own"}`, save: "k"},
			{rpc: "CreateApiKey", body: `{"label": "c", "owner_id": "own", "scopes": ["*"]}`, save: "c"},
			{rpc: "CreateApiKey", body: `{"label": "l", "owner_id": "own"}`, save: "l"},
			{rpc: "BatchRevokeApiKeys", as: "$c.secret", body: `{"ids": ["$k.id", "$c.id", "$l.id"]}`, makes: "api_key.revoked api_key.revoked", save: "page",
				data: `{"done": 2, "results": [{"id": "$k.id"}, {"id": "$c.id"}]}`},
			{rpc: "BatchRevokeApiKeys", as: "$c.secret", body: `{"ids": ["$k.id", "$c.id", "$l.id"], "page_token": "$page.next"}`, want: "UNAUTHENTICATED"},
			{rpc: "BatchRevokeApiKeys", body: `{"ids": ["$k.id", "$c.id", "$l.id"], "page_token": "$page.next"}`, makes: "api_key.revoked", data: `{"done": 1, "next_page_token": ""}`},
		},
		"a previous secret": {
			{rpc: "CreateApiKey", body: `{"label": "c", "scopes": ["*"]}`, save: "c"},
			{rpc: "CreateApiKey", body: `{"label": "k", "expires_at": "$in(30m)"}`, save: "k"},
			{rpc: "CreateApiKey", body: `{"label": "l"}`, save: "l"},
			{rpc: "RotateApiKey", id: "$c.id", body: `{"overlap_seconds": 3600}`, save: "new"},
			{rpc: "BatchUpdateApiKeys", as: "$c.secret", body: `{"ids": ["$c.id", "$k.id"], "update": {"label": "x"}}`, makes: "api_key.updated",
				data: `{"results": [{"outcome": "refused", "error": {"reason": "PREVIOUS_SECRET"}}, {"outcome": "done"}]}`},
			{rpc: "BatchRotateApiKeys", as: "$c.secret", head: "Idempotency-Key: previous", body: `{"ids": ["$c.id", "$k.id", "$l.id"], "overlap_seconds": 0}`, makes: "api_key.rotated",
				data: `{"results": [{"error": {"reason": "PREVIOUS_SECRET"}}, {"outcome": "done"}, {"error": {"reason": "EXCEEDS_CALLER"}}]}`},
		},
	})
}

// TestFiltersOfLists plays the filters and the orders of lists.
func TestFiltersOfLists(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newHarnessIn(t, dir)
	w.play(t, map[string]scenario{"filters": {
		{rpc: "CreateApiKey", body: `{"label": "a", "scopes": ["invoices.read", "api_keys.read"], "metadata": {"env": "prod", "a.b<": "c=d"}, "external_id": "e1"}`, save: "a", head: inOrg("org_f")},
		{after: 1, rpc: "CreateApiKey", body: `{"label": "b", "scopes": ["*"], "metadata": {"env": "prod", "team": ""}}`, save: "b", head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "metadata.env=prod", data: `[{"id": "$a.id"}, {"id": "$b.id"}]`, head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "metadata.env=prod&order=desc", data: `[{"id": "$b.id"}, {"id": "$a.id"}]`, head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "order=desc&page_size=1", data: `[{"id": "$b.id"}]`, head: inOrg("org_f"), save: "page"},
		{rpc: "ListApiKeys", body: "order=desc&page_size=1&page_token=$page.next", data: `[{"id": "$a.id"}]`, head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "page_token=$page.next", want: "INVALID_ARGUMENT", field: "page_token", head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "order=desc&q=x&page_token=$page.next", want: "INVALID_ARGUMENT", field: "page_token", head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "metadata.a.b%3C=c%3Dd", data: `[{"id": "$a.id"}]`, head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "metadata.team=", data: `[{"id": "$b.id"}]`, head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "metadata.env=prod&scope=invoices.read", data: `[{"id": "$a.id"}]`, head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "scope=*", data: `[{"id": "$b.id"}]`, head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "scope=api_keys.read", data: `[{"id": "$a.id"}]`, head: inOrg("*")},
		{rpc: "ListApiKeys", body: "external_id=e1", data: `[{"id": "$a.id"}]`, head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "metadata.env=prod&metadata.env=x", want: "INVALID_ARGUMENT", field: "metadata.env", head: inOrg("org_f")},
		{rpc: "ListApiKeys", body: "metadata=prod&metadata.=x&order=up&secret=$a.secret&previous_secret=no", want: "INVALID_ARGUMENT", field: "metadata order previous_secret", head: inOrg("org_f"), only: "grpc"},
		{rpc: "ListApiKeys", body: "metadata=prod&metadata.=x&order=up&secret=$a.secret&previous_secret=no", want: "INVALID_ARGUMENT", field: "metadata order previous_secret secret", head: inOrg("org_f"), only: "rest"},
		{rpc: "ListApiKeys", body: "secret=sk_live_ab", want: "INVALID_ARGUMENT", field: "secret", head: inOrg("org_f")},
		{rpc: "DeleteApiKey", id: "$a.id", head: inOrg("org_f")},
		{rpc: "DeleteApiKey", id: "$b.id", head: inOrg("org_f")},
	}})
	w.take(t, "create", "rest", step{rpc: "CreateApiKey", body: `{"label": "a"}`, save: "a"})
	secret := w.saved["a.secret"]
	for _, protocol := range []string{"rest", "grpc"} {
		for _, part := range []string{secret[:11], secret[:20], secret[:20] + "..." + secret[len(secret)-5:], secret[:12] + "..." + secret[len(secret)-2:]} {
			w.take(t, part, protocol, step{rpc: "ListApiKeys", body: "secret=" + part, data: w.fill(`[{"id": "$a.id"}]`)})
		}
		w.take(t, "another", protocol, step{rpc: "ListApiKeys", body: "secret=" + secret[:12] + "..._", want: "INVALID_ARGUMENT", field: "secret"})
		w.take(t, "none", protocol, step{rpc: "ListApiKeys", body: "secret=" + strings.ToUpper(secret[:3]) + secret[3:12], want: "INVALID_ARGUMENT", field: "secret"})
	}
	// A previous secret that is still in use.
	w.take(t, "rotate", "rest", step{rpc: "RotateApiKey", id: "$a.id", body: `{"overlap_seconds": 60}`})
	w.take(t, "unused", "rest", step{rpc: "ListApiKeys", body: "previous_secret=in_use", data: `[]`})
	w.take(t, "use", "rest", step{rpc: "VerifyApiKey", body: `{"key": "` + secret + `"}`, data: `{"code": "valid"}`})
	w.Stop() // The counters are written.
	id := w.saved["a.id"]
	w = newHarnessIn(t, dir)
	w.saved["a.id"] = id
	for _, protocol := range []string{"rest", "grpc"} {
		w.take(t, "in use", protocol, step{rpc: "ListApiKeys", body: "previous_secret=in_use", data: `[{"id": "$a.id"}]`})
		w.take(t, "by its mask", protocol, step{rpc: "ListApiKeys", body: "secret=" + secret[:20], data: `[{"id": "$a.id"}]`})
	}
	w.take(t, "over", "rest", step{after: 61e9, rpc: "ListApiKeys", body: "previous_secret=in_use", data: `[]`})
}
