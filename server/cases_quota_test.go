package server_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
)

// TestQuotas plays quotas: their making, spending, refills and updates.
func TestQuotas(t *testing.T) {
	t.Parallel()
	made := func(quota string) step {
		return step{rpc: "CreateApiKey", body: `{"label": "k", "quota": ` + quota + `}`, save: "k"}
	}
	patch := func(body, data string) step {
		return step{rpc: "UpdateApiKey", id: "$k.id", body: body, data: data}
	}
	wrong := func(body, field string) step {
		return step{rpc: "UpdateApiKey", id: "$k.id", body: body, want: "INVALID_ARGUMENT", field: field}
	}
	cost := func(cost, data string) step {
		return step{rpc: "VerifyApiKey", body: `{"key": "$k.secret", "cost": ` + cost + `}`, data: data}
	}
	get := func(data string) step { return step{rpc: "GetApiKey", id: "$k.id", data: data} }
	const none = `{"limit": 10, "remaining": 10, "refill": "none", "refill_day": null}`
	exceeded := `{"valid": false, "code": "quota_exceeded", "retry_after_seconds": null, "api_key": {"id": "$k.id"}}`
	newHarness(t).play(t, map[string]scenario{
		"none": {{rpc: "CreateApiKey", body: `{"label": "k", "quota": null}`, save: "k", data: `{"quota": null}`}, cost("1000000", `{"valid": true, "quota": null}`)},
		"to the last unit": {made(`{"limit": 10}`), get(`{"quota": ` + none + `}`),
			cost("3", `{"code": "valid", "quota": {"limit": 10, "remaining": 7, "refill_at": null}, "api_key": {"quota": {"limit": 10, "remaining": 7}}}`),
			get(`{"quota": {"remaining": 7}, "updated_at": null}`),
			cost("8", `{"code": "quota_exceeded", "quota": {"remaining": 7}}`), cost("0", `{"valid": true, "quota": {"remaining": 7}}`),
			cost("7", `{"valid": true, "quota": {"remaining": 0}}`), cost("1", exceeded), cost("0", `{"valid": true, "quota": {"remaining": 0}}`),
			{rpc: "ListApiKeys", data: ``}, get(`{"quota": {"remaining": 0}}`)},
		"made with what is left": {made(`{"limit": 10, "remaining": 2, "refill": "none"}`), cost("2", `{"valid": true}`), cost("1", exceeded)},
		"faults": {
			{rpc: "CreateApiKey", body: `{"label": "k", "quota": {}}`, want: "INVALID_ARGUMENT", field: "quota.limit"},
			{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 0}}`, want: "INVALID_ARGUMENT", field: "quota.limit"},
			{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 1000000000001}}`, want: "INVALID_ARGUMENT", field: "quota.limit"},
			{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 5, "remaining": 6}}`, want: "INVALID_ARGUMENT", field: "quota.remaining"},
			{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 5, "remaining": -1}}`, want: "INVALID_ARGUMENT", field: "quota.remaining"},
			{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 5, "refill_day": 1}}`, want: "INVALID_ARGUMENT", field: "quota.refill_day"},
			{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 5, "refill": "monthly", "refill_day": 32}}`, want: "INVALID_ARGUMENT", field: "quota.refill_day"},
			{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 5, "refill": "weekly"}}`, want: "INVALID_ARGUMENT", field: "quota.refill"},
			{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": "5"}}`, want: "INVALID_ARGUMENT", field: "quota.limit"},
			made(`{"limit": 10}`), wrong(`{"quota": {"remaining": 11}}`, "quota.remaining"), wrong(`{"quota": {"remaining": -1}}`, "quota.remaining"),
			wrong(`{"quota": {"limit": null}}`, "quota.limit"), wrong(`{"quota": {"refill_day": 3}}`, "quota.refill_day"),
			{rpc: "VerifyApiKey", body: `{"key": "$k.secret", "cost": 11}`, want: "INVALID_ARGUMENT", field: "cost"}, get(`{"quota": ` + none + `}`)},
		"topped up": {made(`{"limit": 10}`), cost("10", `{"valid": true}`), cost("1", exceeded),
			patch(`{"quota": {"remaining": 4}}`, `{"quota": {"limit": 10, "remaining": 4}, "updated_at": "$in(0s)"}`),
			cost("4", `{"valid": true}`), cost("1", exceeded),
			patch(`{"quota": {"remaining": null}}`, `{"quota": `+none+`}`), cost("10", `{"valid": true}`), cost("1", exceeded)},
		"another limit": {made(`{"limit": 10}`), cost("4", `{"valid": true}`),
			patch(`{"quota": {"limit": 100}}`, `{"quota": {"limit": 100, "remaining": 6}}`),
			patch(`{"quota": {"limit": 5}}`, `{"quota": {"limit": 5, "remaining": 5}}`), cost("5", `{"valid": true, "quota": {"limit": 5}}`), cost("1", exceeded)},
		"nothing changes": {made(`{"limit": 10, "refill": "monthly", "refill_day": 7}`), cost("4", `{"valid": true}`),
			{rpc: "UpdateApiKey", id: "$k.id", quiet: true, body: `{"quota": {"limit": 10, "remaining": 6, "refill": "monthly", "refill_day": 7}}`, data: `{"updated_at": null, "etag": "$k.etag"}`},
			{rpc: "UpdateApiKey", id: "$k.id", quiet: true, body: `{"quota": {}}`, data: `{"quota": {"remaining": 6}}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "other"}`, data: `{"quota": {"limit": 10, "remaining": 6, "refill": "monthly", "refill_day": 7}}`}, cost("6", `{"valid": true}`)},
		"taken away and given": {made(`{"limit": 1}`), cost("1", `{"valid": true}`), cost("1", exceeded),
			patch(`{"quota": null}`, `{"quota": null}`), cost("5", `{"valid": true, "quota": null}`),
			patch(`{"quota": {"limit": 2}}`, `{"quota": {"limit": 2, "remaining": 2, "refill": "none"}}`), cost("2", `{"valid": true}`), cost("1", exceeded)},
		"rotated": {made(`{"limit": 10}`), cost("4", `{"valid": true}`),
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60}`, save: "new", data: `{"quota": {"limit": 10, "remaining": 6}}`},
			cost("3", `{"valid": true, "previous_secret": true, "quota": {"remaining": 3}}`),
			{rpc: "VerifyApiKey", body: `{"key": "$new.secret", "cost": 3}`, data: `{"valid": true, "quota": {"remaining": 0}}`}, cost("1", exceeded),
			{rpc: "VerifyApiKey", body: `{"key": "$new.secret"}`, data: `{"code": "quota_exceeded"}`}},
		"order": {{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["products.read"], "quota": {"limit": 2}, "rate_limit": {"requests": 1, "window_seconds": 60}}`, save: "k"},
			cost("1", `{"valid": true, "rate_limit": {"remaining": 0}, "quota": {"remaining": 1}}`),
			cost("1", `{"code": "rate_limited", "quota": {"remaining": 1}}`),
			cost("1", `{"valid": true, "quota": {"remaining": 0}}`).later(time.Minute),
			cost("1", `{"code": "rate_limited"}`),
			cost("1", `{"code": "quota_exceeded", "rate_limit": {"remaining": 1}}`).later(time.Minute),
			cost("1", `{"code": "quota_exceeded", "rate_limit": {"remaining": 1}}`),
			{rpc: "VerifyApiKey", body: `{"key": "$k.secret", "scopes": ["invoices.read"]}`, data: `{"code": "insufficient_scope"}`}},
	})
}

