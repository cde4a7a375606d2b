package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

var bucketTests = map[string]func(*testing.T, *fixture){
	"Buckets":          testBuckets,
	"BucketsOfDeleted": testBucketsOfDeleted,
	"MostUsed":         testMostUsed,
	"MostUsedByDay":    testMostUsedByDay,
	"MostUsedAtOnce":   testMostUsedAtOnce,
	"DeleteUsage":      testDeleteUsage,
}

func at(clock storeClock, d time.Duration) time.Time { return apikey.Hourly.Start(clock.Now().Add(d)) }

func (f *fixture) usage(t *testing.T, id string, g apikey.Granularity) map[string]int64 {
	t.Helper()
	p := apikey.Period{Granularity: g, Since: f.clock.Now().AddDate(0, 0, -400), Until: f.clock.Now().AddDate(0, 0, 2)}
	buckets, err := f.Usage(t.Context(), org, id, p)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]int64)
	for i, b := range buckets {
		if i > 0 && !b.Start.After(buckets[i-1].Start) {
			t.Errorf("buckets out of order: %v, %v", buckets[i-1].Start, b.Start)
		}
		for code, n := range b.Counts {
			all[b.Start.Format("01-02 15 ")+string(code)] += n
		}
	}
	return all
}

func testBuckets(t *testing.T, f *fixture) {
	k, other := f.create(t, nil), f.create(t, nil)
	now := at(f.clock, 0) // 23:30 in UTC of a last of February, 01:30 by the clock's own zone
	count := func(id string, outcomes ...apikey.OutcomeCount) apikey.UsageCount {
		return apikey.UsageCount{KeyID: id, OrganizationID: org, Outcomes: outcomes}
	}
	for range 2 {
		f.addUsage(t,
			count(k.ID, apikey.OutcomeCount{Hour: now, Code: apikey.CodeValid, Count: 3}, apikey.OutcomeCount{Hour: now, Code: apikey.CodeExpired, Count: 1},
				apikey.OutcomeCount{Hour: now.Add(time.Hour), Code: apikey.CodeValid, Count: 5}),
			count(other.ID, apikey.OutcomeCount{Hour: now, Code: apikey.CodeValid, Count: 7}),
			count("", apikey.OutcomeCount{Hour: now, Code: apikey.CodeMalformed, Count: 9}),
			apikey.UsageCount{OrganizationID: "org_other", Outcomes: []apikey.OutcomeCount{{Hour: now, Code: apikey.CodeNotFound, Count: 2}}})
	}
	wantSame(t, "hours", map[string]int64{"02-28 23 valid": 6, "02-28 23 expired": 2, "03-01 00 valid": 10}, f.usage(t, k.ID, apikey.Hourly))
	wantSame(t, "days", map[string]int64{"02-28 00 valid": 6, "02-28 00 expired": 2, "03-01 00 valid": 10}, f.usage(t, k.ID, apikey.Daily))
	wantSame(t, "the organization's days",
		map[string]int64{"02-28 00 valid": 20, "02-28 00 expired": 2, "02-28 00 malformed": 18, "03-01 00 valid": 10}, f.usage(t, "", apikey.Daily))
	// Refusals alone are no use of the key.
	if used, err := f.Key(t.Context(), org, other.ID); err != nil || !used.Usage.LastUsedAt.IsZero() {
		t.Errorf("%+v, %v", used.Usage, err)
	}
	for _, organization := range []string{"org_other", ""} {
		if _, err := f.Usage(t.Context(), organization, k.ID, apikey.Period{Granularity: apikey.Hourly}); !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("for %q: %v", organization, err)
		}
	}
}

// testBucketsOfDeleted counts uses of a key that is gone: its organization's are
// counted on, the key's own do not come back.
func testBucketsOfDeleted(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	use := apikey.UsageCount{
		KeyID: k.ID, OrganizationID: org, Count: 1, LastUsedAt: f.clock.Now(),
		Outcomes: []apikey.OutcomeCount{{Hour: at(f.clock, 0), Code: apikey.CodeValid, Count: 1}},
	}
	f.addUsage(t, use)
	if err := f.DeleteKey(t.Context(), operator, org, k.ID); err != nil {
		t.Fatal(err)
	}
	f.addUsage(t, use)
	var rows int
	if err := f.Reader().QueryRowContext(t.Context(), "SELECT count(*) FROM usage_buckets WHERE key_id != ''").Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows of the key are left, %v", rows, err)
	}
	wantSame(t, "the organization's", map[string]int64{"02-28 23 valid": 2}, f.usage(t, "", apikey.Hourly))
}

func testMostUsed(t *testing.T, f *fixture) {
	var counts []apikey.UsageCount
	var ids []string
	for i := range 5 {
		k := f.create(t, func(k *apikey.Key) { k.Label = string(rune('a' + i)) })
		ids = append(ids, k.ID)
		counts = append(counts, apikey.UsageCount{KeyID: k.ID, OrganizationID: org, Outcomes: []apikey.OutcomeCount{
			{Hour: at(f.clock, 0), Code: apikey.CodeValid, Count: int64(1 + i/2)}, {Hour: at(f.clock, 0), Code: apikey.CodeExpired, Count: 100},
			{Hour: at(f.clock, -48*time.Hour), Code: apikey.CodeValid, Count: 100},
		}})
	}
	f.addUsage(t, counts...)
	p := apikey.Period{Granularity: apikey.Hourly, Since: at(f.clock, -time.Hour), Until: at(f.clock, time.Hour)}
	for limit, want := range map[int][]apikey.KeyUse{
		2:  {{KeyID: ids[4], Label: "e", Count: 3}, {KeyID: ids[2], Label: "c", Count: 2}},
		10: {{KeyID: ids[4], Label: "e", Count: 3}, {KeyID: ids[2], Label: "c", Count: 2}, {KeyID: ids[3], Label: "d", Count: 2}, {KeyID: ids[0], Label: "a", Count: 1}, {KeyID: ids[1], Label: "b", Count: 1}},
	} {
		got, err := f.MostUsed(t.Context(), org, p, limit)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, "most used", want, got)
	}
	if got, err := f.MostUsed(t.Context(), "org_other", p, 10); err != nil || len(got) != 0 {
		t.Errorf("of another organization: %v, %v", got, err)
	}
}

