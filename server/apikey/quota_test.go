package apikey

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func day(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestRefillTimes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		refill           Refill
		day              int
		now, start, next string
	}{
		{RefillDaily, 0, "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		{RefillDaily, 0, "2026-02-28T23:59:59.999Z", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"},
		{RefillDaily, 0, "2028-02-28T23:59:59Z", "2028-02-28T00:00:00Z", "2028-02-29T00:00:00Z"},
		{RefillDaily, 0, "2026-03-01T01:00:00+02:00", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"}, // UTC decides
		{RefillMonthly, 1, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"},
		{RefillMonthly, 1, "2026-12-31T23:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{RefillMonthly, 15, "2026-01-14T23:59:59Z", "2025-12-15T00:00:00Z", "2026-01-15T00:00:00Z"},
		{RefillMonthly, 31, "2026-01-30T12:00:00Z", "2025-12-31T00:00:00Z", "2026-01-31T00:00:00Z"},
		{RefillMonthly, 31, "2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"},
		{RefillMonthly, 31, "2026-02-27T00:00:00Z", "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"},
		{RefillMonthly, 31, "2026-02-28T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"},
		{RefillMonthly, 30, "2026-03-01T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-30T00:00:00Z"},
		{RefillMonthly, 31, "2028-02-28T12:00:00Z", "2028-01-31T00:00:00Z", "2028-02-29T00:00:00Z"}, // a leap year
		{RefillMonthly, 29, "2028-02-29T12:00:00Z", "2028-02-29T00:00:00Z", "2028-03-29T00:00:00Z"},
		{RefillMonthly, 29, "2027-02-28T12:00:00Z", "2027-02-28T00:00:00Z", "2027-03-29T00:00:00Z"},
		{RefillMonthly, 31, "2026-04-30T00:00:00Z", "2026-04-30T00:00:00Z", "2026-05-31T00:00:00Z"},
	} {
		q := Quota{Limit: 9, Remaining: 2, Refill: c.refill, RefillDay: c.day}
		start := q.PeriodStart(day(c.now))
		q.RefilledAt = start
		if diff := cmp.Diff([]time.Time{day(c.start), day(c.next)}, []time.Time{start, q.NextRefill()}); diff != "" {
			t.Errorf("%s %d at %s: (-want +got)\n%s", c.refill, c.day, c.now, diff)
		}
	}
	none := Quota{Limit: 9, Remaining: 2, Refill: RefillNone}
	if got := none.At(day("2099-01-01T00:00:00Z")); got != none || !none.NextRefill().IsZero() {
		t.Errorf("never refilled: %+v", got)
	}
}

// At every moment the period holds now, the next one begins where it ends, on the
// wanted day or the last of a shorter month; and one moment is refilled once.
func TestRefillsMeet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q := Quota{Limit: 10, Refill: RefillMonthly, RefillDay: rapid.IntRange(1, 31).Draw(t, "day")}
		if rapid.Bool().Draw(t, "daily") {
			q.Refill, q.RefillDay = RefillDaily, 0
		}
		now := time.Unix(rapid.Int64Range(0, 4_000_000_000).Draw(t, "now"), 0).UTC()
		q.RefilledAt = q.PeriodStart(now)
		next := q.NextRefill()
		if q.RefilledAt.After(now) || !next.After(now) {
			t.Fatalf("%v is not within %v and %v", now, q.RefilledAt, next)
		}
		if last := next.AddDate(0, 0, 1).Day() == 1; q.Refill == RefillMonthly && next.Day() != q.RefillDay && (next.Day() > q.RefillDay || !last) {
			t.Fatalf("the refill of day %d comes on %v", q.RefillDay, next)
		}
		if got := q.At(next.Add(-time.Nanosecond)); got != q {
			t.Fatalf("refilled early: %+v", got)
		}
		full := q.At(next)
		if full.Remaining != q.Limit || !full.RefilledAt.Equal(next) {
			t.Fatalf("not refilled at %v: %+v", next, full)
		}
		full.Remaining = 3
		if got := full.At(next.Add(time.Hour)); got.Remaining != 3 {
			t.Fatal("one period was granted twice")
		}
		if got := full.At(now); got != full {
			t.Fatal("a clock that was set back refilled")
		}
	})
}

