package store_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
)

// TestPostgresReplicasWrite has three stores change one key and make others at once: no
// change is lost, each has its event, and positions have no gap and are in the order of
// the changes.
func TestPostgresReplicasWrite(t *testing.T) {
	const writers, each = 5, 6
	replicas := openReplicas(t, 3)
	k := replicas[0].create(t, func(k *apikey.Key) { k.Label = "0" })
	var wg sync.WaitGroup
	for _, f := range replicas {
		for range writers {
			wg.Go(func() {
				for range each {
					_, err := f.update(t.Context(), k.ID, func(k *apikey.Key) {
						n, _ := strconv.Atoi(k.Label)
						k.Label = strconv.Itoa(n + 1)
					})
					if err != nil {
						t.Error(err)
					}
					if _, err := f.tryCreate(t, t.Context(), nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	const changes = 3 * writers * each
	var updates int
	events := replicas[1].events(t, 1)
	for _, e := range events {
		if e.ResourceID != k.ID {
			continue
		}
		if updates++; keyOf(t, &e).GetLabel() != strconv.Itoa(updates) || keyOf(t, &e).GetEtag() != strconv.Itoa(updates+1) {
			t.Errorf("event %d tells of %s at version %s, want %d", e.Position, keyOf(t, &e).GetLabel(), keyOf(t, &e).GetEtag(), updates)
		}
	}
	if updates != changes || len(events) != 2*changes {
		t.Errorf("%d events, %d of them updates, of %d changes each", len(events), updates, changes)
	}
	for i, f := range replicas {
		if got, err := f.Key(t.Context(), org, k.ID); err != nil || got.Label != strconv.Itoa(changes) {
			t.Errorf("store %d: label %s, %v", i, got.Label, err)
		}
	}
}

// TestPostgresReplicasEndCallers has a key make changes over two stores while a third
// revokes it: after the event that ends the key, the log has none that the key made.
func TestPostgresReplicasEndCallers(t *testing.T) {
	replicas := openReplicas(t, 3)
	for round := range 5 {
		caller := replicas[0].create(t, func(k *apikey.Key) { k.Label, k.Scopes = fmt.Sprint("caller ", round), callerScopes })
		began := make(chan struct{}, 2)
		var wg sync.WaitGroup
		for _, f := range replicas[:2] {
			to := f.targets(t)
			change := f.changesBy(t, &caller, to)["update"]
			wg.Go(func() {
				made := 0
				for ; change() == nil; made++ {
					if made == 0 {
						began <- struct{}{}
					}
				}
				if made == 0 {
					t.Error("the key made no change")
					began <- struct{}{}
				}
			})
		}
		<-began
		<-began
		_, err := replicas[2].ChangeKey(t.Context(), operator, org, caller.ID, apikey.KeyRevoked, func(k *apikey.Key, now time.Time) error {
			rules.Revoke(k, "", now)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		ended := false
		for _, e := range replicas[2].events(t, 0) {
			if e.ResourceID == caller.ID && e.Type == apikey.KeyRevoked {
				ended = true
			}
			if ended && e.Actor.ID == caller.ID {
				t.Errorf("event %d is of a key that was revoked before", e.Position)
			}
		}
		if !ended {
			t.Error("no event of the revocation")
		}
	}
}

// TestPostgresPausedInTransaction has a server pause in the middle of a transaction that
// holds the counter of events: the changes of others wait until PostgreSQL has ended it.
func TestPostgresPausedInTransaction(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]map[string][]string{"direct": nil, "pooled": {"pgbouncer": {"true"}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := masked.New(postgresServer(t).copy(t, options))
			paused := openAndInitialize(t, store.Config{Postgres: database, Logger: quiet})
			other := openAndInitialize(t, store.Config{Postgres: database, Logger: quiet})
			held, err := paused.Writer().BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Rollback() // Its connection is gone.
			if _, err := held.ExecContext(t.Context(), "UPDATE revisions SET position = position"); err != nil {
				t.Fatal(err)
			}
			if _, err := other.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
				t.Errorf("the change of another server: %v", err)
			}
			if err := held.Commit(); err == nil {
				t.Error("the paused server has committed")
			}
			if _, err := paused.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
				t.Errorf("after it has woken: %v", err)
			}
		})
	}
}

// TestPostgresCounterLocked has another client hold the counter of events: changes are
// answered UNAVAILABLE, reads go on, and so do changes once the lock is released.
func TestPostgresCounterLocked(t *testing.T) {
	t.Parallel()
	database := postgresServer(t).copy(t, nil)
	s := openAndInitialize(t, store.Config{Postgres: masked.New(database), Logger: quiet})
	k, err := s.CreateKey(t.Context(), operator, benchmarkKey)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	other, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(ctx)
	if _, err := other.Exec(ctx, "BEGIN; SELECT * FROM revisions FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	_, err = s.CreateKey(t.Context(), operator, benchmarkKey)
	wantUnavailable(t, err)
	if _, err := s.Key(t.Context(), k.OrganizationID, k.ID); err != nil {
		t.Errorf("a read: %v", err)
	}
	if _, err := other.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
		t.Errorf("once the lock is released: %v", err)
	}
}

// TestPostgresRepeatedChange has one replica answer a change that another has made
// already: what the first has cached from before must go before its answer, as if it had
// made the change itself.
func TestPostgresRepeatedChange(t *testing.T) {
	replicas := openReplicas(t, 2)
	k := replicas[0].create(t, func(k *apikey.Key) { k.Label = "before" })
	var told []store.Commit
	replicas[0].OnCommit(func(c store.Commit) { told = append(told, c) })
	for i, f := range []*fixture{replicas[1], replicas[0]} {
		if _, err := f.update(t.Context(), k.ID, func(k *apikey.Key) { k.Label = "after" }); err != nil {
			t.Fatalf("replica %d: %v", i, err)
		}
	}
	events := replicas[0].events(t, 1)
	if len(events) != 1 {
		t.Fatalf("%d events of one change", len(events))
	}
	if len(told) != 1 || len(told[0].ChangedKeys) != 1 || told[0].ChangedKeys[0] != k.ID || told[0].Position != events[0].Position || told[0].First <= told[0].Position {
		t.Errorf("told %+v, want the key at %d and no event", told, events[0].Position)
	}
}