// testMostUsedByDay has a period of two whole days and parts of the days around
// them, each hour of which counts otherwise.
func testMostUsedByDay(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	var outcomes []apikey.OutcomeCount
	for i := range int64(96) {
		outcomes = append(outcomes, apikey.OutcomeCount{Hour: at(f.clock, -time.Duration(i)*time.Hour), Code: apikey.CodeValid, Count: 1000 + i})
	}
	f.addUsage(t, apikey.UsageCount{KeyID: k.ID, OrganizationID: org, Outcomes: outcomes})
	want := func(what string, first, end int64, gone int64) {
		t.Helper()
		var count int64
		for i := first; i < end; i++ {
			count += 1000 + i
		}
		p := apikey.Period{Granularity: apikey.Hourly, Since: at(f.clock, -time.Duration(end-1)*time.Hour), Until: at(f.clock, -time.Duration(first-1)*time.Hour)}
		got, err := f.MostUsed(t.Context(), org, p, 10)
		if err != nil || len(got) != 1 || got[0].Count != count-gone {
			t.Errorf("%s, hours %d to %d back: %+v, %v, want %d", what, first, end, got, err, count-gone)
		}
	}
	// It is 23:30, so that the hours from 24 to before 72 back are two days.
	for _, span := range [][2]int64{{5, 80}, {24, 72}, {25, 72}, {24, 71}, {20, 72}, {30, 40}, {23, 25}, {0, 96}} {
		want("all is kept", span[0], span[1], 0)
	}
	// The hours of the first two days are gone, the days are not.
	if _, err := f.DeleteUsageBefore(t.Context(), apikey.Hourly, at(f.clock, -46*time.Hour), 1000); err != nil {
		t.Fatal(err)
	}
	want("hours are gone", 5, 72, 0)
	want("hours are gone", 24, 48, 0)
	want("hours are gone", 24, 49, 1048)
}

// testMostUsedAtOnce says that the sum over all keys has one reader at most: the
// next one waits, as long as its caller does, and everybody else goes on.
func testMostUsedAtOnce(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	f.addUsage(t, apikey.UsageCount{KeyID: k.ID, OrganizationID: org, Outcomes: []apikey.OutcomeCount{{Hour: at(f.clock, 0), Code: apikey.CodeValid, Count: 1}}})
	p := apikey.Period{Granularity: apikey.Hourly, Since: at(f.clock, 0), Until: at(f.clock, time.Hour)}
	f.Summing() <- struct{}{} // somebody else's
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if got, err := f.MostUsed(ctx, org, p, 10); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", got, err)
	}
	f.wantKey(t, k)
	if got := f.usage(t, "", apikey.Hourly); len(got) != 1 {
		t.Errorf("usage %v", got)
	}
	<-f.Summing()
	for range 2 { // and each gives its place back
		if got, err := f.MostUsed(t.Context(), org, p, 10); err != nil || len(got) != 1 {
			t.Errorf("%v, %v", got, err)
		}
	}
}

func testDeleteUsage(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	var outcomes []apikey.OutcomeCount
	for i := range 72 {
		outcomes = append(outcomes, apikey.OutcomeCount{Hour: at(f.clock, -time.Duration(i)*time.Hour), Code: apikey.CodeValid, Count: 1})
	}
	f.addUsage(t, apikey.UsageCount{KeyID: k.ID, OrganizationID: org, Outcomes: outcomes})
	deleted := 0
	for {
		n, err := f.DeleteUsageBefore(t.Context(), apikey.Hourly, at(f.clock, -8*time.Hour), 50)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		deleted += n
	}
	if hours, days := f.usage(t, k.ID, apikey.Hourly), f.usage(t, k.ID, apikey.Daily); len(hours) != 10 || len(days) != 3 || deleted != 2*62 {
		t.Errorf("%d hours and %d days are left, %d were deleted", len(hours), len(days), deleted)
	}
	// What is old enough is the end of a bucket: until then it holds what is not.
	for _, c := range []struct {
		g      apikey.Granularity
		before time.Time
		want   int
	}{
		{apikey.Hourly, at(f.clock, -8*time.Hour), 0},
		{apikey.Hourly, at(f.clock, -8*time.Hour).Add(time.Microsecond), 2},
		{apikey.Daily, apikey.Daily.Start(f.clock.Now()).AddDate(0, 0, -1), 0},
		{apikey.Daily, apikey.Daily.Start(f.clock.Now()).AddDate(0, 0, -1).Add(time.Hour), 2},
		{apikey.Daily, f.clock.Now(), 2},
	} {
		if n, err := f.DeleteUsageBefore(t.Context(), c.g, c.before, 50); n != c.want || err != nil {
			t.Errorf("%v before %v: %d were deleted, %v", time.Duration(c.g), c.before, n, err)
		}
	}
}
