package store_test

import (
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var noticeTests = map[string]func(*testing.T, *fixture){
	"PublishNotices":        testPublishNotices,
	"PublishNoticesInTurns": testPublishNoticesInTurns,
	"PublishNoticesPanic":   testPublishNoticesPanic,
}

// publish publishes up to limit notices and compares how many there were and how
// long it is until the next; 0 means that none is.
func (f *fixture) publish(t *testing.T, limit, want int, wantNext time.Duration) {
	t.Helper()
	n, next, err := f.PublishNotices(t.Context(), limit, rules.Notice)
	if err != nil || n != want {
		t.Errorf("published %d, want %d, %v", n, want, err)
	}
	if wantNext == 0 != next.IsZero() || wantNext != 0 && next != f.clock.stored().Add(wantNext) {
		t.Errorf("next at %v, want in %v", next, wantNext)
	}
}

const day = 24 * time.Hour

func testPublishNotices(t *testing.T, f *fixture) {
	var commits []store.Commit
	f.OnCommit(func(c store.Commit) { commits = append(commits, c) })
	f.publish(t, 10, 0, 0)
	expires := f.clock.stored().Add(10 * day)
	k := f.create(t, func(k *apikey.Key) { k.ExpiresAt = expires })
	f.create(t, nil)
	for _, stop := range []func(*apikey.Key){
		func(k *apikey.Key) { rules.Revoke(k, apikey.RevokeSuperseded, f.clock.Now()) },
		func(k *apikey.Key) { // as Rules.Update leaves a disabled key
			k.Enabled, k.NoticeAt = false, time.Time{}
		},
	} {
		stopped := f.create(t, func(k *apikey.Key) { k.ExpiresAt = expires })
		if _, err := f.update(t.Context(), stopped.ID, stop); err != nil {
			t.Fatal(err)
		}
	}
	deleted := f.create(t, func(k *apikey.Key) { k.ExpiresAt = expires })
	if err := f.DeleteKey(t.Context(), operator, org, deleted.ID); err != nil {
		t.Fatal(err)
	}
	begin := int64(len(f.events(t, 0)))
	commits = nil

	f.clock.Advance(3*day - time.Microsecond)
	f.publish(t, 10, 0, time.Microsecond)
	f.clock.Advance(time.Microsecond)
	f.publish(t, 10, 1, 7*day)
	f.publish(t, 10, 0, 7*day)
	f.clock.Advance(7 * day)
	f.publish(t, 10, 1, 0)
	f.publish(t, 10, 0, 0)

	f.wantEvents(t, begin, apikey.KeyExpiring, apikey.KeyExpired)
	system := apikey.Origin{Actor: apikey.Actor{Kind: apikey.ActorSystem, ID: "system", Name: "notices of expiry"}}
	for i, e := range f.events(t, begin) {
		wantSame(t, "origin", system, e.Origin)
		if e.ResourceID != k.ID || e.OrganizationID != org {
			t.Errorf("told of %s", e.ResourceID)
		}
		wantSame(t, "changes", [][]string{nil, {"state"}}[i], e.Changes)
	}
	// A notice changes nothing of the key that anybody sees or caches.
	k.NoticeAt = time.Time{}
	f.wantKey(t, k)
	of := []string{org}
	for i := range commits {
		if c := &commits[i]; len(c.Events) != 1 || c.Changes != 1 || c.Began.IsZero() || c.Committing.Before(c.Began) {
			t.Errorf("commit %+v", c)
		}
		commits[i].Events, commits[i].Changes, commits[i].Began, commits[i].Committing = nil, 0, time.Time{}, time.Time{}
	}
	wantSame(t, "commits", []store.Commit{{First: begin + 1, Position: begin + 1, Organizations: of}, {First: begin + 2, Position: begin + 2, Organizations: of}}, commits)
}

// testPublishNoticesInTurns has more due than one call may publish; they come in
// the order in which they were due.
func testPublishNoticesInTurns(t *testing.T, f *fixture) {
	var ids []string
	for i := range 5 {
		k := f.create(t, func(k *apikey.Key) {
			k.ExpiresAt = f.clock.stored().Add(time.Hour - time.Duration(i/2)*time.Minute)
		})
		ids = append(ids, k.ID)
	}
	f.clock.Advance(time.Hour)
	f.clock.Advance(time.Second)
	f.publish(t, 2, 2, -time.Minute-time.Second)
	f.publish(t, 2, 2, -time.Second)
	f.publish(t, 2, 1, 0)
	var order []string
	for _, e := range f.events(t, 5) {
		order = append(order, e.ResourceID)
	}
	wantSame(t, "order", []string{ids[4], ids[2], ids[3], ids[0], ids[1]}, order)
}

func testPublishNoticesPanic(t *testing.T, f *fixture) {
	k := f.create(t, func(k *apikey.Key) { k.ExpiresAt = f.clock.stored().Add(time.Hour) })
	f.clock.Advance(time.Hour)
	calls := 0
	n, next, err := f.PublishNotices(t.Context(), 10, func(*apikey.Key, time.Time) (apikey.EventType, []string) {
		calls++
		panic("rule")
	})
	if n != 0 || !next.IsZero() || err == nil || calls != 1 {
		t.Errorf("published %d, next %v, %v", n, next, err)
	}
	f.wantKey(t, k)
	f.wantEvents(t, 1)
	f.publish(t, 10, 1, 0)
}
