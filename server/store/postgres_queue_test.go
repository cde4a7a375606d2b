package store_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// openQueueReplicas opens n stores of one database. Their leases are by the database's clock,
// whatever their own clocks say.
func openQueueReplicas(t *testing.T, n int) []*fixture {
	t.Helper()
	url, clock := masked.New(postgresServer(t).lend(t, nil)), newClock()
	clock.Advance(time.Since(clock.Now()))
	ids, log := ascendingIDs(), new(bytes.Buffer)
	replicas := make([]*fixture, n)
	for i := range replicas {
		s := openAndInitialize(t, store.Config{Postgres: url, NewID: ids, Logger: slog.New(slog.NewTextHandler(log, nil))})
		replicas[i] = &fixture{Store: s, clock: clock, log: log}
	}
	return replicas
}

// claimNow claims up to n deliveries of each webhook.
func (f *fixture) claimNow(t *testing.T, lease string, length time.Duration, n int, ids ...string) []webhook.Claim {
	t.Helper()
	picks := make([]webhook.Pick, len(ids))
	for i, id := range ids {
		picks[i] = webhook.Pick{WebhookID: id, Max: n}
	}
	claims, _, err := f.Claim(t.Context(), picks, lease, length)
	if err != nil {
		t.Error(err)
	}
	return claims
}

// result is what came of the attempt of a claim, now.
func (f *fixture) result(c *webhook.Claim, o webhook.Outcome) webhook.Result {
	r := c.Result()
	r.StartedAt, r.EndedAt, r.Outcome = f.Now(), f.Now(), o
	return r
}

