package store_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

var quotaTests = map[string]func(*testing.T, *fixture){
	"QuotaIsKept":       testQuotaIsKept,
	"ReserveQuota":      testReserveQuota,
	"ReserveConcurrent": testReserveConcurrent,
	"ReserveOtherEpoch": testReserveOtherEpoch,
	"ReserveRefills":    testReserveRefills,
	"ReserveWrongClock": testReserveWrongClock,
	"ReturnQuota":       testReturnQuota,
	"QuotaIsDeleted":    testQuotaIsDeleted,
}

// withQuota makes a key with a quota.
func (f *fixture) withQuota(t *testing.T, q apikey.Quota) apikey.Key {
	t.Helper()
	return f.create(t, func(k *apikey.Key) { k.Quota = q })
}

func (f *fixture) reserve(t *testing.T, k apikey.Key, want int64) apikey.QuotaGrant {
	t.Helper()
	grants, err := f.ReserveQuota(t.Context(), []apikey.QuotaAsk{{KeyID: k.ID, Quota: k.Quota, Want: want}}, f.clock.Now())
	if err != nil || len(grants) != 1 {
		t.Fatal(grants, err)
	}
	return grants[0]
}

// remaining returns what is stored of a key's quota.
func (f *fixture) remaining(t *testing.T, id string) int64 {
	t.Helper()
	k, err := f.Key(t.Context(), org, id)
	if err != nil {
		t.Fatal(err)
	}
	return k.Quota.Remaining
}

func testQuotaIsKept(t *testing.T, f *fixture) {
	k := f.withQuota(t, apikey.Quota{Limit: 100, Remaining: 40, Refill: apikey.RefillMonthly, RefillDay: 31})
	f.wantKey(t, k)
	if k.Quota.Epoch != 1 || k.Quota.RefilledAt.IsZero() {
		t.Errorf("%+v", k.Quota)
	}
	for _, c := range []struct {
		name  string
		set   func(k *apikey.Key)
		epoch int64
	}{
		{"another field", func(k *apikey.Key) { k.Label = "other" }, 1},
		{"topped up", func(k *apikey.Key) { k.Quota.Remaining = 50 }, 3},
		{"never refilled", func(k *apikey.Key) { k.Quota = apikey.Quota{Limit: 7, Remaining: 7, Refill: apikey.RefillNone} }, 4},
		{"another label", func(k *apikey.Key) { k.Label = "third" }, 4},
		{"taken away", func(k *apikey.Key) { k.Quota = apikey.Quota{} }, 0},
		{"given again", func(k *apikey.Key) { k.Quota = apikey.Quota{Limit: 3, Remaining: 3, Refill: apikey.RefillNone} }, 7},
	} {
		got, err := f.update(t.Context(), k.ID, c.set)
		if err != nil || got.Quota.Epoch != c.epoch {
			t.Errorf("%s: %+v, %v", c.name, got.Quota, err)
		}
		f.wantKey(t, got)
		// What was reserved is no part of it, and stays so whatever else changes.
		if got.Quota.Limit > 0 {
			f.reserve(t, got, 2)
		}
	}
}

func testReserveQuota(t *testing.T, f *fixture) {
	k := f.withQuota(t, apikey.Quota{Limit: 1000, Remaining: 1000})
	left := int64(1000)
	for left > 0 {
		g := f.reserve(t, k, 3)
		if want := apikey.Block(3, left); g.Units != want || g.Quota.Remaining != left-want || g.Quota.Epoch != k.Quota.Epoch {
			t.Fatalf("of %d: %+v", left, g)
		}
		if left -= g.Units; f.remaining(t, k.ID) != left {
			t.Fatalf("%d are stored of %d", f.remaining(t, k.ID), left)
		}
	}
	if g := f.reserve(t, k, 1); g.Units != 0 || g.Quota.Limit != 1000 {
		t.Errorf("of nothing: %+v", g)
	}
	f.wantEvents(t, 0, apikey.KeyCreated) // spending is no change
}