// TestRefills plays the turn of days and months. It has a harness of its own, since
// the clock goes far.
func TestRefills(t *testing.T) {
	t.Parallel()
	use := func(cost, data string) step {
		return step{rpc: "VerifyApiKey", body: `{"key": "$k.secret", "cost": ` + cost + `}`, data: data}
	}
	for name, s := range map[string]scenario{ // from 2025-06-30 15:00:22 on
		"daily": {{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 5, "refill": "daily"}}`, save: "k", data: `{"quota": {"refill": "daily", "refill_day": null}}`},
			use("5", `{"valid": true, "quota": {"remaining": 0, "refill_at": "2025-07-01 00:00:00"}}`),
			use("1", `{"code": "quota_exceeded", "retry_after_seconds": 32378, "quota": {"refill_at": "2025-07-01 00:00:00"}}`),
			use("1", `{"code": "quota_exceeded", "retry_after_seconds": 1}`).later(32377 * time.Second),
			{rpc: "GetApiKey", id: "$k.id", after: time.Second, data: `{"quota": {"remaining": 5}}`},
			use("2", `{"valid": true, "quota": {"remaining": 3, "refill_at": "2025-07-02 00:00:00"}}`),
			use("5", `{"valid": true, "quota": {"remaining": 0}}`).later(48 * time.Hour)},
		"monthly": {{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 5, "refill": "monthly", "refill_day": 31}}`, save: "k", data: `{"quota": {"refill": "monthly", "refill_day": 31}}`},
			use("5", `{"valid": true, "quota": {"remaining": 0, "refill_at": "2025-07-31 00:00:00"}}`),
			use("1", `{"code": "quota_exceeded"}`).later(30 * 24 * time.Hour),
			use("1", `{"valid": true, "quota": {"remaining": 4, "refill_at": "2025-08-31 00:00:00"}}`).later(9 * time.Hour),
			use("1", `{"valid": true, "quota": {"remaining": 4, "refill_at": "2025-09-30 00:00:00"}}`).later(32 * 24 * time.Hour)},
	} {
		for _, protocol := range []string{"rest", "grpc"} {
			// The clock passes the end of what is kept, and a scenario counts its events.
			keep := func(c *server.Config) { c.EventRetention = 400 * 24 * time.Hour }
			newHarness(t, keep).playOne(t, name, protocol, s)
		}
	}
}

