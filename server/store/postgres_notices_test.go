package store_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// exchange opens a second store on a database, has it exchange notices until the test
// ends, and returns what it hears.
func exchange(t *testing.T, c store.Config) (*fixture, <-chan store.Notice) {
	t.Helper()
	s, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.SealWith(newSealer(t, "e_1"))
	heard := make(chan store.Notice, 1024)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.ExchangeNotices(ctx, func(n store.Notice) { heard <- n }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fixture{Store: s, clock: newClock()}, heard
}

// await returns the next notice, or the first that f wants.
func await(t *testing.T, heard <-chan store.Notice, f func(store.Notice) bool) store.Notice {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case n := <-heard:
			if f == nil || f(n) {
				return n
			}
		case <-late:
			t.Fatal("heard nothing")
		}
	}
}

// TestNotices has stores that share a database hear of each other's commits, and not of
// their own. A connection that is lost is made again, and that is told.
func TestNotices(t *testing.T) {
	server := postgresServer(t)
	database := server.copy(t, nil)
	logger, log := logtest.New(slog.LevelInfo)
	c := store.Config{Postgres: masked.New(database), Logger: logger}
	first := openAndInitialize(t, c)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	a, heardByA := exchange(t, c)
	b, heardByB := exchange(t, c)
	c.Unnotified = true
	deaf, heardByDeaf := exchange(t, c)
	for _, heard := range []<-chan store.Notice{heardByA, heardByB} {
		if n := await(t, heard, nil); n.Position != 0 {
			t.Fatalf("the first notice is %+v", n)
		}
	}
	isAt := func(position int64) func(store.Notice) bool {
		return func(n store.Notice) bool { return n.Position == position }
	}
	a.create(t, nil)
	await(t, heardByB, isAt(1))
	b.create(t, nil)
	await(t, heardByA, isAt(2)) // and not 1: what is before would have failed the test below
	a.AnnounceDue([]string{"webhook_1", "webhook_2"})
	n := await(t, heardByB, func(n store.Notice) bool { return n.Due != nil })
	if slices.Sort(n.Due); !slices.Equal(n.Due, []string{"webhook_1", "webhook_2"}) {
		t.Errorf("due are %v", n.Due)
	}
	deaf.create(t, nil)
	deaf.AnnounceDue([]string{"webhook_3"})
	if n := len(heardByA) + len(heardByB) + len(heardByDeaf); n != 0 {
		t.Errorf("%d notices more", n)
	}
	status, ok := b.Notices()
	if !ok || !status.Listening || status.Heard != 2 || status.Sent != 1 {
		t.Errorf("the status is %+v", status)
	}
	if _, ok := deaf.Notices(); ok {
		t.Error("a store without notices has a status of them")
	}

	execIn(t, database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
	for _, heard := range []<-chan store.Notice{heardByA, heardByB} {
		await(t, heard, isAt(0))
	}
	a.create(t, nil)
	await(t, heardByB, isAt(4))
	if begun, over := log.Lines("are not heard of at once"), log.Lines("are heard of at once again"); len(begun) != 2 || len(over) != 2 {
		t.Errorf("the log: %s", log)
	}
}

// TestManyDue tells of more webhooks than one notice holds.
func TestManyDue(t *testing.T) {
	database := postgresServer(t).copy(t, nil)
	c := store.Config{Postgres: masked.New(database), Logger: quiet}
	if err := openAndInitialize(t, c).Close(); err != nil {
		t.Fatal(err)
	}
	a, _ := exchange(t, c)
	_, heard := exchange(t, c)
	await(t, heard, nil)
	ids, newID := make([]string, 1000), ascendingIDs()
	for i := range ids {
		ids[i] = newID(webhook.IDPrefix)
	}
	a.AnnounceDue(ids)
	told := make(map[string]bool)
	for len(told) < len(ids) {
		n := await(t, heard, nil)
		for _, id := range n.Due {
			told[id] = true
		}
	}
	for _, id := range ids {
		if !told[id] {
			t.Errorf("%s was not told", id)
		}
	}
}
