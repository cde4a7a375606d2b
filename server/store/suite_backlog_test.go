package store_test

import (
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

func testBacklog(t *testing.T, f *fixture) {
	want := func(organization string, want store.Backlog) {
		t.Helper()
		got, err := f.Backlog(t.Context(), organization)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, "backlog", want, got)
	}
	want("", store.Backlog{})
	want("org_nobody", store.Backlog{})
	w := f.hook(t, nil)
	f.create(t, nil)
	f.fanOut(t)
	first := f.clock.stored()
	want(org, store.Backlog{Pending: 1, OldestPending: first})
	f.clock.Advance(time.Minute)
	for range 2 {
		if _, err := f.tryCreate(t, t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	// Two events are in the log that have no deliveries yet.
	want(org, store.Backlog{Pending: 1, OldestPending: first, Unfanned: 2})
	want("", store.Backlog{Pending: 1, OldestPending: first})
	f.fanOut(t)
	second := f.clock.stored()
	want(org, store.Backlog{Pending: 3, OldestPending: first})
	f.settleOne(t, w.ID, webhook.Outcome{Status: 204})
	want(org, store.Backlog{Pending: 2, OldestPending: second})
	// One that failed and is tried again has not ended.
	f.settleOne(t, w.ID, failed)
	want(org, store.Backlog{Pending: 2, OldestPending: second})

	for name, pool := range f.Pools() {
		if pool.MaxOpenConnections < 1 {
			t.Errorf("pool %s: %+v", name, pool)
		}
	}
	if len(f.Pools()) < 3 {
		t.Errorf("pools: %v", f.Pools())
	}
}