// playOne plays one scenario over one protocol.
func (w *harness) playOne(t *testing.T, name, protocol string, s scenario) {
	t.Helper()
	for i := range s {
		if !w.take(t, name+" over "+protocol+", "+s[i].rpc, protocol, s[i]) {
			return
		}
	}
}

// TestOwnQuota plays callers that are keys with a quota: a call costs 1 of it, and
// none of them changes its own.
func TestOwnQuota(t *testing.T) {
	t.Parallel()
	made := func(quota string) step {
		return step{rpc: "CreateApiKey", body: `{"label": "c", "scopes": ["*"], "quota": ` + quota + `}`, save: "c"}
	}
	call := step{rpc: "ListApiKeys", as: "$c.secret"}
	over := step{rpc: "ListApiKeys", as: "$c.secret", want: "QUOTA_EXCEEDED"}
	// Waiting does not help where there is no refill.
	never := step{rpc: "ListApiKeys", as: "$c.secret", want: "QUOTA_EXCEEDED", retry: -1}
	daily := step{rpc: "ListApiKeys", as: "$c.secret", want: "QUOTA_EXCEEDED", retry: 32378} // from 15:00:22 on
	own := func(body, want string) step {
		return step{rpc: "UpdateApiKey", id: "$c.id", as: "$c.secret", body: body, want: want, quiet: true}
	}
	newHarness(t).play(t, map[string]scenario{
		"spent": {made(`{"limit": 2, "refill": "daily"}`), call, call, daily, over,
			{rpc: "GetApiKey", id: "$c.id", data: `{"quota": {"remaining": 0}}`}},
		"spent for good": {made(`{"limit": 1}`), call, never, never},
		"own": {made(`{"limit": 20}`), own(`{"quota": {"remaining": 20}}`, "OWN_LIMITS"), own(`{"quota": {"limit": 21}}`, "OWN_LIMITS"), own(`{"quota": null}`, "OWN_LIMITS"),
			own(`{"quota": {"limit": 20}}`, ""), {rpc: "GetApiKey", id: "$c.id", data: `{"quota": {"limit": 20, "remaining": 16}}`},
			{rpc: "CreateApiKey", as: "$c.secret", body: `{"label": "richer", "scopes": ["*"], "quota": {"limit": 1000}}`, save: "k"},
			{rpc: "UpdateApiKey", id: "$k.id", as: "$c.secret", body: `{"quota": {"remaining": 500}}`, data: `{"quota": {"remaining": 500}}`}},
	})
}

