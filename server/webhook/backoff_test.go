package webhook

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSchedule(t *testing.T) {
	t.Parallel()
	middle := Backoff{Rand: func() float64 { return 0.5 }}
	var total time.Duration
	for n, want := range DefaultDelays() {
		got, more := middle.Next(n+1, 0)
		if !more || got.Round(time.Millisecond) != want {
			t.Errorf("after %d failures: %v, want %v", n+1, got, want)
		}
		total += got
	}
	if total < 3*24*time.Hour || total > 4*24*time.Hour {
		t.Errorf("the schedule takes %v", total)
	}
	if _, more := middle.Next(len(DefaultDelays())+1, time.Second); more {
		t.Error("the schedule has no end")
	}
	if got, more := (Backoff{Delays: []time.Duration{time.Minute}}).Next(1, 0); !more || got < 48*time.Second || got > 72*time.Second {
		t.Errorf("a schedule of one: %v", got)
	}
}

func TestDelaysStayInBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		failures := rapid.IntRange(-1, 14).Draw(t, "failures")
		asked := time.Duration(rapid.Int64().Draw(t, "asked"))
		share := rapid.Float64Range(0, 0.999999).Draw(t, "random")
		got, more := Backoff{Rand: func() float64 { return share }}.Next(failures, asked)
		delays := DefaultDelays()
		if more != (failures >= 1 && failures <= len(delays)) {
			t.Fatalf("more: %v", more)
		}
		if !more {
			return
		}
		plain := float64(delays[failures-1])
		low, high := time.Duration(plain*0.8), time.Duration(plain*1.2)
		if got < low || got > max(high, maxRetryAfter) || asked < low && got > high || got < min(asked, maxRetryAfter) {
			t.Fatalf("%v after %d failures when asked for %v", got, failures, asked)
		}
	})
}

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 9, 30, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                                 0,
		"0":                                0,
		"120":                              2 * time.Minute,
		" 120 ":                            2 * time.Minute,
		"86400":                            24 * time.Hour,
		"86401":                            24 * time.Hour,
		"99999999999999999999":             24 * time.Hour,
		"-5":                               0,
		"1.5":                              0,
		"1e3":                              0,
		"soon":                             0,
		"٣":                                0,
		"Sat, 21 Nov 2026 09:31:00 GMT":    time.Minute,
		"Saturday, 21-Nov-26 09:31:00 GMT": time.Minute,
		"Sat Nov 21 09:31:00 2026":         time.Minute,
		"Sat, 21 Nov 2026 09:29:00 GMT":    0,
		"Fri, 31 Dec 9999 23:59:59 GMT":    24 * time.Hour,
		"Mon, 01 Jan 0001 00:00:00 GMT":    0,
	} {
		if got := ParseRetryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{"", "120", "99999999999999999999", "Sat, 21 Nov 2026 09:31:00 GMT", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if got := ParseRetryAfter(value, testNow); got < 0 || got > maxRetryAfter {
			t.Errorf("%q: %v", value, got)
		}
	})
}
