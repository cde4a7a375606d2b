package apikey

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// take takes n of a limiter at a time in microseconds, if they are there.
func (l *Limiter) take(limit RateLimit, n int, now int64) time.Duration {
	l.Advance(limit, now)
	wait := l.Wait(n, now)
	if wait == 0 {
		l.Spend(n)
	}
	return wait
}

func drawLimit() *rapid.Generator[RateLimit] {
	return rapid.Custom(func(t *rapid.T) RateLimit {
		return RateLimit{
			Requests:      rapid.OneOf(rapid.IntRange(1, 9), rapid.IntRange(1, 1_000_000), rapid.Just(1_000_000)).Draw(t, "requests"),
			WindowSeconds: rapid.OneOf(rapid.IntRange(1, 9), rapid.IntRange(1, 86_400), rapid.Just(86_400)).Draw(t, "window"),
		}
	})
}

// The limiter does exactly what the algorithm does in rational numbers, and says
// exactly when a refused call can be made.
func TestRateLimiterIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := drawLimit().Draw(t, "limit")
		var l Limiter
		var now, last int64
		spent := new(big.Rat) // in requests
		perMicro := big.NewRat(int64(limit.Requests), int64(limit.WindowSeconds)*1_000_000)
		for range rapid.IntRange(1, 20).Draw(t, "calls") {
			now += rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(0, int64(limit.WindowSeconds)*2_000_000),
				rapid.Int64Range(0, 1<<50)).Draw(t, "pause")
			n := rapid.IntRange(0, limit.Requests).Draw(t, "cost")

			refilled := new(big.Rat).Mul(perMicro, new(big.Rat).SetInt64(now-last))
			if spent.Sub(spent, refilled); spent.Sign() < 0 {
				spent.SetInt64(0)
			}
			last = now
			after := new(big.Rat).Add(spent, new(big.Rat).SetInt64(int64(n)))
			want := after.Cmp(new(big.Rat).SetInt64(int64(limit.Requests))) <= 0

			wait := l.take(limit, n, now)
			if (wait == 0) != want {
				t.Fatalf("cost %d with %s spent: wait %v", n, spent.FloatString(3), wait)
			}
			if want {
				spent = after
			} else {
				early, late := l, l
				micros := wait.Microseconds()
				if late.take(limit, n, now+micros) != 0 || early.take(limit, n, now+micros-1) == 0 {
					t.Fatalf("a call after exactly %v does not tell the two apart", wait)
				}
			}
			remaining, full := l.Left(now)
			left := new(big.Rat).Sub(new(big.Rat).SetInt64(int64(limit.Requests)), spent)
			if floor := new(big.Int).Quo(left.Num(), left.Denom()); floor.Int64() != int64(remaining) {
				t.Fatalf("remaining %d, want %s", remaining, left.FloatString(3))
			}
			if c := l; full < 0 || full > time.Duration(limit.WindowSeconds)*time.Second {
				t.Fatalf("full in %v", full)
			} else if c.Advance(limit, now+full.Microseconds()); c.Debt != 0 {
				t.Fatalf("not full after %v", full)
			}
		}
	})
}

// In any stretch of time at most the burst and the refill of that stretch pass,
// however the readings of the clock come out of order.
func TestRateLimiterNeverOverspends(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := RateLimit{Requests: rapid.IntRange(1, 20).Draw(t, "requests"), WindowSeconds: rapid.IntRange(1, 5).Draw(t, "window")}
		var l Limiter
		var now, first, latest int64
		passed := 0
		for range rapid.IntRange(1, 300).Draw(t, "calls") {
			now += rapid.Int64Range(0, 200_000).Draw(t, "pause")
			latest = max(latest, now)
			read := now - rapid.SampledFrom([]int64{0, 0, 1, 1000, 500_000}).Draw(t, "read before")
			if l.take(limit, 1, read) == 0 {
				passed++
			}
		}
		most := int64(limit.Requests) + (latest-first)*int64(limit.Requests)/(int64(limit.WindowSeconds)*1_000_000)
		if int64(passed) > most {
			t.Fatalf("%d passed, at most %d may", passed, most)
		}
	})
}

func TestRateLimiterSteadyTraffic(t *testing.T) {
	t.Parallel()
	// Ten a minute against a call every second: the burst, then one in six.
	limit := RateLimit{Requests: 10, WindowSeconds: 60}
	var l Limiter
	passed := 0
	for second := range int64(3600) {
		if l.take(limit, 1, second*1_000_000) == 0 {
			passed++
		}
	}
	if want := 10 + 3599/6; passed != want {
		t.Errorf("%d passed in an hour, want %d", passed, want)
	}
}