// TestBatches plays verifications in a batch.
func TestBatches(t *testing.T) {
	t.Parallel()
	batch := func(keys, data string) step {
		return step{rpc: "BatchVerifyApiKeys", body: `{"keys": [` + keys + `]}`, data: data}
	}
	wrong := func(keys, field string) step {
		return step{rpc: "BatchVerifyApiKeys", body: `{"keys": [` + keys + `]}`, want: "INVALID_ARGUMENT", field: field}
	}
	const one = `{"key": "$k.secret"}`
	made := step{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["products.read"], "quota": {"limit": 3}}`, save: "k"}
	newHarness(t).play(t, map[string]scenario{
		"empty": {batch("", `[]`), {rpc: "BatchVerifyApiKeys", body: `{}`, data: `[]`}},
		"in order": {made, batch(`{"key": "x"}, {}, `+one+`, {"key": "$k.secret", "scopes": ["invoices.read"]}, {"key": "$k.secret", "cost": 2}, `+one,
			`[{"code": "malformed", "valid": false, "api_key": null, "quota": null}, {"code": "malformed"}, {"code": "valid", "valid": true, "quota": {"remaining": 2}, "api_key": {"id": "$k.id"}},
				{"code": "insufficient_scope"}, {"code": "valid", "quota": {"remaining": 0}}, {"code": "quota_exceeded", "quota": {"remaining": 0}}]`)},
		"out of reach": {{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 3, "refill": "daily"}, "rate_limit": {"requests": 5, "window_seconds": 60}}`, save: "k"},
			batch(one+`, {"key": "$k.secret", "cost": 4}, {"key": "$k.secret", "cost": 6}, `+one,
				`[{"code": "valid", "quota": {"remaining": 2}}, {"valid": false, "code": "quota_exceeded", "retry_after_seconds": null, "quota": {"limit": 3, "remaining": 2}},
				{"code": "rate_limited", "retry_after_seconds": null, "rate_limit": {"limit": 5, "remaining": 4}}, {"code": "valid", "quota": {"remaining": 1}, "rate_limit": {"remaining": 3}}]`),
			{rpc: "VerifyApiKey", body: `{"key": "$k.secret", "cost": 4}`, want: "INVALID_ARGUMENT", field: "cost"}},
		"faults": {made, wrong(one+`, {"key": "$k.secret", "cost": 4}, {"key": "$k.secret", "cost": 1000001}`, "keys[2].cost"),
			wrong(one+`, {"key": "x", "cost": -1}, {"key": "x", "scopes": ["`+strings.Repeat("s", 129)+`"]}`, "keys[1].cost keys[2].scopes[0]"),
			wrong(strings.Repeat(`{"key": "x"},`, 1000)+one, "keys"),
			{rpc: "BatchVerifyApiKeys", body: `{"keys": [{"secret": "x"}]}`, want: "INVALID_ARGUMENT", field: "keys[0].secret", only: "rest"},
			{rpc: "GetApiKey", id: "$k.id", data: `{"quota": {"remaining": 3}, "metrics": {"total_requests": 0}}`}},
		"a thousand": {made, {rpc: "BatchVerifyApiKeys", body: `{"keys": [` + strings.Repeat(`{"key": "x"},`, 999) + one + `]}`}, {rpc: "GetApiKey", id: "$k.id", data: `{"quota": {"remaining": 2}}`}},
		"too much to tell": {{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 1000}, "metadata": {"a": "` + strings.Repeat("x", 8000) + `"}}`, save: "k"},
			wrong(strings.Repeat(one+",", 999)+one, "keys"), {rpc: "GetApiKey", id: "$k.id", data: `{"quota": {"remaining": 1000}, "metrics": {"total_requests": 0}}`},
			{rpc: "BatchVerifyApiKeys", body: `{"keys": [` + strings.Repeat(one+",", 299) + one + `]}`}, {rpc: "GetApiKey", id: "$k.id", data: `{"quota": {"remaining": 700}}`}},
		"scope": {{rpc: "CreateApiKey", body: `{"label": "c", "scopes": ["api_keys.read"]}`, save: "c"}, {rpc: "BatchVerifyApiKeys", as: "$c.secret", body: `{}`, want: "INSUFFICIENT_SCOPE"}},
		"organizations": {made,
			{rpc: "BatchVerifyApiKeys", body: `{"keys": [` + one + `]}`, head: "X-Organization-Id: org_other", data: `[{"code": "not_found", "api_key": null}]`},
			{rpc: "BatchVerifyApiKeys", body: `{"keys": [` + one + `]}`, head: "X-Organization-Id: *", data: `[{"code": "valid"}]`}},
	})
}

// TestBrokenStorage plays verifications that storage fails: the caller is told to
// try again and nothing of the cause, which is in the log.
func TestBrokenStorage(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.onSQLite(t)
	for _, name := range []string{"plain", "metered"} {
		w.take(t, name, "rest", step{rpc: "CreateApiKey", body: `{"label": "k", "quota": {"limit": 3}}`, save: name})
	}
	w.take(t, "into memory", "rest", step{rpc: "VerifyApiKey", body: `{"key": "$metered.secret", "cost": 0}`})
	breaker, err := sql.Open("sqlite3", "file:"+filepath.Join(w.Dir, "apikeys.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer breaker.Close()
	rename := func(from, to string) {
		if _, err := breaker.ExecContext(t.Context(), "ALTER TABLE "+from+" RENAME TO "+to); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{"api_key_quotas", "api_keys"} {
		rename(table, "moved_"+table)
		defer rename("moved_"+table, table) // the server stores its counters when it stops
	}
	for _, name := range []string{"plain", "metered"} { // one to be read, one to be reserved
		for _, protocol := range []string{"rest", "grpc"} {
			for _, s := range []step{{rpc: "VerifyApiKey", body: `{"key": "$` + name + `.secret"}`}, {rpc: "BatchVerifyApiKeys", body: `{"keys": [{"key": "$` + name + `.secret"}]}`}} {
				w.take(t, name+" over "+protocol, protocol, s.failing("UNAVAILABLE", ""))
			}
		}
	}
	if log := w.Log.String(); !strings.Contains(log, "api_key_quotas") || strings.Contains(log, "reserve quota: reserve quota") {
		t.Errorf("the log: %s", log)
	}
}