// testReserveConcurrent has two servers' worth of picks at once: what is given is
// what there was.
func testReserveConcurrent(t *testing.T, f *fixture) {
	var keys []apikey.Key
	for range 5 {
		keys = append(keys, f.withQuota(t, apikey.Quota{Limit: 500, Remaining: 500}))
	}
	var given atomic.Int64
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for {
				picks := make([]apikey.QuotaAsk, len(keys))
				for j := range picks { // in another order each
					k := keys[(i+j)%len(keys)]
					picks[j] = apikey.QuotaAsk{KeyID: k.ID, Quota: k.Quota, Want: 20}
				}
				grants, err := f.ReserveQuota(t.Context(), picks, f.clock.Now())
				if err != nil {
					t.Error(err)
					return
				}
				var units int64
				for _, g := range grants {
					units += g.Units
				}
				if units == 0 {
					return
				}
				given.Add(units)
			}
		})
	}
	group.Wait()
	if given.Load() != int64(len(keys))*500 {
		t.Errorf("%d were given", given.Load())
	}
}

func testReserveOtherEpoch(t *testing.T, f *fixture) {
	k, other := f.withQuota(t, apikey.Quota{Limit: 10, Remaining: 10}), f.create(t, nil)
	stale := k
	stale.Quota.Epoch = 99
	grants, err := f.ReserveQuota(t.Context(), []apikey.QuotaAsk{
		{KeyID: "never", Quota: k.Quota, Want: 1}, {KeyID: k.ID, Quota: stale.Quota, Want: 1}, {KeyID: other.ID, Quota: k.Quota, Want: 1},
	}, f.clock.Now())
	if diff := cmp.Diff(make([]apikey.QuotaGrant, 3), grants); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if got := f.remaining(t, k.ID); got != 10 {
		t.Errorf("%d remain", got)
	}
}

func testReserveRefills(t *testing.T, f *fixture) {
	k := f.withQuota(t, apikey.Quota{Limit: 10, Remaining: 10, Refill: apikey.RefillDaily})
	if g := f.reserve(t, k, 10); g.Units != 10 {
		t.Fatalf("%+v", g)
	}
	f.clock.Advance(24 * time.Hour)
	before := f.remaining(t, k.ID)
	for _, want := range []int64{4, 4, 2, 0} {
		if g := f.reserve(t, k, 4); g.Units != want || !g.Quota.RefilledAt.Equal(k.Quota.PeriodStart(f.clock.Now())) {
			t.Errorf("%+v, want %d", g, want)
		}
	}
	f.clock.Advance(-24 * time.Hour) // a server whose clock is behind
	if g := f.reserve(t, k, 4); g.Units != 0 || before != 0 {
		t.Errorf("the day before: %+v, %d stored", g, before)
	}
}

