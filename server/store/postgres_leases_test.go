package store_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
)

// openReplicas opens one new database n times. The ids of all ascend.
func openReplicas(tb testing.TB, n int) []*fixture {
	tb.Helper()
	database, ids := masked.New(postgresServer(tb).lend(tb, nil)), ascendingIDs()
	replicas := make([]*fixture, n)
	for i := range replicas {
		f := &fixture{clock: newClock(), log: new(bytes.Buffer)}
		f.Store = openAndInitialize(tb, store.Config{Postgres: database, Now: f.clock.Now, NewID: ids, Logger: quiet})
		replicas[i] = f
	}
	return replicas
}

// expireLeases ends every lease, as the time does whose holder is paused.
func (f *fixture) expireLeases(tb testing.TB) {
	tb.Helper()
	if _, err := f.Writer().ExecContext(tb.Context(), "UPDATE leases SET until = clock_timestamp() - interval '1 hour'"); err != nil {
		tb.Fatal(err)
	}
}

// take takes a free lease.
func (f *fixture) take(tb testing.TB, l *store.Lease) (token int64) {
	tb.Helper()
	token, err := l.Take(tb.Context())
	if err != nil || token == 0 {
		tb.Fatalf("token %d, %v", token, err)
	}
	return token
}

// TestPostgresLeaseIsOneHolders passes a lease from one store to another: when it is
// given up, and when it has ended. Its token grows each time.
func TestPostgresLeaseIsOneHolders(t *testing.T) {
	replicas := openReplicas(t, 2)
	a, b := replicas[0].Lease(store.LeaseJobs), replicas[1].Lease(store.LeaseJobs)
	free := func(l *store.Lease, want bool) {
		t.Helper()
		if token, err := l.Take(t.Context()); err != nil || (token != 0) != want {
			t.Errorf("token %d, %v, want a token: %t", token, err, want)
		}
	}
	first := replicas[0].take(t, a)
	free(b, false)
	free(a, false) // Not even its own holder begins another term.
	replicas[1].take(t, replicas[1].Lease(store.LeaseFanOut))
	if held, err := a.Renew(t.Context(), first); !held || err != nil {
		t.Errorf("renewed %t, %v", held, err)
	}
	a.GiveUp(t.Context(), first)
	second := replicas[1].take(t, b)
	if second <= first {
		t.Errorf("token %d after %d", second, first)
	}
	if held, err := a.Renew(t.Context(), first); held || err != nil {
		t.Errorf("the one before renewed %t, %v", held, err)
	}
	a.GiveUp(t.Context(), first) // It is no longer its own.
	free(a, false)
	replicas[0].expireLeases(t)
	if third := replicas[0].take(t, a); third <= second {
		t.Errorf("token %d after %d", third, second)
	}
}

// TestPostgresLeaseFences has a store that was paused past its lease go on: each kind of
// its work is refused and changes nothing, and the work of the new holder is not.
func TestPostgresLeaseFences(t *testing.T) {
	replicas := openReplicas(t, 2)
	paused, other := replicas[0], replicas[1]
	gone := paused.hook(t, nil)
	paused.create(t, nil) // with a delivery
	if err := paused.DeleteWebhook(t.Context(), operator, org, gone.ID); err != nil {
		t.Fatal(err)
	}
	paused.hook(t, nil)
	noticed, err := paused.tryCreate(t, t.Context(), func(k *apikey.Key) { k.ExpiresAt = paused.clock.stored().Add(time.Minute) })
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range replicas {
		f.clock.Advance(time.Hour)
	}
	works := map[string]func(ctx context.Context, f *fixture) error{
		"the fan-out": func(ctx context.Context, f *fixture) error {
			_, err := f.FanOut(ctx, org, time.Second)
			return err
		},
		"notices": func(ctx context.Context, f *fixture) error {
			_, _, err := f.PublishNotices(ctx, 10, rules.Notice)
			return err
		},
		"orphans": func(ctx context.Context, f *fixture) error {
			_, err := f.CancelOrphans(ctx, 10)
			return err
		},
	}
	state := func() string {
		var text strings.Builder
		for _, query := range []string{
			"SELECT position FROM revisions", "SELECT id, state FROM deliveries ORDER BY id", "SELECT * FROM fan_out_positions",
			"SELECT notice_at FROM api_keys WHERE id = '" + noticed.ID + "'",
		} {
			for _, row := range readRows(t, other.Reader(), query) {
				for _, value := range row {
					if bytes, ok := value.([]byte); ok {
						value = string(bytes)
					}
					text.WriteString(slog.AnyValue(value).String() + " ")
				}
				text.WriteByte('\n')
			}
		}
		return text.String()
	}
	lease := paused.Lease(store.LeaseJobs)
	stale := lease.Under(t.Context(), paused.take(t, lease))
	other.expireLeases(t)
	held := other.Lease(store.LeaseJobs)
	current := held.Under(t.Context(), other.take(t, held))
	for name, work := range works {
		before := state()
		// It wakes, and does not know that the time has passed.
		if err := work(context.WithoutCancel(stale), paused); !errors.Is(err, store.ErrLeaseLost) {
			t.Errorf("%s of a lost lease: %v", name, err)
		}
		if after := state(); after != before {
			t.Errorf("%s of a lost lease changed\n%s to\n%s", name, before, after)
		}
		if stale.Err() == nil {
			t.Errorf("%s of a lost lease goes on", name)
		}
		if err := work(current, other); err != nil {
			t.Errorf("%s under the lease: %v", name, err)
		}
		if after := state(); after == before {
			t.Errorf("%s under the lease changed nothing", name)
		}
	}
}

