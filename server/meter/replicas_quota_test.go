package meter

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Three servers never spend more of a quota than there is in a period, and once they
// have given back what they hold, or none has crashed, nothing of it is missing.
func TestQuotaOfReplicas(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.OneOf(rapid.Int64Range(1, 40), rapid.Int64Range(1, 5000)).Draw(t, "limit")
		quota := apikey.Quota{Limit: limit, Remaining: limit, Refill: apikey.RefillDaily, Epoch: 1}
		quota.RefilledAt = quota.PeriodStart(noon)
		key := apikey.Key{Quota: quota}
		r := newReplicas(key, noon)
		replica := rapid.IntRange(0, len(r.all)-1)
		crashed := false
		call := func(t *rapid.T) {
			v, done := r.call(replica.Draw(t, "replica"), int(rapid.Int64Range(0, min(limit, 50)).Draw(t, "cost")))
			if done && v.Key != nil && (v.Quota.Remaining < 0 || v.Quota.Remaining > limit) {
				t.Fatalf("%+v", v.Quota)
			}
		}
		inPeriod := func() (units int64) {
			for _, s := range r.spent {
				if quota.PeriodStart(s.at).Equal(quota.PeriodStart(r.clock.Now())) {
					units += s.units
				}
			}
			return units
		}
		t.Repeat(map[string]func(*rapid.T){
			"call": call, "call again": call, "and again": call,
			"pause":     func(t *rapid.T) { r.clock.Advance(time.Duration(rapid.IntRange(0, 7).Draw(t, "hours")) * time.Hour) },
			"give back": func(t *rapid.T) { r.all[replica.Draw(t, "replica")].ReturnIdle(context.Background()) },
			"lost answer": func(*rapid.T) {
				r.store.loseNext()
				crashed = true
			},
			"crash": func(t *rapid.T) {
				r.start(replica.Draw(t, "replica"), key)
				crashed = true
			},
			"": func(t *rapid.T) {
				if units := inPeriod(); units > limit {
					t.Fatalf("%d of %d were spent", units, limit)
				}
			},
		})
		for i := range r.all {
			for r.all[i].waiting.Pending() {
				r.call(i, 0)
			}
			r.all[i].RefundAll(context.Background())
		}
		_, stored := r.store.limits()
		if left := stored.At(r.clock.Now()).Remaining; !crashed && left+inPeriod() != limit {
			t.Fatalf("%d of %d are left of a quota of which %d were spent", left, limit, inPeriod())
		}
	})
}

// Spending what is held allocates nothing.
func TestWarmChargeAllocatesNothing(t *testing.T) {
	quota := apikey.Quota{Limit: 100_000, Remaining: 100_000, Refill: apikey.RefillNone, Epoch: 1}
	r := newReplicas(apikey.Key{RateLimit: apikey.RateLimit{Requests: 1_000_000, WindowSeconds: 1, Exact: true}, Quota: quota}, noon)
	one := r.all[0]
	for _, ticket := range []Ticket{
		one.ReserveRate(one.counters, &one.key, 1000, noon), one.Reserve(one.counters, &one.key, 1000, noon),
	} {
		if _, err := one.Wait(t.Context(), ticket); err != nil {
			t.Fatal(err)
		}
	}
	v := new(apikey.Verification)
	allocs := testing.AllocsPerRun(900, func() {
		*v = apikey.Verification{Key: &one.key, Code: apikey.CodeValid, At: noon}
		if ticket := one.Charge(one.counters, 1, &apikey.CheckRequest{}, v); ticket.Pending() || v.Code != apikey.CodeValid {
			t.Errorf("%s", v.Code)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations in a call", allocs)
	}
}

// What a server holds of a quota and does not use comes back to the others.
func TestIdleQuotaIsGivenBack(t *testing.T) {
	t.Parallel()
	quota := apikey.Quota{Limit: 1000, Remaining: 1000, Refill: apikey.RefillNone, Epoch: 1}
	r := newReplicas(apikey.Key{Quota: quota}, noon)
	r.finish(0, 1)
	if r.store.quota.Remaining != 1000-1-999/16 {
		t.Fatalf("%d are stored", r.store.quota.Remaining)
	}
	for range idleQuota {
		r.all[0].ReturnIdle(t.Context())
	}
	if r.store.quota.Remaining == 999 {
		t.Error("given back too early")
	}
	r.all[0].ReturnIdle(t.Context())
	if r.store.quota.Remaining != 999 {
		t.Errorf("%d are stored after it was idle", r.store.quota.Remaining)
	}
	asks := r.store.asks
	for range 100 {
		r.all[0].ReturnIdle(t.Context())
	}
	if r.store.asks != asks {
		t.Error("storage is asked for a server that holds nothing")
	}
}
