package verify

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

func TestQuotaToTheLastUnit(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 1000, apikey.RefillNone, apikey.RateLimit{})
	for i := range int64(1000) {
		got := ask(t, r.harness, Request{Secret: secret, Cost: 1})
		want := apikey.QuotaStatus{Limit: 1000, Remaining: 999 - i}
		if got.Code != apikey.CodeValid || got.Quota != want {
			t.Fatalf("call %d: %s, %+v", i, got.Code, got.Quota)
		}
	}
	asked := r.quotas.count()
	got := ask(t, r.harness, Request{Secret: secret, Cost: 1})
	if got.Code != apikey.CodeQuotaExceeded || got.RetryAfter != 0 || got.Usage.TotalRequests != 1000 {
		t.Errorf("%s, retry after %v, %+v", got.Code, got.RetryAfter, got.Usage)
	}
	wantCode(t, r.harness, Request{Secret: secret, Cost: 0}, apikey.CodeValid)
	if r.spend(t, secret, 100, 1) != 0 || r.quotas.count() != asked {
		t.Errorf("an empty budget was asked for again, %d times", r.quotas.count()-asked)
	}
	if asked > 150 || r.quotas.remaining(k.ID) != 0 {
		t.Errorf("%d transactions for 1,000 calls, %d left", asked, r.quotas.remaining(k.ID))
	}
}

// N calls at once on a quota of M: exactly min(N, M) are valid, and so again when
// the server has crashed in between, less what it held.
func TestConcurrentQuota(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ callers, limit, cost, want int }{
		{2000, 200, 1, 200}, {200, 2000, 1, 200}, {500, 500, 1, 500}, {500, 1000, 7, 142}, {64, 1, 1, 1}, {64, 3, 0, 64},
	} {
		r := newQuotaHarness(t)
		k, secret := r.create(t, int64(c.limit), apikey.RefillDaily, apikey.RateLimit{})
		var valid, refused atomic.Int64
		var group sync.WaitGroup
		for range c.callers {
			group.Go(func() {
				switch got := ask(t, r.harness, Request{Secret: secret, Cost: c.cost}); got.Code {
				case apikey.CodeValid:
					valid.Add(1)
				case apikey.CodeQuotaExceeded:
					refused.Add(1)
				default:
					t.Errorf("code %s", got.Code)
				}
			})
		}
		group.Wait()
		if int(valid.Load()) != c.want || int(refused.Load()) != c.callers-c.want {
			t.Errorf("%+v: %d valid, %d refused", c, valid.Load(), refused.Load())
		}
		k.Quota = r.quotas.byID[k.ID]
		if r.FillRemaining(&k); k.Quota.Remaining != int64(c.limit-c.want*c.cost) {
			t.Errorf("%+v: %d remain", c, k.Quota.Remaining)
		}
	}
}

// However calls, crashes, stops, refills, evictions and updates follow each other:
// no period grants more than was set, and without a crash not less.
func TestQuotaNeverOverspends(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		r := newQuotaHarness(t)
		k, secret := r.create(t, rapid.Int64Range(1, 300).Draw(rt, "limit"), apikey.RefillDaily, apikey.RateLimit{})
		left, crashed := k.Quota.Limit, false
		check := func(n, cost int) {
			before := left
			for range n {
				got := ask(t, r.harness, Request{Secret: secret, Cost: cost})
				if got.Code == apikey.CodeValid {
					left -= int64(cost)
				} else if left >= int64(cost) && !crashed {
					rt.Fatalf("refused with %d left", left)
				}
				if left < 0 {
					rt.Fatalf("%d spent of %d", before-left, before)
				}
				if !crashed && got.Quota.Remaining != left {
					rt.Fatalf("told %d, left are %d", got.Quota.Remaining, left)
				}
			}
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			switch rapid.IntRange(0, 7).Draw(rt, "step") {
			case 0, 1, 2:
				check(rapid.IntRange(1, 40).Draw(rt, "calls"), rapid.IntRange(0, int(min(k.Quota.Limit, 5))).Draw(rt, "cost"))
			case 3:
				r.restart(t)
				crashed = true
			case 4: // a clean stop
				r.RefundAll(t.Context())
				r.restart(t)
			case 5:
				r.clock.Advance(time.Duration(rapid.IntRange(1, 30).Draw(rt, "hours")) * time.Hour)
				if now := k.Quota.At(r.clock.Now()); !now.RefilledAt.Equal(r.quotas.byID[k.ID].RefilledAt) && !now.RefilledAt.Equal(k.Quota.RefilledAt) {
					left, crashed = k.Quota.Limit, false
				}
				k.Quota = k.Quota.At(r.clock.Now())
			case 6:
				r.keys.change(r.harness, k)
				if err := r.Flush(t.Context()); err != nil {
					rt.Fatal(err)
				}
				r.Sweep(t.Context())
			case 7:
				r.set(t, &k, func(q *apikey.Quota) {
					*q = q.At(r.clock.Now())
					q.Limit = rapid.Int64Range(1, 300).Draw(rt, "new limit")
					q.Remaining = rapid.Int64Range(0, q.Limit).Draw(rt, "remaining")
				})
				left, crashed = k.Quota.Remaining, false
			}
		}
		check(400, 1)
	})
}

