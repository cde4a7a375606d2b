package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEventsOfChanges looks at what the log holds of each change.
func TestEventsOfChanges(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	do := func(s step) { w.take(t, s.rpc, "rest", s) }
	do(caller("c", ""))
	do(step{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["products.read"]}`, save: "k", as: "$c.secret"})
	do(step{rpc: "UpdateApiKey", id: "$k.id", body: `{"metadata": {"a": "b"}, "label": "l", "scopes": ["products.read"], "enabled": false}`})
	do(step{rpc: "UpdateApiKey", id: "$k.id", body: `{"enabled": true}`, as: "$c.secret"})
	do(step{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60}`})
	do(step{rpc: "RevokeApiKey", id: "$k.id", as: "$c.secret"})
	do(step{rpc: "DeleteApiKey", id: "$k.id"})
	got := w.column(t, `SELECT type || ' ' || `+changesColumn+` || ' ' || actor_kind || ' ' || actor_id || ' ' || organization_id FROM events WHERE resource_id = ? ORDER BY id`, w.saved["k.id"])
	operator, key := " operator root org_default", " api_key "+w.saved["c.id"]+" org_default"
	want := []string{
		"api_key.created null" + key,
		`api_key.updated ["label","enabled","state","metadata"]` + operator,
		`api_key.updated ["enabled","state"]` + key,
		`api_key.rotated ["secret","previous_secret_expires_at"]` + operator,
		`api_key.revoked ["state","revoked_at","revoke_reason"]` + key,
		"api_key.deleted null" + operator,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	positions := w.column(t, "SELECT id FROM events ORDER BY id")
	if positions[0] != "1" || positions[len(positions)-1] != w.column(t, "SELECT count(*) FROM events")[0] {
		t.Errorf("positions with a gap: %q", positions)
	}
	for _, id := range w.column(t, "SELECT request_id FROM events") {
		if !strings.HasPrefix(id, "request_") {
			t.Errorf("request id %q", id)
		}
	}
}

// notices returns the events about a key's expiry, as soon as there are n; the
// server looks for them more often than once a second.
func (w *harness) notices(t *testing.T, id string, n int) []string {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Second); ; <-tick.C {
		got := w.column(t, "SELECT type || ' ' || "+changesColumn+" || ' ' || actor_id FROM events WHERE resource_id = ? AND actor_kind = 'system' ORDER BY id", id)
		if len(got) >= n || time.Now().After(end) {
			return got
		}
	}
}

// TestNotices lets keys come close to their expiry and pass it.
func TestNotices(t *testing.T) {
	t.Parallel()
	const expiring, expired = "api_key.expiring null system", `api_key.expired ["state"] system`
	const day = 24 * time.Hour
	w := newHarness(t)
	create := func(name, expiry string) {
		w.take(t, name, "rest", step{rpc: "CreateApiKey", body: `{"label": "x", "expires_at": ` + expiry + `}`, save: name})
	}
	do := func(rpc, id, body string) {
		w.take(t, rpc, "grpc", step{rpc: rpc, id: "$" + id + ".id", body: body})
	}
	for _, name := range []string{"both", "moved", "disabled", "revoked", "deleted", "cleared"} {
		create(name, `"$in(240h)"`)
	}
	create("late", `"$in(167h)"`)
	create("never", `null`)
	do("UpdateApiKey", "disabled", `{"enabled": false}`)
	do("RevokeApiKey", "revoked", "")
	do("DeleteApiKey", "deleted", "")
	do("UpdateApiKey", "cleared", `{"expires_at": null}`)

	w.clock.Advance(3*day + time.Second)
	want := func(name string, events ...string) {
		t.Helper()
		if got := w.notices(t, w.saved[name+".id"], len(events)); !slices.Equal(got, events) {
			t.Errorf("%s: got %q, want %q", name, got, events)
		}
	}
	want("both", expiring)
	want("moved", expiring)
	want("late")
	do("UpdateApiKey", "moved", `{"expires_at": "$in(216h)"}`) // another value, announced again
	do("UpdateApiKey", "both", `{"enabled": false}`)
	do("UpdateApiKey", "both", `{"enabled": true}`) // the same value, announced already

	w.clock.Advance(2 * day)
	want("moved", expiring, expiring)
	w.clock.Advance(5 * day)
	want("both", expiring, expired)
	want("late", expired)
	w.clock.Advance(2 * day)
	want("moved", expiring, expiring, expired)
	do("UpdateApiKey", "late", `{"expires_at": "$in(1h)"}`)
	w.clock.Advance(time.Hour)
	want("late", expired, expired)
	for _, name := range []string{"disabled", "revoked", "deleted", "cleared", "never"} {
		want(name)
	}
}

// TestCounters looks at what is kept of use after a clean stop.
func TestCounters(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	for _, s := range []step{
		caller("c", ""),
		{rpc: "ListApiKeys", as: "$c.secret"}, {rpc: "GetApiKey", id: "$c.id", as: "$c.secret"},
		{rpc: "VerifyApiKey", body: `{"key": "$c.secret"}`}, {rpc: "VerifyApiKey", body: `{"key": "$c.secret", "cost": 0}`},
		{rpc: "VerifyApiKey", body: `{"key": "$c.secret", "scopes": ["x"]}`},
		{rpc: "ListApiKeys", as: "$c.secret", head: "X-Organization-Id: org_other", want: "WRONG_ORGANIZATION"},
		{rpc: "VerifyApiKey", body: `{"key": "$c.secret"}`, after: time.Hour}, {rpc: "RotateApiKey", body: endNow, id: "$c.id", save: "c"}, {rpc: "VerifyApiKey", body: `{"key": "$c.secret"}`},
	} {
		w.take(t, s.rpc, "grpc", s)
	}
	w.Stop()
	again := newHarnessIn(t, w.Dir)
	again.clock.Advance(2 * time.Hour)
	again.saved = w.saved
	again.take(t, "counters", "grpc", step{rpc: "GetApiKey", id: "$c.id", data: `{"metrics": {"api_key_id": "$c.id", "total_requests": 5, "last_used_at": "$in(-1h)"}}`})
}
