package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

func TestCounting(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{Scopes: apikey.Scopes{"events.read"}}, 0)
	for i := range 3 {
		clock.Advance(time.Second)
		want := apikey.Usage{TotalRequests: int64(i + 1), LastUsedAt: clock.Now()}
		if diff := cmp.Diff(want, ask(t, v, Request{Secret: secret, Cost: 1}).Usage); diff != "" {
			t.Error(diff)
		}
	}
	// A refusal is not counted, and a clock that steps back does not take the last
	// use back.
	last := clock.Now()
	clock.Advance(time.Second)
	if got := ask(t, v, Request{Secret: secret, Scopes: []string{"x"}, Cost: 1}); got.Usage.TotalRequests != 3 || got.Code == apikey.CodeValid {
		t.Errorf("%s, %+v", got.Code, got.Usage)
	}
	clock.Advance(-time.Hour)
	ask(t, v, Request{Secret: secret, Cost: 1})
	for range 2 { // the second has nothing to store
		if err := v.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(apikey.Usage{TotalRequests: 4, LastUsedAt: last}, keys.totals[k.ID]); diff != "" {
			t.Error(diff)
		}
	}
	// What an eviction drops is read again with what is counted meanwhile.
	keys.change(v, k)
	if got := ask(t, v, Request{Secret: secret, Cost: 1}).Usage.TotalRequests; got != 5 {
		t.Errorf("%d in all", got)
	}
}

// Uses of a previous secret are counted for it too, until a rotation ends it; then
// none of them is mixed with those of the next.
func TestCountingPreviousSecret(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{}, 0)
	secrets := []string{secret}
	rotate := func() {
		secrets = append(secrets, newSecret(t))
		stored := apikey.StoredSecret{Hash: keys.peppers.Hash(0, secrets[len(secrets)-1]), Mask: "mask"}
		k.EndPrevious()
		if err := (apikey.Rules{}).Rotate(&k, apikey.DefaultKeyFormats()[0], stored, time.Hour, clock.Now()); err != nil {
			t.Fatal(err)
		}
		keys.change(v, k)
	}
	use := func(secret int, want apikey.PreviousUsage) {
		t.Helper()
		clock.Advance(time.Second)
		if !want.LastUsedAt.IsZero() {
			want.LastUsedAt = clock.Now()
		}
		got := ask(t, v, Request{Secret: secrets[secret], Cost: 1})
		if diff := cmp.Diff(want, got.Usage.Previous); diff != "" || got.Code != apikey.CodeValid {
			t.Errorf("%s: %s", got.Code, diff)
		}
		ask(t, v, Request{Secret: secrets[secret]}) // a cost of zero is no use
	}
	flush := func(want int64) {
		t.Helper()
		if err := v.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := keys.totals[k.ID].Previous; got.Rotation != k.Rotations || got.Requests != want {
			t.Errorf("stored %+v, want %d", got, want)
		}
	}
	use(0, apikey.PreviousUsage{})
	rotate()
	used := clock.Now()
	use(0, apikey.PreviousUsage{Rotation: 1, Requests: 1, LastUsedAt: used})
	flush(1)
	use(0, apikey.PreviousUsage{Rotation: 1, Requests: 2, LastUsedAt: used})
	keys.setOnAdd(func(context.Context, []apikey.UsageCount) (int, error) { return 0, errBroken })
	if err := v.Flush(t.Context()); err == nil {
		t.Error("a broken flush went well")
	}
	keys.setOnAdd(nil)
	flush(2)
	use(0, apikey.PreviousUsage{Rotation: 1, Requests: 3, LastUsedAt: used}) // and not stored before the rotation
	rotate()
	use(1, apikey.PreviousUsage{Rotation: 2, Requests: 1, LastUsedAt: used})
	wantCode(t, v, Request{Secret: secrets[0], Cost: 1}, apikey.CodeNotFound)
	flush(1)
	if got := keys.totals[k.ID].TotalRequests; got != 5 {
		t.Errorf("%d in all", got)
	}
}

