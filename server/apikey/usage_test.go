package apikey

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestNewPeriod(t *testing.T) {
	t.Parallel()
	now := day("2026-03-01T12:34:56Z")
	for _, c := range []struct {
		g            Granularity
		since, until string
		want         [2]string
		problem      []string
	}{
		{Hourly, "", "", [2]string{"2026-02-28T13:00:00Z", "2026-03-01T13:00:00Z"}, nil},
		{Daily, "", "", [2]string{"2026-01-31T00:00:00Z", "2026-03-02T00:00:00Z"}, nil},
		{Hourly, "2026-03-01T10:59:59Z", "2026-03-01T11:00:00Z", [2]string{"2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z"}, nil},
		{Hourly, "2026-03-01T10:59:59Z", "2026-03-01T11:00:00.001Z", [2]string{"2026-03-01T10:00:00Z", "2026-03-01T12:00:00Z"}, nil},
		{Daily, "2026-02-28T23:00:00+02:00", "", [2]string{"2026-02-28T00:00:00Z", "2026-03-02T00:00:00Z"}, nil},
		{Hourly, "", "2025-01-01T00:00:00Z", [2]string{"2024-12-31T00:00:00Z", "2025-01-01T00:00:00Z"}, nil},
		{Hourly, "2026-03-01T13:00:00Z", "", [2]string{}, []string{"since"}},
		{Hourly, "2026-03-01T11:00:00Z", "2026-03-01T11:00:00Z", [2]string{}, []string{"since"}},
		{Hourly, "2026-01-01T00:00:00Z", "", [2]string{}, []string{"since"}}, // too many
		{Hourly, "2026-03-01T09:30:00Z", "2026-03-01T09:30:00Z", [2]string{}, []string{"since"}},
		{Hourly, "2026-03-01T09:30:00.000001Z", "2026-03-01T09:30:00Z", [2]string{}, []string{"since"}},
		{Hourly, "2026-03-01T09:30:00Z", "2026-03-01T09:30:00.000001Z", [2]string{"2026-03-01T09:00:00Z", "2026-03-01T10:00:00Z"}, nil},
		{Hourly, "2026-03-01T12:59:00Z", "", [2]string{"2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z"}, nil}, // by a clock ahead of ours
		{Daily, "2026-03-01T01:00:00Z", "2026-02-28T23:00:00Z", [2]string{}, []string{"since"}},
		{Hourly, "", "9999-12-31T23:00:00Z", [2]string{"9999-12-30T23:00:00Z", "9999-12-31T23:00:00Z"}, nil},
		{Hourly, "", "9999-12-31T23:59:59Z", [2]string{}, []string{"until"}},
		{Daily, "9999-12-30T00:00:00Z", "9999-12-31T00:00:00.001Z", [2]string{}, []string{"until"}},
		{Daily, "", "1970-01-01T00:00:00Z", [2]string{"1969-12-02T00:00:00Z", "1970-01-01T00:00:00Z"}, nil},
	} {
		var since, until time.Time
		if c.since != "" {
			since = day(c.since)
		}
		if c.until != "" {
			until = day(c.until)
		}
		p, err := NewPeriod(c.g, since, until, now)
		if got := fieldsOf(err); !slices.Equal(got, c.problem) {
			t.Errorf("%s to %s: %v", c.since, c.until, err)
		} else if err == nil && (!p.Since.Equal(day(c.want[0])) || !p.Until.Equal(day(c.want[1]))) {
			t.Errorf("%s to %s: %v to %v, want %v", c.since, c.until, p.Since, p.Until, c.want)
		}
	}
	p := Period{Hourly, day("2026-03-01T11:00:00Z"), day("2026-03-01T13:00:00Z")}
	for now, want := range map[time.Time]time.Duration{
		p.Since.Add(-1): 0, p.Since.Add(time.Minute): time.Minute, p.Until: 2 * time.Hour, p.Until.Add(time.Hour): 2 * time.Hour,
	} {
		if got := p.Passed(now); got != want {
			t.Errorf("at %v %v have passed, want %v", now, got, want)
		}
	}
}

// The parts of a period are all of it, in order, and hours only where a day is not
// whole.
func TestPeriodParts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.SampledFrom([]Granularity{Hourly, Daily}).Draw(t, "granularity")
		n := rapid.Int64Range(1, MaxBuckets).Draw(t, "buckets")
		p := Period{Granularity: width, Since: width.Start(time.Unix(rapid.Int64Range(0, 4_000_000_000).Draw(t, "since"), 0))}
		p.Until = p.Since.Add(time.Duration(n) * time.Duration(width))
		at, hours := p.Since, time.Duration(0)
		for _, part := range p.Parts() {
			if part.Since != at || !part.Until.After(at) || part.Granularity.Start(at) != at || part.Granularity.Start(part.Until) != part.Until {
				t.Fatalf("%v to %v has the part %v to %v by %v", p.Since, p.Until, part.Since, part.Until, time.Duration(part.Granularity))
			}
			if at = part.Until; part.Granularity == Hourly {
				hours += part.Until.Sub(part.Since)
			}
		}
		if at != p.Until || len(p.Parts()) > 3 || hours > 46*time.Hour || width == Daily && hours > 0 {
			t.Fatalf("%v to %v ends at %v, %v by the hour", p.Since, p.Until, at, hours)
		}
	})
}

func TestFillAndTotal(t *testing.T) {
	t.Parallel()
	p := Period{Hourly, day("2026-03-01T11:00:00Z"), day("2026-03-01T14:00:00Z")}
	found := []Bucket{
		{p.Since, map[Code]int64{CodeValid: 2, CodeExpired: 1}},
		{p.Since.Add(2 * time.Hour), map[Code]int64{CodeValid: 3}},
		{p.Until, map[Code]int64{CodeValid: 9}}, // outside
	}
	want := []Bucket{found[0], {Start: p.Since.Add(time.Hour)}, found[1]}
	if diff := cmp.Diff(want, p.Fill(found)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[Code]int64{CodeValid: 5, CodeExpired: 1}, Total(found[:2])); diff != "" {
		t.Error(diff)
	}
}
