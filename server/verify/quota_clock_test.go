package verify

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// years is how far a clock is wrong that lost its battery.
const years = 10 * 365 * 24 * time.Hour

// A clock that was years ahead costs no period but the one that it was noticed in,
// with a crash in between and without.
func TestClockWasYearsAhead(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(r *quotaHarness){
		"and runs on": func(*quotaHarness) {}, "and the server crashes": func(r *quotaHarness) { r.restart(t) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newQuotaHarness(t)
			_, secret := r.create(t, 1000, apikey.RefillDaily, apikey.RateLimit{})
			if r.spend(t, secret, 600, 1) != 600 {
				t.Fatal("not 600")
			}
			r.clock.Advance(years)
			wantCode(t, r.harness, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
			r.clock.Advance(-years)
			crash(r)
			midnight := noon.Add(12 * time.Hour)
			if valid := r.spend(t, secret, 2000, 1); valid > 999 {
				t.Errorf("refilled when the clock was right again: %d", valid)
			}
			for range 3 {
				if got := ask(t, r.harness, Request{Secret: secret, Cost: 1}); got.Code != apikey.CodeQuotaExceeded ||
					!got.Quota.RefillAt.Equal(midnight) || got.RetryAfter != midnight.Sub(r.clock.Now()) {
					t.Fatalf("%s, %+v, retry after %v", got.Code, got.Quota, got.RetryAfter)
				}
				r.clock.Advance(midnight.Sub(r.clock.Now()) - time.Second)
				if r.spend(t, secret, 10, 1) != 0 {
					t.Fatalf("refilled before %v", midnight)
				}
				r.clock.Advance(time.Second)
				if valid := r.spend(t, secret, 2000, 1); valid != 1000 {
					t.Fatalf("%d at %v", valid, midnight)
				}
				midnight = midnight.Add(24 * time.Hour)
			}
		})
	}
}

// An update that says what is left puts everything right at once, also where the
// clock was so little ahead that it granted the next period.
func TestClockWasAheadAndQuotaIsSet(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{years, 20 * time.Hour} {
		r := newQuotaHarness(t)
		k, secret := r.create(t, 1000, apikey.RefillDaily, apikey.RateLimit{})
		r.clock.Advance(ahead)
		if r.spend(t, secret, 2000, 1) != 1000 {
			t.Fatal("not 1000")
		}
		r.clock.Advance(-ahead)
		r.set(t, &k, func(q *apikey.Quota) {
			set := apikey.Key{Quota: *q}
			err := apikey.Rules{}.Update(&set, apikey.Patch{Paths: []string{"quota.remaining"}, Values: apikey.Key{Quota: apikey.Quota{Remaining: 7, Refill: apikey.RefillNone}}}, r.clock.Now())
			if err != nil {
				t.Fatal(err)
			}
			*q = set.Quota
		})
		if valid := r.spend(t, secret, 100, 1); valid != 7 {
			t.Errorf("%d after it was set to 7", valid)
		}
		r.clock.Advance(12 * time.Hour)
		if valid := r.spend(t, secret, 2000, 1); valid != 1000 {
			t.Errorf("%d after the next refill", valid)
		}
	}
}

// A clock that was ahead by less than a period: what it granted is not granted
// again, and where it granted nothing the period of now goes on.
func TestClockWasHoursAhead(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	_, secret := r.create(t, 10, apikey.RefillDaily, apikey.RateLimit{})
	r.spend(t, secret, 4, 1)
	r.clock.Advance(20 * time.Hour)
	wantCode(t, r.harness, Request{Secret: secret, Cost: 0}, apikey.CodeValid) // this server turns to tomorrow, storage does not
	r.clock.Advance(-20 * time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for range 6 {
		if got, err := r.Verify(ctx, Request{Secret: secret, Cost: 1}); err != nil || got.Code != apikey.CodeValid {
			t.Fatalf("%s, %v after %d transactions", got.Code, err, r.quotas.count())
		}
	}
	if r.spend(t, secret, 10, 1) != 0 {
		t.Error("more than the period has")
	}
	r.clock.Advance(20 * time.Hour)
	if r.spend(t, secret, 20, 1) != 10 {
		t.Error("tomorrow was not granted")
	}
	r.clock.Advance(-20 * time.Hour)
	if r.spend(t, secret, 10, 1) != 0 {
		t.Error("today was granted twice")
	}
	r.clock.Advance(12 * time.Hour)
	if r.spend(t, secret, 10, 1) != 0 {
		t.Error("tomorrow was granted twice")
	}
	r.clock.Advance(24 * time.Hour)
	if r.spend(t, secret, 20, 1) != 10 {
		t.Error("the day after was not granted")
	}
}

// However the clock walks, and whatever else happens meanwhile, no period grants
// more than the limit while the clock is less than a period behind the latest time
// that it has shown. The period of a call is told by the refill that ends it.
func TestQuotaOfWalkingClock(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		r := newQuotaHarness(t)
		limit := rapid.Int64Range(1, 200).Draw(rt, "limit")
		k, secret := r.create(t, limit, apikey.RefillDaily, apikey.RateLimit{})
		latest, spent := r.clock.Now(), make(map[time.Time]int64)
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0, 1:
				d := time.Duration(rapid.IntRange(-23, 40).Draw(rt, "hours")) * time.Hour
				r.clock.Advance(latest.Add(d).Sub(r.clock.Now()))
				latest = latest.Add(max(d, 0))
			case 2:
				r.restart(t)
			case 3:
				r.RefundAll(t.Context())
			case 4:
				k.Quota, _ = r.quotas.of(k.ID)
				if r.FillRemaining(&k); k.Quota.Remaining > limit {
					rt.Fatalf("%d remain of %d", k.Quota.Remaining, limit)
				}
			default:
				cost := rapid.Int64Range(0, min(limit, 5)).Draw(rt, "cost")
				for range rapid.IntRange(1, 60).Draw(rt, "calls") {
					got := ask(t, r.harness, Request{Secret: secret, Cost: int(cost)})
					if got.Code != apikey.CodeValid {
						break
					}
					if spent[got.Quota.RefillAt] += cost; spent[got.Quota.RefillAt] > limit {
						rt.Fatalf("the period until %v granted %d of %d", got.Quota.RefillAt, spent[got.Quota.RefillAt], limit)
					}
				}
			}
		}
	})
}