// The limit that refuses leaves the other whole.
func TestRefusalsSpendNothing(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 5, apikey.RefillNone, apikey.RateLimit{Requests: 3, WindowSeconds: 60})
	if r.spend(t, secret, 3, 1) != 3 {
		t.Fatal("not all were valid")
	}
	asked := r.quotas.count()
	for range 4 {
		got := ask(t, r.harness, Request{Secret: secret, Cost: 1})
		if got.Code != apikey.CodeRateLimited || got.Quota.Remaining != 2 || got.Limit.Remaining != 0 {
			t.Errorf("%s, %+v, %+v", got.Code, got.Quota, got.Limit)
		}
	}
	if r.quotas.count() != asked {
		t.Error("a refused call reserved units")
	}
	r.clock.Advance(time.Minute)
	for range 4 { // 3 fit into the rate limit, 2 into the quota
		got := ask(t, r.harness, Request{Secret: secret, Cost: 3})
		if got.Code != apikey.CodeQuotaExceeded || got.Quota.Remaining != 2 || got.Limit.Remaining != 3 {
			t.Errorf("%s, %+v, %+v", got.Code, got.Quota, got.Limit)
		}
	}
	if got := ask(t, r.harness, Request{Secret: secret, Cost: 2}); got.Code != apikey.CodeValid || got.Quota.Remaining != 0 || got.Limit.Remaining != 1 {
		t.Errorf("%s, %+v, %+v", got.Code, got.Quota, got.Limit)
	}
	r.keys.change(r.harness, k)
	if got := ask(t, r.harness, Request{Secret: secret, Cost: 1}); got.Code != apikey.CodeQuotaExceeded {
		t.Errorf("an eviction made it %s", got.Code)
	}
	if _, err := r.Verify(t.Context(), Request{Secret: secret, Cost: 6}); apikey.AsError(err) == nil {
		t.Errorf("a cost above the limits: %v", err)
	}
}

// The answer says when to come back, and then it is so.
func TestRefill(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	_, secret := r.create(t, 10, apikey.RefillDaily, apikey.RateLimit{})
	if r.spend(t, secret, 30, 1) != 10 {
		t.Error("not 10")
	}
	got := ask(t, r.harness, Request{Secret: secret, Cost: 1})
	if want := noon.Add(12 * time.Hour); got.RetryAfter != 12*time.Hour || !got.Quota.RefillAt.Equal(want) {
		t.Errorf("retry after %v, refilled at %v", got.RetryAfter, got.Quota.RefillAt)
	}
	r.clock.Advance(12*time.Hour - time.Nanosecond)
	wantCode(t, r.harness, Request{Secret: secret, Cost: 1}, apikey.CodeQuotaExceeded)
	r.clock.Advance(time.Nanosecond)
	if got := ask(t, r.harness, Request{Secret: secret, Cost: 0}).Quota.Remaining; got != 10 {
		t.Errorf("%d after the refill", got)
	}
	if r.spend(t, secret, 5, 1) != 5 {
		t.Error("not 5")
	}
	r.clock.Advance(48 * time.Hour) // what is left of a period is not carried over
	if r.spend(t, secret, 30, 1) != 10 {
		t.Error("not 10 again")
	}
	r.clock.Advance(-36 * time.Hour) // a clock that is set back refills nothing
	if r.spend(t, secret, 30, 1) != 0 {
		t.Error("refilled by a clock that was set back")
	}
}

// Both secrets of a rotation spend one budget, and rotation changes nothing of it.
func TestQuotaOutlivesRotation(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, first := r.create(t, 10, apikey.RefillNone, apikey.RateLimit{})
	if r.spend(t, first, 4, 1) != 4 {
		t.Fatal("not 4")
	}
	second := newSecret(t)
	k.Previous, k.PreviousExpiresAt = k.Secret, noon.Add(time.Hour)
	k.Secret = apikey.StoredSecret{Hash: r.keys.peppers.Hash(0, second), Mask: "mask"}
	r.keys.change(r.harness, k)
	valid := 0
	for range 10 {
		valid += r.spend(t, first, 1, 1) + r.spend(t, second, 1, 1)
	}
	if valid != 6 {
		t.Errorf("%d more", valid)
	}
}