// TestReplicasClaim has three servers empty one queue together, each with several claims
// at a time: nothing is sent twice, nothing is lost, and however much waits for one
// webhook, a claim has its share of each other that has anything.
func TestReplicasClaim(t *testing.T) {
	const each, busy = 6, 200
	replicas := openQueueReplicas(t, 3)
	f := replicas[0]
	var ids []string
	for range 5 {
		ids = append(ids, f.hook(t, nil).ID)
	}
	for range each {
		f.create(t, nil)
	}
	if err := f.CopyDeliveries(t.Context(), busy); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	attempts, mixed := make(map[string]int), 0
	var wg sync.WaitGroup
	for i, f := range replicas {
		for j := range 3 {
			wg.Go(func() {
				for n := 0; ; n++ {
					claims := f.claimNow(t, fmt.Sprint(i, j, n), time.Minute, 2, ids...)
					if len(claims) == 0 {
						return
					}
					of, results := make(map[string]int), make([]webhook.Result, len(claims))
					for k := range claims {
						of[claims[k].Delivery.WebhookID]++
						results[k] = f.result(&claims[k], webhook.Outcome{Status: 200})
					}
					settled, err := f.Settle(context.WithoutCancel(t.Context()), results, hookRules, steady)
					if err != nil || len(settled.Deliveries) != len(claims) {
						t.Errorf("%d of %d settled: %v", len(settled.Deliveries), len(claims), err)
					}
					mu.Lock()
					for k := range claims {
						attempts[claims[k].Delivery.ID]++
					}
					if len(of) > 1 {
						mixed++
					}
					if most := slices.Max(slices.Collect(maps.Values(of))); most > 2 {
						t.Errorf("%d of one webhook", most)
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	for id, n := range attempts {
		if n != 1 {
			t.Errorf("%s was taken %d times", id, n)
		}
	}
	if want := len(ids)*each + busy; len(attempts) != want || mixed < each/2 {
		t.Errorf("%d of %d were taken; %d claims were of several webhooks", len(attempts), want, mixed)
	}
	for _, d := range f.deliveries(t, store.DeliveryFilter{}) {
		if d.State != webhook.StateDelivered || d.Attempts != 1 {
			t.Errorf("%s is %s after %d attempts", d.ID, d.State, d.Attempts)
		}
	}
}

// TestReplicaHoldsLeases has one server start, and others with clocks gone wrong claim,
// while one has deliveries under way: they are its own until its leases end by the
// database's clock.
func TestReplicaHoldsLeases(t *testing.T) {
	replicas := openQueueReplicas(t, 3)
	holder, fast, slow := replicas[0], replicas[1], replicas[2]
	for f, off := range map[*fixture]time.Duration{fast: 10 * time.Minute, slow: -10 * time.Minute} {
		if err := f.SetClock(t.Context(), func() time.Time { return time.Now().Add(off) }); err != nil {
			t.Fatal(err)
		}
	}
	w := holder.hook(t, nil)
	holder.create(t, nil)
	if claims := holder.claimNow(t, "held", time.Minute, 8, w.ID); len(claims) != 1 {
		t.Fatalf("%d claims", len(claims))
	}
	for name, f := range map[string]*fixture{"fast": fast, "slow": slow} {
		if err := f.VoidLeases(t.Context()); err != nil {
			t.Error(err)
		}
		if claims := f.claimNow(t, "other", time.Minute, 8, w.ID); len(claims) != 0 {
			t.Errorf("the %s one took %d that are held", name, len(claims))
		}
		due, err := f.Due(t.Context())
		if left := due[w.ID].Sub(f.Now()); err != nil || left < 50*time.Second || left > time.Minute {
			t.Errorf("the %s one may have it in %v, %v", name, left, err)
		}
	}
	// What one makes is due at once for the others, and so is what it tries again.
	for _, pair := range [][2]*fixture{{fast, slow}, {slow, holder}, {holder, fast}} {
		maker, taker := pair[0], pair[1]
		maker.create(t, nil)
		claims := taker.claimNow(t, "taker", time.Minute, 8, w.ID)
		if len(claims) != 1 {
			t.Fatalf("%d claims", len(claims))
		}
		now := webhook.Backoff{Delays: []time.Duration{0, 0}, Rand: func() float64 { return 0 }}
		if _, err := taker.Settle(t.Context(), []webhook.Result{taker.result(&claims[0], failed)}, hookRules, now); err != nil {
			t.Fatal(err)
		}
		claims = maker.claimNow(t, "again", time.Minute, 8, w.ID)
		if len(claims) != 1 {
			t.Fatalf("%d claims of what failed", len(claims))
		}
		if err := maker.Release(t.Context(), "again", []string{claims[0].Delivery.ID}); err != nil {
			t.Fatal(err)
		}
		if claims = taker.claimNow(t, "released", time.Minute, 8, w.ID); len(claims) != 1 {
			t.Fatalf("%d claims of what was given back", len(claims))
		}
	}
}

// TestReplicaPaused has a server stand still until its leases have ended and another has
// sent what it held: once awake it settles nothing of that, and neither the delivery nor
// the health of the endpoint hears of its attempts.
func TestReplicaPaused(t *testing.T) {
	replicas := openQueueReplicas(t, 2)
	paused, other := replicas[0], replicas[1]
	w := paused.hook(t, nil)
	for range 3 {
		paused.create(t, nil)
	}
	// Leases without a length end at once.
	stale := paused.claimNow(t, "stale", 0, 8, w.ID)
	taken := other.claimNow(t, "taken", time.Minute, 2, w.ID)
	if len(stale) != 3 || len(taken) != 2 {
		t.Fatalf("%d and %d claims", len(stale), len(taken))
	}
	done := other.result(&taken[0], webhook.Outcome{Status: 200})
	if settled, err := other.Settle(t.Context(), []webhook.Result{done}, hookRules, steady); err != nil || len(settled.Deliveries) != 1 {
		t.Fatalf("settled %+v, %v", settled, err)
	}
	var results []webhook.Result
	for i := range stale {
		results = append(results, paused.result(&stale[i], failed))
	}
	settled, err := paused.Settle(t.Context(), results, hookRules, steady)
	// The third is still nobody else's.
	if err != nil || len(settled.Deliveries) != 1 || settled.Deliveries[0].ID != stale[2].Delivery.ID {
		t.Errorf("settled %+v, %v", settled, err)
	}
	if err := paused.Release(t.Context(), "stale", []string{taken[1].Delivery.ID}); err != nil {
		t.Fatal(err)
	}
	if claims := paused.claimNow(t, "more", time.Minute, 8, w.ID); len(claims) != 0 {
		t.Errorf("took %d that another holds", len(claims))
	}
	for i, want := range []int{1, 0, 1} {
		shown, err := paused.Delivery(t.Context(), org, stale[i].Delivery.ID)
		d, attempts := shown.Delivery, shown.Attempts
		if err != nil || d.Attempts != want || len(attempts) != want {
			t.Errorf("delivery %d has %d attempts, and %d in its log: %v", i, d.Attempts, len(attempts), err)
		}
	}
}

// TestReplicasSettleHealth has two servers settle attempts to one endpoint at the same
// time: it fails from the first failure on, recovers with a success of either, and what
// waits is counted right.
func TestReplicasSettleHealth(t *testing.T) {
	replicas := openQueueReplicas(t, 2)
	f := replicas[0]
	w := f.hook(t, nil)
	const each = 10
	for range 2 * each {
		f.create(t, nil)
	}
	both := func(outcome webhook.Outcome, n int) (changed []webhook.HealthChange) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i, f := range replicas {
			wg.Go(func() {
				for j := range n {
					claims := f.claimNow(t, fmt.Sprint(outcome.Status, i, j), time.Minute, 1, w.ID)
					if len(claims) != 1 {
						t.Errorf("%d claims", len(claims))
						return
					}
					settled, err := f.Settle(context.WithoutCancel(t.Context()), []webhook.Result{f.result(&claims[0], outcome)}, hookRules, steady)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					changed = append(changed, settled.Changed...)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return changed
	}
	pending := func(want int, state webhook.HealthState) {
		t.Helper()
		got, err := f.Webhook(t.Context(), org, w.ID)
		if err != nil {
			t.Fatal(err)
		}
		n, err := replicas[1].Pending(t.Context(), w.ID, 1000)
		if err != nil || n != want || got.Health.State() != state {
			t.Errorf("%d pending, %s, %v; want %d, %s", n, got.Health.State(), err, want, state)
		}
	}
	if changed := both(failed, each/2); len(changed) != 1 || changed[0].State != webhook.HealthFailing {
		t.Errorf("changed %+v", changed)
	}
	pending(2*each, webhook.HealthFailing)
	if changed := both(webhook.Outcome{Status: 200}, each/2); len(changed) != 1 || changed[0].State != webhook.HealthHealthy {
		t.Errorf("changed %+v", changed)
	}
	pending(each, webhook.HealthHealthy)
	// What waits for its next attempt goes on when a caller wishes it.
	if _, _, err := f.RetryDeliveries(t.Context(), &apikey.Caller{Organization: org, Rights: apikey.AllRights()}, org, w.ID, []webhook.DeliveryState{webhook.StatePending}, 0, 100); err != nil {
		t.Fatal(err)
	}
	both(webhook.Outcome{Status: 200}, each/2)
	pending(0, webhook.HealthHealthy)
}