// testReserveWrongClock has a clock that was years ahead once: what is stored goes
// back to the period of a right one with the first ask, without a refill, and
// what is refunded afterwards counts for that period.
func testReserveWrongClock(t *testing.T, f *fixture) {
	const years = 10 * 365 * 24 * time.Hour
	k := f.withQuota(t, apikey.Quota{Limit: 1000, Remaining: 1000, Refill: apikey.RefillDaily})
	today := k.Quota.RefilledAt
	refund := func(g apikey.QuotaGrant, units int64) {
		t.Helper()
		r := apikey.QuotaReturn{KeyID: k.ID, Units: units, Epoch: g.Quota.Epoch, RefilledAt: g.Quota.RefilledAt}
		if err := f.ReturnQuota(t.Context(), []apikey.QuotaReturn{r}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, remaining int64, period time.Time) {
		t.Helper()
		got, err := f.Key(t.Context(), org, k.ID)
		if err != nil || got.Quota.Remaining != remaining || !got.Quota.RefilledAt.Equal(period) {
			t.Errorf("%s: %+v, %v", what, got.Quota, err)
		}
	}
	f.reserve(t, k, 600)
	f.clock.Advance(years)
	wrong := f.reserve(t, k, 936) // a refill that was not due, and a block of 4 more
	want("by the wrong clock", 60, today.Add(years))
	f.clock.Advance(-years)
	refund(wrong, 1)
	want("given back before anyone has asked", 61, today.Add(years))
	right := f.reserve(t, k, 1)
	if right.Units != 4 || !right.Quota.RefilledAt.Equal(today) {
		t.Errorf("%+v", right)
	}
	want("by the right clock", 57, today)
	refund(wrong, 3)
	want("what is left of the wrong period is void", 57, today)
	refund(right, 3)
	want("what is left of the right one is not", 60, today)
	f.clock.Advance(30 * time.Minute) // midnight
	if g := f.reserve(t, k, 1000); g.Units != 1000 || !g.Quota.RefilledAt.Equal(today.AddDate(0, 0, 1)) {
		t.Errorf("after the next refill: %+v", g)
	}
	// An ask that finds nothing left puts the period right, too.
	f.clock.Advance(years)
	f.reserve(t, k, 1000)
	f.clock.Advance(-years)
	f.reserve(t, k, 1)
	want("nothing is left", 0, today.AddDate(0, 0, 1))
	// So does an update, of whatever it says.
	for _, values := range []apikey.Quota{{Remaining: 0, Refill: apikey.RefillNone}, {Remaining: 5}} {
		f.clock.Advance(years)
		if k.Quota = f.reserve(t, k, 1000).Quota; k.Quota.Limit == 0 {
			t.Fatal("reserved by an old epoch")
		}
		f.clock.Advance(-years)
		var err error
		k, err = f.ChangeKey(t.Context(), operator, org, k.ID, apikey.KeyUpdated, func(k *apikey.Key, now time.Time) error {
			return rules.Update(k, apikey.Patch{Paths: []string{"quota.remaining"}, Values: apikey.Key{Quota: values}}, now)
		})
		if err != nil {
			t.Fatal(err)
		}
		want("set", values.Remaining, today.AddDate(0, 0, 1))
		refund(wrong, 3)
		want("what was reserved before is void", values.Remaining, today.AddDate(0, 0, 1))
	}
}

func testReturnQuota(t *testing.T, f *fixture) {
	k := f.withQuota(t, apikey.Quota{Limit: 100, Remaining: 100, Refill: apikey.RefillDaily})
	none := f.withQuota(t, apikey.Quota{Limit: 100, Remaining: 100})
	f.reserve(t, k, 50)
	f.reserve(t, none, 50)
	before, beforeNone := f.remaining(t, k.ID), f.remaining(t, none.ID)
	late := k.Quota.RefilledAt.AddDate(0, 0, 1)
	err := f.ReturnQuota(t.Context(), []apikey.QuotaReturn{
		{KeyID: "never", Units: 7, Epoch: 1},
		{KeyID: none.ID, Units: 3, Epoch: 1},
		{KeyID: none.ID, Units: 7, Epoch: 1, RefilledAt: late},
		{KeyID: k.ID, Units: 3, Epoch: 1, RefilledAt: k.Quota.RefilledAt},
		{KeyID: k.ID, Units: 7, Epoch: 2, RefilledAt: k.Quota.RefilledAt},
		{KeyID: k.ID, Units: 7, Epoch: 1, RefilledAt: late},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, gotNone := f.remaining(t, k.ID), f.remaining(t, none.ID); got != before+3 || gotNone != beforeNone+3 {
		t.Errorf("%d of %d, %d of %d", got, before, gotNone, beforeNone)
	}
}

func testQuotaIsDeleted(t *testing.T, f *fixture) {
	k := f.withQuota(t, apikey.Quota{Limit: 10, Remaining: 10})
	if err := f.DeleteKey(t.Context(), operator, org, k.ID); err != nil {
		t.Fatal(err)
	}
	if err := f.ReturnQuota(t.Context(), []apikey.QuotaReturn{{KeyID: k.ID, Units: 1, Epoch: 1}}); err != nil {
		t.Error(err)
	}
	if g := f.reserve(t, k, 1); g != (apikey.QuotaGrant{}) {
		t.Errorf("%+v", g)
	}
}
