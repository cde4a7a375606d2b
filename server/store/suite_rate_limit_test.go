package store_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

var rateTests = map[string]func(*testing.T, *fixture){
	"RateLimitMode":         testRateLimitMode,
	"ReserveRate":           testReserveRate,
	"ReserveRateConcurrent": testReserveRateConcurrent,
	"ReserveRateStale":      testReserveRateStale,
	"ReserveRateDeleted":    testReserveRateDeleted,
}

// exact returns an exact limit of so many requests a day.
func exact(requests int) apikey.RateLimit {
	return apikey.RateLimit{Requests: requests, WindowSeconds: 86_400, Exact: true}
}

func (f *fixture) withRate(t *testing.T, limit apikey.RateLimit) apikey.Key {
	t.Helper()
	return f.create(t, func(k *apikey.Key) { k.RateLimit = limit })
}

// reserveRate asks for requests, and gives a block back.
func (f *fixture) reserveRate(t *testing.T, a apikey.RateAsk) apikey.RateGrant {
	t.Helper()
	grants, err := f.ReserveRate(t.Context(), []apikey.RateAsk{a}, f.clock.Now())
	if err != nil || len(grants) != 1 {
		t.Fatal(grants, err)
	}
	return grants[0]
}

func testRateLimitMode(t *testing.T, f *fixture) {
	k := f.withRate(t, apikey.RateLimit{Requests: 5, WindowSeconds: 60})
	for _, limit := range []apikey.RateLimit{exact(5), {Requests: 5, WindowSeconds: 86_400}, {}, exact(5), {}} {
		changed, err := f.update(t.Context(), k.ID, func(k *apikey.Key) { k.RateLimit = limit })
		if err != nil || changed.RateLimit != limit {
			t.Errorf("%+v: %+v, %v", limit, changed.RateLimit, err)
		}
		f.wantKey(t, changed)
	}
}

// testReserveRate compares what is stored with the limiter itself, step by step.
func testReserveRate(t *testing.T, f *fixture) {
	k := f.withRate(t, exact(100))
	var want apikey.SharedLimiter
	var block apikey.RateBlock
	for i, step := range []struct {
		want, least, more, spent int64
		pause                    time.Duration
	}{
		{0, 0, 0, 0, 0}, {1, 1, 0, 1, time.Second}, {2, 2, 50, 1, time.Millisecond}, {3, 1, 50, 4, 9 * time.Second}, {0, 0, 0, 0, 30 * time.Second},
		{50, 50, 0, 50, 0}, {80, 80, 0, 0, time.Hour}, {80, 1, 0, 3, 0}, {1, 1, 0, 1, 25 * time.Second}, {0, 0, 0, 0, 24 * time.Hour}, {100, 100, 100, 100, 0},
	} {
		ask := apikey.RateAsk{KeyID: k.ID, Limit: k.RateLimit, Block: block, Want: step.want, Least: step.least, More: step.more}
		got := f.reserveRate(t, ask)
		if diff := cmp.Diff(want.Reserve(&ask, f.clock.Now().UnixMicro()), got); diff != "" {
			t.Fatalf("step %d: %s", i, diff)
		}
		block = apikey.RateBlock{Slot: got.Limiter.Slot, Units: got.Units, Spent: min(step.spent, got.Units), SpentAt: f.clock.Now().UnixMicro()}
		f.clock.Advance(step.pause)
	}
	f.wantEvents(t, 0, apikey.KeyCreated) // spending is no change
}

// testReserveRateConcurrent has several servers' worth of asks at once, the first of
// their keys: what is given is what there was.
func testReserveRateConcurrent(t *testing.T, f *fixture) {
	var keys []apikey.Key
	for range 5 {
		keys = append(keys, f.withRate(t, exact(200)))
	}
	var given atomic.Int64
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for {
				asks := make([]apikey.RateAsk, len(keys))
				for j := range asks { // in another order each
					k := keys[(i+j)%len(keys)]
					asks[j] = apikey.RateAsk{KeyID: k.ID, Limit: k.RateLimit, Want: 7, Least: 1, More: 10}
				}
				grants, err := f.ReserveRate(t.Context(), asks, f.clock.Now())
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
	if given.Load() != int64(len(keys))*200 {
		t.Errorf("%d were given", given.Load())
	}
}

// testReserveRateStale has asks by a limit that the key has no more: they get nothing,
// but what they give back is taken.
func testReserveRateStale(t *testing.T, f *fixture) {
	k, local := f.withRate(t, exact(100)), f.withRate(t, apikey.RateLimit{Requests: 5, WindowSeconds: 5})
	never := apikey.RateAsk{KeyID: "never", Limit: exact(100), Want: 1, Least: 1}
	ofLocal := apikey.RateAsk{KeyID: local.ID, Limit: exact(5), Want: 1, Least: 1}
	grants, err := f.ReserveRate(t.Context(), []apikey.RateAsk{never, ofLocal}, f.clock.Now())
	if err != nil || !grants[0].Stale || !grants[1].Stale {
		t.Errorf("no exact limits: %+v, %v", grants, err)
	}

	ask := apikey.RateAsk{KeyID: k.ID, Limit: exact(100), Want: 60, Least: 60}
	held := f.reserveRate(t, ask)
	changed, err := f.update(t.Context(), k.ID, func(k *apikey.Key) { k.RateLimit = exact(50) })
	if err != nil {
		t.Fatal(err)
	}
	// Another server learns first.
	if g := f.reserveRate(t, apikey.RateAsk{KeyID: k.ID, Limit: changed.RateLimit, Want: 1, Least: 1}); g.Units != 0 || g.Stale {
		t.Errorf("while more is reserved than the limit has: %+v", g)
	}
	ask.Block = apikey.RateBlock{Slot: held.Limiter.Slot, Units: held.Units, Spent: 20, SpentAt: f.clock.Now().UnixMicro()}
	if g := f.reserveRate(t, ask); g.Units != 0 || !g.Stale {
		t.Errorf("by the old limit: %+v", g)
	}
	if g := f.reserveRate(t, apikey.RateAsk{KeyID: k.ID, Limit: changed.RateLimit, Want: 50, Least: 1}); g.Units != 30 {
		t.Errorf("of 50 of which 20 are spent: %+v", g)
	}
	// What was spent stays spent while the key has no exact limit.
	for _, limit := range []apikey.RateLimit{{}, {Requests: 9, WindowSeconds: 9}, exact(50)} {
		if _, err := f.update(t.Context(), k.ID, func(k *apikey.Key) { k.RateLimit = limit }); err != nil {
			t.Fatal(err)
		}
	}
	if g := f.reserveRate(t, apikey.RateAsk{KeyID: k.ID, Limit: exact(50), Want: 1, Least: 1}); g.Units != 0 {
		t.Errorf("a limit that was taken away and given again: %+v", g)
	}
}

func testReserveRateDeleted(t *testing.T, f *fixture) {
	k := f.withRate(t, exact(10))
	ask := apikey.RateAsk{KeyID: k.ID, Limit: k.RateLimit, Want: 1, Least: 1}
	f.reserveRate(t, ask)
	if err := f.DeleteKey(t.Context(), operator, org, k.ID); err != nil {
		t.Fatal(err)
	}
	if g := f.reserveRate(t, ask); g != (apikey.RateGrant{Stale: true}) {
		t.Errorf("%+v", g)
	}
	if n, err := f.CountRateLimits(t.Context()); n != 0 || err != nil {
		t.Errorf("%d rows are left, %v", n, err)
	}
}