// TestPostgresLeaseStandsInTransaction ends a lease in the middle of a transaction under
// it: nobody takes it before the transaction ends, and its holder can still renew it.
func TestPostgresLeaseStandsInTransaction(t *testing.T) {
	replicas := openReplicas(t, 2)
	a, b := replicas[0].Lease(store.LeaseJobs), replicas[1].Lease(store.LeaseJobs)
	token := replicas[0].take(t, a)
	err := replicas[0].Write(a.Under(t.Context(), token), func(func(string) error) error {
		if held, err := a.Renew(t.Context(), token); !held || err != nil {
			t.Errorf("renewed %t, %v", held, err)
		}
		replicas[1].expireLeases(t)
		if taken, err := b.Take(t.Context()); taken != 0 || err != nil {
			t.Errorf("taken with token %d, %v", taken, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	replicas[1].take(t, b)
	if err := replicas[0].Write(a.Under(t.Context(), token), func(func(string) error) error { return nil }); !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("after another has taken it: %v", err)
	}
}

// TestPostgresLeaseRun has two servers that want to work: one does until it is stopped,
// or has lost the lease, and then the other does.
func TestPostgresLeaseRun(t *testing.T) {
	replicas := openReplicas(t, 2)
	working := make(chan int, 2)
	var leases [2]*store.Lease
	var stops [2]context.CancelFunc
	ended := make(chan int, 2)
	for i, f := range replicas {
		leases[i] = f.Lease(store.LeaseFanOut)
		ctx, cancel := context.WithCancel(t.Context())
		stops[i] = cancel
		go func() {
			leases[i].Run(ctx, func(ctx context.Context) {
				working <- i
				<-ctx.Done()
			})
			ended <- i
		}()
	}
	first := <-working
	second := 1 - first
	if !leases[first].Held() || leases[second].Held() {
		t.Error("not held by the one that works alone")
	}
	stops[first]()
	if i := <-ended; i != first {
		t.Fatalf("%d has ended", i)
	}
	if i := <-working; i != second || leases[first].Held() {
		t.Fatalf("%d works", i)
	}
	// The row passes on to one that is not there, and is left by it.
	if _, err := replicas[first].Writer().ExecContext(t.Context(), "UPDATE leases SET token = token + 1, holder = 'other', until = clock_timestamp()"); err != nil {
		t.Fatal(err)
	}
	if i := <-working; i != second {
		t.Fatalf("%d works", i)
	}
	stops[second]()
	<-ended
}

// TestPostgresLeaseNotRenewed ends the work of a server that cannot renew its lease.
func TestPostgresLeaseNotRenewed(t *testing.T) {
	t.Parallel()
	f := openReplicas(t, 1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	lost := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Lease(store.LeaseJobs).Run(ctx, func(work context.Context) {
			if err := f.CloseLeases(); err != nil {
				t.Error(err)
			}
			<-work.Done()
			lost <- context.Cause(work)
			cancel()
		})
	}()
	if err := <-lost; !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("the work has ended with %v", err)
	}
	<-done
}