// However the wants come, blocks never give more than there is, always give what
// is wanted if it is there, and let the last unit be spent.
func TestBlock(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		left := rapid.OneOf(rapid.Int64Range(0, 100), rapid.Int64Range(0, maxQuota)).Draw(t, "left")
		for range 50 {
			want := rapid.OneOf(rapid.Int64Range(1, 9), rapid.Int64Range(1, 1_000_000)).Draw(t, "want")
			got := Block(want, left)
			if got > left || got < min(want, left) || got > want+maxBlock || got > want && got-want > left/blockShare {
				t.Fatalf("Block(%d, %d) = %d", want, left, got)
			}
			left -= got
		}
	})
	if Block(1, 1) != 1 || Block(1, 2) != 1 || Block(1, 0) != 0 || Block(5, 3) != 3 {
		t.Error("the last units")
	}
}

func TestQuotaOfNewKeys(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		asked    Quota
		want     Quota
		problems []string
	}{
		{"none", Quota{}, Quota{}, nil},
		{"full", Quota{Limit: 5, Remaining: FullQuota}, Quota{Limit: 5, Remaining: 5, Refill: RefillNone}, nil},
		{"empty", Quota{Limit: 5}, Quota{Limit: 5, Refill: RefillNone}, nil},
		{"monthly", Quota{Limit: 5, Remaining: 2, Refill: RefillMonthly},
			Quota{Limit: 5, Remaining: 2, Refill: RefillMonthly, RefillDay: 1, RefilledAt: noon.AddDate(0, 0, 1-noon.Day()).Truncate(24 * time.Hour)}, nil},
		{"daily", Quota{Limit: 5, Remaining: FullQuota, Refill: RefillDaily},
			Quota{Limit: 5, Remaining: 5, Refill: RefillDaily, RefilledAt: noon.Truncate(24 * time.Hour)}, nil},
		{"no limit", Quota{Remaining: FullQuota, Refill: RefillDaily}, Quota{}, []string{"quota.limit"}},
		{"too large", Quota{Limit: maxQuota + 1, Remaining: FullQuota}, Quota{}, []string{"quota.limit"}},
		{"more than the limit", Quota{Limit: 5, Remaining: 6}, Quota{}, []string{"quota.remaining"}},
		{"a day of what is not monthly", Quota{Limit: 5, Refill: RefillDaily, RefillDay: 3}, Quota{}, []string{"quota.refill_day"}},
		{"a day of no month", Quota{Limit: 5, Refill: RefillMonthly, RefillDay: 32}, Quota{}, []string{"quota.refill_day"}},
	} {
		k, err := testRules().Create(Key{Label: "x", Quota: c.asked}, noon)
		if diff := cmp.Diff(c.want, k.Quota); diff != "" && c.problems == nil {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
		if got := fieldsOf(err); !slices.Equal(got, c.problems) {
			t.Errorf("%s: problems %q, want %q", c.name, got, c.problems)
		}
	}
}

func fieldsOf(err error) (fields []string) {
	if e := AsError(err); e != nil {
		for _, f := range e.Fields {
			fields = append(fields, f.Field)
		}
	}
	return fields
}