func TestRateLimiterClockStepsBack(t *testing.T) {
	t.Parallel()
	limit := RateLimit{Requests: 60, WindowSeconds: 60}
	const second = 1_000_000
	var l Limiter
	if l.take(limit, 60, 1000*second) != 0 {
		t.Fatal("no burst")
	}
	// A little: nothing is refilled until the clock is where it was, and the wait
	// that is told counts that in.
	if wait := l.take(limit, 1, 990*second); wait != 11*time.Second {
		t.Errorf("10 s back: wait %v", wait)
	}
	if l.take(limit, 1, 1000*second) == 0 || l.take(limit, 1, 1001*second) != 0 {
		t.Error("a clock that went back and forth refilled, or the right one did not")
	}
	// A lot: the clock was set. It goes on from there, with the debt as it was.
	if wait := l.take(limit, 1, -5000*second); wait != time.Second {
		t.Errorf("6,001 s back: wait %v", wait)
	}
	if l.take(limit, 1, -4999*second) != 0 || l.take(limit, 1, -4999*second) == 0 {
		t.Error("the limit is shut, or forgot its debt")
	}
}

func TestRateLimiterChangesLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		from, to  RateLimit
		spent     int
		remaining int
	}{
		{"narrower", RateLimit{Requests: 100, WindowSeconds: 60}, RateLimit{Requests: 10, WindowSeconds: 60}, 50, 0},
		{"narrower with some left", RateLimit{Requests: 100, WindowSeconds: 60}, RateLimit{Requests: 10, WindowSeconds: 60}, 4, 6},
		{"wider", RateLimit{Requests: 10, WindowSeconds: 60}, RateLimit{Requests: 100, WindowSeconds: 60}, 10, 90},
		{"longer window", RateLimit{Requests: 100, WindowSeconds: 60}, RateLimit{Requests: 100, WindowSeconds: 86_400}, 50, 50},
		{"shorter window", RateLimit{Requests: 100, WindowSeconds: 86_400}, RateLimit{Requests: 100, WindowSeconds: 1}, 50, 50},
		{"largest to least", RateLimit{Requests: 1_000_000, WindowSeconds: 86_400}, RateLimit{Requests: 1, WindowSeconds: 1}, 1_000_000, 0},
		{"least to largest", RateLimit{Requests: 1, WindowSeconds: 1}, RateLimit{Requests: 1_000_000, WindowSeconds: 86_400}, 1, 999_999},
		{"largest window to least", RateLimit{Requests: 1_000_000, WindowSeconds: 86_400}, RateLimit{Requests: 1_000_000, WindowSeconds: 1}, 1_000_000, 0},
		{"least window to largest", RateLimit{Requests: 1_000_000, WindowSeconds: 1}, RateLimit{Requests: 1_000_000, WindowSeconds: 86_400}, 1_000_000, 0},
	} {
		var l Limiter
		if l.take(c.from, c.spent, 5) != 0 {
			t.Fatalf("%s: not spent", c.name)
		}
		l.Advance(c.to, 5)
		remaining, full := l.Left(5)
		if remaining != c.remaining || full > time.Duration(c.to.WindowSeconds)*time.Second {
			t.Errorf("%s: %d remain, full in %v; want %d", c.name, remaining, full, c.remaining)
		}
	}
}

// Changing a limit never gives back what was spent.
func TestRateLimiterChangesProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		from, to := drawLimit().Draw(t, "from"), drawLimit().Draw(t, "to")
		spent := rapid.IntRange(0, from.Requests).Draw(t, "spent")
		var l Limiter
		l.take(from, spent, 0)
		l.Advance(to, 0)
		if remaining, _ := l.Left(0); remaining != max(to.Requests-spent, 0) {
			t.Fatalf("%d remain after %d were spent", remaining, spent)
		}
	})
}

func TestRateLimiterAtMaxima(t *testing.T) {
	t.Parallel()
	limit := RateLimit{Requests: 1_000_000, WindowSeconds: 86_400}
	l := Limiter{}
	const far = int64(1) << 62
	if l.take(limit, 1_000_000, far) != 0 {
		t.Fatal("no burst")
	}
	if wait := l.take(limit, 1_000_000, far); wait != 24*time.Hour {
		t.Errorf("wait %v", wait)
	}
	if remaining, full := l.Left(far); remaining != 0 || full != 24*time.Hour {
		t.Errorf("%d remain, full in %v", remaining, full)
	}
	if l.Advance(limit, far+(far-1)); l.Debt != 0 {
		t.Errorf("debt %d after an age", l.Debt)
	}
}