// What a flush could not store is kept, what it stored is not stored again, and
// what is counted meanwhile is lost to neither.
func TestFlushPartialFailure(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	v := newVerifier(t, keys, nil)
	secrets := make([]string, 10)
	for i := range secrets {
		_, secrets[i] = keys.create(t, apikey.Key{}, 0)
	}
	use := func() {
		for i, secret := range secrets {
			for range i + 1 {
				wantCode(t, v, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
			}
		}
	}
	use()
	for stored := range len(secrets) {
		keys.onAdd = func(_ context.Context, counts []apikey.UsageCount) (int, error) {
			seen := make(map[string]bool)
			for _, c := range counts {
				if c.Count < 1 || seen[c.KeyID] {
					t.Errorf("%d to add to %s, seen before: %t", c.Count, c.KeyID, seen[c.KeyID])
				}
				seen[c.KeyID] = true
			}
			use()
			stored := min(stored, len(counts))
			return keys.store(counts[:stored]), errBroken
		}
		if err := v.Flush(t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("Flush = %v", err)
		}
	}
	keys.onAdd = nil
	if err := v.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, want := keys.sum(), int64((len(secrets)+1)*len(secrets)*(len(secrets)+1)/2)
	if got != want {
		t.Errorf("%d stored of %d", got, want)
	}
}

func (f *fakeKeys) sum() (total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range f.totals {
		total += u.TotalRequests
	}
	return total
}

// A state whose counts are in a flush under way is not forgotten: if the flush
// fails, they are needed, and a second state of the key would be in the batch
// beside it.
func TestSweepDuringFlush(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{}, 0)
	wantCode(t, v, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
	keys.change(v, k)
	keys.onAdd = func(context.Context, []apikey.UsageCount) (int, error) {
		v.Sweep(t.Context())
		if got := ask(t, v, Request{Secret: secret, Cost: 1}).Usage.TotalRequests; got != 2 {
			t.Errorf("%d in all", got)
		}
		return 0, errBroken
	}
	if err := v.Flush(t.Context()); err == nil {
		t.Error("Flush succeeded")
	}
	keys.onAdd = nil
	if err := v.Flush(t.Context()); err != nil || keys.sum() != 2 {
		t.Errorf("Flush = %v, %d stored", err, keys.sum())
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{RateLimit: apikey.RateLimit{Requests: 2, WindowSeconds: 60}}, 0)
	kept := func(step string, want bool) {
		t.Helper()
		v.Sweep(t.Context())
		if kept := v.Len() == 1; kept != want {
			t.Errorf("%s: counters kept = %t", step, kept)
		}
	}
	wantCode(t, v, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
	clock.Advance(time.Hour)
	kept("cached", true)
	keys.change(v, k)
	kept("not stored", true)
	if err := v.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, v, Request{Secret: secret, Cost: 2}, apikey.CodeValid)
	if err := v.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys.change(v, k)
	kept("half of the burst", true)
	// An eviction is no way to a second budget.
	wantCode(t, v, Request{Secret: secret, Cost: 1}, apikey.CodeRateLimited)
	if err := v.Flush(t.Context()); err != nil { // what was refused is counted too
		t.Fatal(err)
	}
	keys.change(v, k)
	clock.Advance(time.Minute - time.Microsecond)
	kept("all but a little", true)
	clock.Advance(time.Microsecond)
	kept("all of it", false)
}

// A call that found its entry before the sweep goes on with the state that took
// the place of its own, from the count where that one was.
func TestGoneState(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{}, 0)
	wantCode(t, v, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
	wantCode(t, v, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
	e, _ := v.cached(secret)
	keys.change(v, k)
	if err := v.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Sweep(t.Context())
	for i := range 2 {
		var got apikey.Verification
		asked := (&Request{Secret: secret, Cost: 1}).as(verification)
		_, err := v.checkAndCharge(e, clock.Now(), &asked, &got)
		if err != nil || got.Usage.TotalRequests != int64(i+3) {
			t.Errorf("%+v, %v", got.Usage, err)
		}
	}
	if err := v.Flush(t.Context()); err != nil || keys.sum() != 4 {
		t.Errorf("Flush = %v, %d stored", err, keys.sum())
	}
}

// Calls, evictions, flushes that fail and sweeps, all at once: every valid call
// is counted once, and never is there more than one budget.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	const budget = 1500
	k, secret := keys.create(t, apikey.Key{RateLimit: apikey.RateLimit{Requests: budget, WindowSeconds: 86_400}}, 0)
	free, unlimited := keys.create(t, apikey.Key{}, 0)
	turn := 0
	keys.onAdd = func(_ context.Context, counts []apikey.UsageCount) (int, error) {
		if turn++; turn%2 == 0 {
			return keys.store(counts[:len(counts)/2]), fmt.Errorf("flush %d: %w", turn, errBroken)
		}
		return keys.store(counts), nil
	}
	var mu sync.Mutex
	var passed, unlimitedPassed int
	stop := make(chan struct{})
	var callers, others sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range budget / 2 {
				r := ask(t, v, Request{Secret: secret, Cost: 1})
				u := ask(t, v, Request{Secret: unlimited, Cost: 1})
				mu.Lock()
				if r.Code == apikey.CodeValid {
					passed++
				}
				if u.Code == apikey.CodeValid {
					unlimitedPassed++
				}
				mu.Unlock()
			}
		})
	}
	loop := func(f func()) {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f()
				}
			}
		})
	}
	loop(func() { keys.change(v, k); keys.change(v, free) })
	loop(func() { v.Sweep(t.Context()) })
	loop(func() { _ = v.Flush(context.Background()) })
	callers.Wait()
	close(stop)
	others.Wait()
	keys.onAdd = nil
	if err := v.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if passed != budget || keys.totals[k.ID].TotalRequests != budget {
		t.Errorf("%d passed and %d are counted, on a budget of %d", passed, keys.totals[k.ID].TotalRequests, budget)
	}
	if got := keys.totals[free.ID].TotalRequests; got != int64(unlimitedPassed) || unlimitedPassed != 2*budget {
		t.Errorf("%d passed without a limit, %d are counted", unlimitedPassed, got)
	}
}