// An update takes back what is held, so that storage has all of it, and what is
// set holds for every call that comes after.
func TestQuotaIsSet(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 1000, apikey.RefillNone, apikey.RateLimit{})
	r.spend(t, secret, 10, 1)
	r.set(t, &k, func(q *apikey.Quota) {
		if q.Remaining != 990 {
			t.Errorf("the update finds %d", q.Remaining)
		}
		q.Limit, q.Remaining = 20, 20
	})
	if got := r.spend(t, secret, 50, 1); got != 20 {
		t.Errorf("%d after the limit was lowered", got)
	}
	r.set(t, &k, func(q *apikey.Quota) { q.Remaining = 7 })
	if got := r.spend(t, secret, 50, 1); got != 7 {
		t.Errorf("%d after it was topped up", got)
	}
	r.set(t, &k, func(q *apikey.Quota) { *q = apikey.Quota{} })
	if got := ask(t, r.harness, Request{Secret: secret, Cost: 100}); got.Code != apikey.CodeValid || got.Quota != (apikey.QuotaStatus{}) {
		t.Errorf("without a quota %s, %+v", got.Code, got.Quota)
	}
}

// Calls while a quota is set and set again: each setting grants what it says at
// most, and the last one to its last unit.
func TestQuotaIsSetUnderLoad(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 50, apikey.RefillNone, apikey.RateLimit{})
	var valid atomic.Int64
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					valid.Add(int64(r.spend(t, secret, 1, 1)))
				}
			}
		})
	}
	granted := int64(50)
	for range 20 {
		r.set(t, &k, func(q *apikey.Quota) { granted += 50 - q.Remaining; q.Remaining = 50 })
	}
	close(stop)
	callers.Wait()
	valid.Add(int64(r.spend(t, secret, 100, 1)))
	if valid.Load() != granted {
		t.Errorf("%d valid of %d granted", valid.Load(), granted)
	}
}

// An entry that was read before the quota was set is found out by storage and read
// anew.
func TestStaleQuota(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 10, apikey.RefillNone, apikey.RateLimit{})
	wantCode(t, r.harness, Request{Secret: secret, Cost: 0}, apikey.CodeValid) // in the cache, nothing reserved
	k.Quota.Epoch, k.Quota.Limit, k.Quota.Remaining = 2, 3, 3
	r.quotas.byID[k.ID] = k.Quota
	r.keys.put(k) // as another server does it
	if got := r.spend(t, secret, 10, 1); got != 3 {
		t.Errorf("%d valid", got)
	}
	delete(r.quotas.byID, k.ID) // deleted elsewhere
	r.keys.mu.Lock()
	delete(r.keys.byID, k.ID)
	r.keys.mu.Unlock()
	r.clock.Advance(11 * time.Second)
	wantCode(t, r.harness, Request{Secret: secret, Cost: 1}, apikey.CodeNotFound)
}

// A storage that fails refuses nobody and lets nobody through: it is an error, and
// what was reserved before can still be spent.
func TestQuotaStorageFails(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 1000, apikey.RefillNone, apikey.RateLimit{})
	wantCode(t, r.harness, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
	r.quotas.broken = errBroken
	held := apikey.Block(1, 1000) - 1
	if got := r.spend(t, secret, int(held), 1); got != int(held) {
		t.Errorf("%d of %d held", got, held)
	}
	for range 2 {
		_, err := r.Verify(t.Context(), Request{Secret: secret, Cost: 1})
		if wantUnavailable(t, err); !errors.Is(err, errBroken) {
			t.Errorf("err = %v", err)
		}
	}
	r.quotas.broken = nil
	wantCode(t, r.harness, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
	r.quotas.broken = errBroken
	if _, err := r.PauseQuota(t.Context(), k.ID); !errors.Is(err, errBroken) {
		t.Errorf("drain: %v", err)
	}
	r.quotas.broken = nil
	wantCode(t, r.harness, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
}

// A caller that gives up while units are reserved has spent none of them.
func TestQuotaCallerGivesUp(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 10, apikey.RefillNone, apikey.RateLimit{})
	gate := make(chan struct{})
	began := make(chan struct{}, 10)
	r.quotas.onAsk = func() { began <- struct{}{}; <-gate }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.Verify(ctx, Request{Secret: secret, Cost: 1})
		done <- err
	}()
	<-began
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	close(gate)
	if got := r.spend(t, secret, 20, 1); got != 10 {
		t.Errorf("%d valid", got)
	}
	if r.quotas.remaining(k.ID) != 0 {
		t.Error("something is left")
	}
}

// A clean stop gives everything back; what was held through a crash is lost and
// never granted again.
func TestQuotaAtTheEnd(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 1000, apikey.RefillNone, apikey.RateLimit{})
	r.spend(t, secret, 10, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := r.quotas.remaining(k.ID); got != 990 {
		t.Errorf("%d are stored after a stop", got)
	}
	r.restart(t)
	r.spend(t, secret, 1, 1)
	stored := r.quotas.remaining(k.ID)
	r.restart(t)
	if got := r.spend(t, secret, 2000, 1); int64(got) != stored {
		t.Errorf("%d valid after a crash that left %d", got, stored)
	}
}
