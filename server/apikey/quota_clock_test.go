package apikey

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A clock that was years ahead is forgiven at the first look of a right one,
// without a refill; one that was less than a period ahead could be a right one
// that was set back since, and is not.
func TestClockWasAhead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		refill Refill
		day    int
		began  string // the period that is kept
		now    string
		want   string // the period that it is then
		next   string // the refill that follows
	}{
		{"years", RefillDaily, 0, "2036-03-01T00:00:00Z", "2026-03-01T12:00:00Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		{"two days", RefillDaily, 0, "2026-03-03T00:00:00Z", "2026-03-01T12:00:00Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		{"a day", RefillDaily, 0, "2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z"},
		{"a second", RefillDaily, 0, "2026-03-02T00:00:00Z", "2026-03-01T23:59:59Z", "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z"},
		{"years", RefillMonthly, 31, "2036-01-31T00:00:00Z", "2026-02-28T12:00:00Z", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"},
		{"two months", RefillMonthly, 15, "2026-04-15T00:00:00Z", "2026-03-14T12:00:00Z", "2026-02-15T00:00:00Z", "2026-03-15T00:00:00Z"},
		{"a month", RefillMonthly, 15, "2026-04-15T00:00:00Z", "2026-03-15T00:00:00Z", "2026-04-15T00:00:00Z", "2026-05-15T00:00:00Z"},
		{"a period of another setting", RefillMonthly, 15, "2026-04-01T00:00:00Z", "2026-03-15T00:00:00Z", "2026-04-01T00:00:00Z", "2026-04-15T00:00:00Z"},
	} {
		q := Quota{Limit: 9, Remaining: 2, Refill: c.refill, RefillDay: c.day, RefilledAt: day(c.began)}
		got, want := q.At(day(c.now)), q
		want.RefilledAt = day(c.want)
		if got != want || !got.NextRefill().Equal(day(c.next)) {
			t.Errorf("%s, %s: %+v, refilled at %v", c.refill, c.name, got, got.NextRefill())
		}
		if again := got.At(day(c.next).Add(-time.Nanosecond)); again != want {
			t.Errorf("%s, %s: refilled early: %+v", c.refill, c.name, again)
		}
		if full := got.At(day(c.next)); full.Remaining != 9 || !full.RefilledAt.Equal(day(c.next)) {
			t.Errorf("%s, %s: not refilled: %+v", c.refill, c.name, full)
		}
	}
}

// clockQuota draws a quota that refills, at a time, and the length of its shortest
// period.
func clockQuota(t *rapid.T) (q Quota, now time.Time, shortest time.Duration) {
	q, shortest = Quota{Limit: 10, Refill: RefillMonthly, RefillDay: rapid.IntRange(1, 31).Draw(t, "day")}, 28*24*time.Hour
	if rapid.Bool().Draw(t, "daily") {
		q, shortest = Quota{Limit: 10, Refill: RefillDaily}, 24*time.Hour
	}
	now = time.Unix(rapid.Int64Range(0, 4_000_000_000).Draw(t, "now"), 0).UTC()
	q.RefilledAt = q.PeriodStart(now)
	return q, now, shortest
}

// However a clock walks, no period is granted twice while it is less than a period
// behind the latest time that it has shown.
func TestClockWalks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q, latest, shortest := clockQuota(t)
		granted := map[time.Time]bool{q.RefilledAt: true}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			d := time.Duration(rapid.Int64Range(1-int64(shortest), int64(2*shortest)).Draw(t, "from the latest"))
			now := latest.Add(d)
			latest = time.Unix(0, max(latest.UnixNano(), now.UnixNano())).UTC()
			q.Remaining = 0
			if q = q.At(now); q.Remaining > 0 {
				if granted[q.RefilledAt] {
					t.Fatalf("the period of %v was granted twice", q.RefilledAt)
				}
				granted[q.RefilledAt] = true
			}
		}
	})
}

// Whatever times a clock has shown, once it is right it refills once a period: from
// the next refill on, or from the one after that where it was so little ahead that
// it granted the next period already.
func TestClockIsRightAgain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q, now, _ := clockQuota(t)
		for range rapid.IntRange(0, 5).Draw(t, "wrong readings") {
			q = q.At(time.Unix(rapid.Int64Range(0, 8_000_000_000).Draw(t, "wrong"), 0))
		}
		q.RefilledAt = q.PeriodStart(q.RefilledAt.Add(time.Duration(rapid.Int64Range(-1, 3).Draw(t, "near")) * 24 * time.Hour))
		q.Remaining = 0
		first := q.refillAfter(now)
		grantedAlready := q.RefilledAt.Equal(first)
		if q = q.At(now); q.RefilledAt.After(now) != grantedAlready {
			t.Fatalf("at %v the period is of %v", now, q.RefilledAt)
		}
		refill := first
		for i := range 4 {
			q.Remaining = 0
			if q = q.At(refill.Add(-time.Nanosecond)); q.Remaining != 0 {
				t.Fatalf("refilled before %v", refill)
			}
			if q = q.At(refill); (q.Remaining == 0) != (i == 0 && grantedAlready) {
				t.Fatalf("%d at %v", q.Remaining, refill)
			}
			refill = q.refillAfter(refill)
		}
	})
}