func TestQuotaUpdates(t *testing.T) {
	t.Parallel()
	month := noon.AddDate(0, 0, 1-noon.Day()).Truncate(24 * time.Hour)
	today := noon.Truncate(24 * time.Hour)
	monthly := Quota{Limit: 100, Remaining: 40, Refill: RefillMonthly, RefillDay: 1, RefilledAt: month}
	for _, c := range []struct {
		name     string
		before   Quota
		paths    []string
		values   Quota
		want     Quota
		problems []string
	}{
		{"nothing", monthly, nil, Quota{Limit: 7}, monthly, nil},
		{"the same", monthly, []string{"quota.limit", "quota.remaining"}, Quota{Limit: 100, Remaining: 40}, monthly, nil},
		{"topped up", monthly, []string{"quota.remaining"}, Quota{Remaining: 99}, Quota{100, 99, RefillMonthly, 1, month, 0}, nil},
		{"topped up to all", monthly, []string{"quota.remaining"}, Quota{}, Quota{100, 100, RefillMonthly, 1, month, 0}, nil},
		{"emptied", monthly, []string{"quota.remaining"}, Quota{Refill: RefillNone}, Quota{100, 0, RefillMonthly, 1, month, 0}, nil},
		{"topped up too far", monthly, []string{"quota.remaining"}, Quota{Remaining: 101}, monthly, []string{"quota.remaining"}},
		{"a higher limit", monthly, []string{"quota.limit"}, Quota{Limit: 1000}, Quota{1000, 40, RefillMonthly, 1, month, 0}, nil},
		{"a lower limit", monthly, []string{"quota.limit"}, Quota{Limit: 30}, Quota{30, 30, RefillMonthly, 1, month, 0}, nil},
		{"no limit", monthly, []string{"quota.limit"}, Quota{}, monthly, []string{"quota.limit"}},
		{"another day", monthly, []string{"quota.refill_day"}, Quota{RefillDay: 31}, Quota{100, 40, RefillMonthly, 31, dayOfMonth(noon.Year(), noon.Month()-1, 31), 0}, nil},
		{"daily", monthly, []string{"quota.refill"}, Quota{Refill: RefillDaily}, Quota{100, 40, RefillDaily, 0, today, 0}, nil},
		{"daily, with a day", monthly, []string{"quota.refill_day", "quota.refill"}, Quota{Refill: RefillDaily, RefillDay: 2}, monthly, []string{"quota.refill_day"}},
		{"taken away", monthly, []string{"quota"}, Quota{}, Quota{}, nil},
		{"replaced", monthly, []string{"quota"}, Quota{Limit: 5, Remaining: FullQuota}, Quota{5, 5, RefillNone, 0, time.Time{}, 0}, nil},
		{"given", Quota{}, []string{"quota.limit"}, Quota{Limit: 5}, Quota{5, 5, RefillNone, 0, time.Time{}, 0}, nil},
		{"given in part", Quota{}, []string{"quota.refill"}, Quota{Refill: RefillDaily}, Quota{}, []string{"quota.limit"}},
		{"years ahead, another limit", Quota{100, 40, RefillDaily, 0, today.AddDate(10, 0, 0), 0}, []string{"quota.limit"}, Quota{Limit: 200}, Quota{200, 40, RefillDaily, 0, today, 0}, nil},
		{"years ahead, the same", Quota{100, 40, RefillDaily, 0, today.AddDate(10, 0, 0), 0}, []string{"quota.remaining"}, Quota{Remaining: 40}, Quota{100, 40, RefillDaily, 0, today, 0}, nil},
		{"years ahead, replaced", Quota{100, 40, RefillDaily, 0, today.AddDate(10, 0, 0), 0}, []string{"quota"}, Quota{Limit: 7, Remaining: 6, Refill: RefillDaily}, Quota{7, 6, RefillDaily, 0, today, 0}, nil},
		{"a period ahead, another limit", Quota{100, 40, RefillDaily, 0, today.AddDate(0, 0, 1), 0}, []string{"quota.limit"}, Quota{Limit: 200}, Quota{200, 40, RefillDaily, 0, today.AddDate(0, 0, 1), 0}, nil},
		{"a period ahead, topped up", Quota{100, 40, RefillDaily, 0, today.AddDate(0, 0, 1), 0}, []string{"quota.remaining"}, Quota{Remaining: 50}, Quota{100, 50, RefillDaily, 0, today, 0}, nil},
		{"after a refill", Quota{100, 4, RefillDaily, 0, today.AddDate(0, 0, -3), 0}, []string{"quota.limit"}, Quota{Limit: 200},
			Quota{200, 100, RefillDaily, 0, today, 0}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := testKey()
			k.Quota = c.before
			before := k
			err := testRules().Update(&k, Patch{c.paths, Key{Quota: c.values}}, noon)
			if got := fieldsOf(err); !slices.Equal(got, c.problems) {
				t.Fatalf("problems %q, want %q", got, c.problems)
			}
			if diff := cmp.Diff(c.want, k.Quota); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			changed := slices.Equal(Changes(&before, &k, noon), []string{"quota"})
			if want := c.want != c.before.refilled(noon); changed != want {
				t.Errorf("changed = %t", changed)
			}
			if err := rightsOf(&before).CheckUpdate(&k, Actor{Kind: ActorKey, ID: before.ID}, Changes(&before, &k, noon)); (AsError(err) != nil) != changed {
				t.Errorf("a key that changes its own quota: %v", err)
			}
		})
	}
}

// Time that passes is no change, and one by a wrong clock is not put right by an
// update of something else.
func TestRefillIsNoChange(t *testing.T) {
	t.Parallel()
	for _, days := range []int{-2, 1, 4000} {
		k := testKey()
		k.Quota = Quota{Limit: 10, Refill: RefillDaily, RefilledAt: noon.AddDate(0, 0, days).Truncate(24 * time.Hour)}
		before := k
		if err := testRules().Update(&k, Patch{[]string{"label"}, Key{Label: "other"}}, noon); err != nil {
			t.Fatal(err)
		}
		if got := Changes(&before, &k, noon); !slices.Equal(got, []string{"label"}) {
			t.Errorf("%d days ahead: changes %q", days, got)
		}
	}
}
