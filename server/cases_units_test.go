package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
)

// TestUnits plays usage that is billed: by key, by the owner of the time, and by
// organization.
func TestUnits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inDir := func(c *server.Config) { c.DataDir = dir }
	first := newHarness(t, inDir)
	verify := func(key, more string) step {
		return step{rpc: "VerifyApiKey", body: `{"key": "$` + key + `.secret"` + more + `}`}
	}
	first.playOne(t, "uses", "rest", scenario{
		{rpc: "CreateApiKey", body: `{"label": "k", "owner_id": "ann", "scopes": ["api_keys.read"]}`, save: "k"},
		{rpc: "CreateApiKey", body: `{"label": "d", "owner_id": "=cmd(1)"}`, save: "d"},
		{rpc: "CreateApiKey", body: `{"label": "n"}`, save: "n"},
		verify("k", ""), verify("k", `, "cost": 5`), verify("k", `, "cost": 0`), verify("k", `, "scopes": ["x"]`), verify("d", `, "cost": 7`), // 15:00
		{rpc: "ListApiKeys", as: "$k.secret", body: "page_size=1"},
		{rpc: "UpdateApiKey", id: "$k.id", body: `{"owner_id": "bob"}`}, verify("k", `, "cost": 2`),
		{rpc: "DeleteApiKey", id: "$d.id"}, verify("n", ""),
		verify("k", `, "cost": 3`).later(2 * time.Hour), // 17:00
	})
	first.Stop()
	w := newHarness(t, inDir)
	for name, text := range first.saved {
		w.saved[name] = text
	}
	w.clock.Advance(2*time.Hour + 30*time.Minute - 22*time.Second) // 17:30:00
	get := func(query, data string) step { return step{rpc: "GetUsage", body: query, data: data} }
	wrong := func(query, field string) step {
		return step{rpc: "GetUsage", body: query, want: "INVALID_ARGUMENT", field: field}
	}
	const from = "granularity=hour&since=2025-06-30T15:00:00Z&"
	w.play(t, map[string]scenario{
		"by organization": {get("since=2025-06-30", `{"since": "2025-06-30 00:00:00", "until": "2025-07-01 00:00:00", "granularity": "day", "group_by": "organization_id",
			"closed_before": "2025-06-30 00:00:00", "incomplete_before": null, "next_page_token": "",
			"rows": [{"start": "2025-06-30 00:00:00", "organization_id": "org_default", "owner_id": "", "api_key_id": "", "calls": 7, "units": 20}]}`),
			step{rpc: "GetUsage", body: "since=2025-06-30&until=2025-06-30", data: `{"until": "2025-07-01 00:00:00", "rows": [{"calls": 7}]}`}.in("*"),
			step{rpc: "GetUsage", data: `{"rows": []}`}.in("org_other")},
		"by owner": {get(from+"group_by=owner_id", `{"closed_before": "2025-06-30 17:00:00", "rows": [
			{"start": "2025-06-30 15:00:00", "owner_id": "", "calls": 1, "units": 1}, {"start": "2025-06-30 15:00:00", "owner_id": "=cmd(1)", "calls": 1, "units": 7},
			{"start": "2025-06-30 15:00:00", "owner_id": "ann", "calls": 3, "units": 7}, {"start": "2025-06-30 15:00:00", "owner_id": "bob", "calls": 1, "units": 2},
			{"start": "2025-06-30 17:00:00", "owner_id": "bob", "calls": 1, "units": 3}]}`),
			get("group_by=owner_id&owner_id=bob", `{"rows": [{"start": "2025-06-30 00:00:00", "owner_id": "bob", "calls": 2, "units": 5}]}`)},
		"by key": {get(from+"group_by=api_key_id&api_key_id=$k.id", `{"rows": [{"api_key_id": "$k.id", "calls": 4, "units": 9}, {"api_key_id": "$k.id", "calls": 1, "units": 3}]}`),
			get("group_by=api_key_id", `{"rows": [{"api_key_id": "$k.id", "calls": 5, "units": 12}, {"api_key_id": "$d.id", "units": 7}, {"api_key_id": "$n.id", "units": 1}]}`)},
		"pages": {
			{rpc: "GetUsage", body: from + "group_by=owner_id&page_size=2", data: `{"rows": [{"owner_id": ""}, {"owner_id": "=cmd(1)"}]}`, save: "a"},
			{rpc: "GetUsage", body: from + "group_by=owner_id&page_size=2&page_token=$a.next", data: `{"rows": [{"owner_id": "ann"}, {"owner_id": "bob", "units": 2}]}`, save: "b"},
			{rpc: "GetUsage", body: from + "group_by=owner_id&page_size=2&page_token=$b.next", data: `{"rows": [{"owner_id": "bob", "units": 3}], "next_page_token": ""}`},
			wrong(from+"group_by=api_key_id&page_token=$a.next", "page_token"), wrong("page_token=x", "page_token"),
		},
		"long ago": {get("granularity=hour&since=2025-05-20&until=2025-06-20", `{"incomplete_before": "2025-05-31 17:00:00", "rows": []}`),
			get("since=2024-05-01&until=2024-06-02", `{"incomplete_before": "2024-05-26 00:00:00"}`)},
		"faults": {wrong("group_by=label", "group_by"), wrong("since=2025-02-30", "since"), wrong("since=2025-7-1", "since"), wrong("owner_id=x&api_key_id=y", "api_key_id"), wrong("owner_id=x", "owner_id"),
			step{rpc: "GetUsage", body: "group_by=owner_id", want: "INVALID_ARGUMENT", field: "group_by"}.in("*"), wrong("since=2020-01-01", "since"), wrong("since=2025-06-30&until=2025-06-29", "since")},
	})
	for accept, want := range map[string]string{
		"text/csv": "text/csv; charset=utf-8; header=present", "text/csv, application/json;q=0.5": "text/csv; charset=utf-8; header=present",
		"application/json": "application/json", "*/*": "application/json", "text/csv;q=0.5, application/json": "application/json", "": "application/json",
	} {
		status, header, text := w.send(t, w.fill("GET /developers/usage?"+from+"group_by=owner_id HTTP/1.1\n<auth>\nAccept: "+accept))
		if status != http.StatusOK || header.Get("Content-Type") != want {
			t.Errorf("Accept: %s: %d, %s", accept, status, header.Get("Content-Type"))
		}
		const lines = "start,organization_id,owner_id,api_key_id,calls,units\n2025-06-30 15:00:00,org_default,,,1,1\n2025-06-30 15:00:00,org_default,'=cmd(1),,1,7\n"
		if strings.HasPrefix(want, "text/csv") && !strings.HasPrefix(string(text), lines) {
			t.Errorf("CSV:\n%s", text)
		}
	}
	for request, want := range map[string]raw{
		"/developers/usage?group_by=x HTTP/1.1\n<auth>\nAccept: text/csv":  {status: 400, reason: "INVALID_ARGUMENT"},
		"/developers/usage?group_by=x HTTP/1.1\n<auth>\nAccept: text/html": {status: 406, reason: "NOT_ACCEPTABLE"},
		"/developers/api_keys HTTP/1.1\n<auth>\nAccept: text/csv":          {status: 406, reason: "NOT_ACCEPTABLE"},
		"/developers/usage HTTP/1.1\nAccept: text/csv":                     {status: 401, reason: "UNAUTHENTICATED"},
	} {
		status, header, text := w.send(t, "GET "+request)
		if a := w.envelope(t, status, header, text); a.status != want.status || a.reason != want.reason {
			t.Errorf("%s: %d %s", request, a.status, a.reason)
		}
	}
	// Last, since a call with a key is a use of it, which the others would read.
	w.play(t, map[string]scenario{"a key": {{rpc: "GetUsage", as: "$k.secret", data: `{"group_by": "organization_id"}`}}})
}
