package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// checkRefusal checks the error about a text: one line of a bounded length.
func checkRefusal(t *testing.T, text string, err error) {
	t.Helper()
	if message := err.Error(); strings.ContainsAny(message, "\r\n") || len(message) > 500 {
		t.Errorf("%q is refused by %q", text, message)
	}
}

// Whatever is taken as a span is one, and is written as a text that means the same.
func FuzzPeriod(f *testing.F) {
	for _, seed := range []string{"", "0", "7d", "100000d", "-1d", "-200000d", "1h30m", "1.5h", "2562047h", "1ns", "+3d", "-0", "9223372036854775807ns", "1d1h", "99999999999999999999d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var p, again period
		if err := p.UnmarshalText([]byte(text)); err != nil {
			checkRefusal(t, text, err)
			return
		}
		if p < 0 || strings.HasPrefix(text, "-") && p != 0 {
			t.Errorf("%q is %s", text, p)
		}
		if err := again.UnmarshalText([]byte(p.String())); err != nil || again != p {
			t.Errorf("%q is %s, which is %s: %v", text, p, again, err)
		}
		if seconds := *p.seconds(); seconds < 0 || time.Duration(p) <= apikey.MaxOverlap && time.Duration(seconds) != time.Duration(p)/time.Second || time.Duration(p) > apikey.MaxOverlap && time.Duration(seconds)*time.Second < apikey.MaxOverlap {
			t.Errorf("%q is an overlap of %d seconds", text, seconds)
		}
	})
}

// A time that is looked back or forward to is one that a server can be told, and a span
// is before and after now.
func FuzzMoment(f *testing.F) {
	for _, seed := range []string{"", "90d", "2027-01-31", "2027-01-31 12:00:00", "2027-01-31T12:00:00", "2027-01-31T12:00:00.5+02:00", "0001-01-01", "0000-01-01", "9999-12-31T23:59:59-01:00", "100000d", "2027-01-31T1:00:00Z", "2027-01-31T12:00:00+24:00", "2027-02-30"} {
		f.Add(seed)
	}
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		var past pastTime
		var future futureTime
		err := past.UnmarshalText([]byte(text))
		if again := future.UnmarshalText([]byte(text)); (err == nil) != (again == nil) {
			t.Fatalf("%q: %v, %v", text, err, again)
		}
		if err != nil {
			checkRefusal(t, text, err)
			return
		}
		var span period
		isSpan := span.UnmarshalText([]byte(text)) == nil
		since, until := past.proto(now), future.proto(now)
		if since.CheckValid() != nil || until.CheckValid() != nil {
			t.Fatalf("%q is from %v to %v", text, since, until)
		}
		switch back, ahead := now.Sub(since.AsTime()), until.AsTime().Sub(now); {
		case isSpan && (back != time.Duration(span) || ahead != time.Duration(span)):
			t.Errorf("%q is %s ago, and in %s", text, back, ahead)
		case !isSpan && (!since.AsTime().Equal(until.AsTime()) || !strings.HasPrefix(text, past.at.Format("2006-01-02"))):
			t.Errorf("%q is %v and %v", text, since, until)
		}
	})
}

// A limit that is taken is written as a text that means the same.
func FuzzLimits(f *testing.F) {
	for _, seed := range []string{"", "100/1m", "100/m", "100/.5m", "100/1m,exact", "1/s,local", "1/1d,", "-5/1h", "+5/1h", "1/1000d", "1/1001d", "2147483648/1s", "1/0s", "1/1.5s", "1//", "1000", "1000/daily", "1000/monthly@15", "1000/monthly@", "1/none", "1/none@3", "5/@3", "99999999999999999999/daily", "1/monthly@2147483648"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r, sameRate rateLimit
		if err := r.UnmarshalText([]byte(text)); err != nil {
			checkRefusal(t, text, err)
		} else {
			limit := r.proto()
			written := fmt.Sprintf("%d/%ds", limit.GetRequests(), limit.GetWindowSeconds())
			if mode := limit.GetMode(); mode != apikeysv1.RateLimitMode_RATE_LIMIT_MODE_UNSPECIFIED {
				written += "," + strings.ToLower(strings.TrimPrefix(mode.String(), "RATE_LIMIT_MODE_"))
			}
			if err := sameRate.UnmarshalText([]byte(written)); err != nil || sameRate.proto().String() != limit.String() || limit.GetWindowSeconds() <= 0 {
				t.Errorf("%q is %s, which is %v: %v", text, written, sameRate.proto(), err)
			}
			rest, _, _ := strings.Cut(text, ",")
			_, window, _ := strings.Cut(rest, "/")
			var span period
			if span.UnmarshalText([]byte(window)) == nil && time.Duration(limit.GetWindowSeconds())*time.Second != time.Duration(span) {
				t.Errorf("%q is %s", text, written)
			}
		}
		var q, sameQuota quota
		if err := q.UnmarshalText([]byte(text)); err != nil {
			checkRefusal(t, text, err)
			return
		}
		value := q.proto()
		written := fmt.Sprint(value.GetLimit())
		if refill := value.GetRefill(); refill != apikeysv1.QuotaRefill_QUOTA_REFILL_UNSPECIFIED {
			written += "/" + strings.ToLower(strings.TrimPrefix(refill.String(), "QUOTA_REFILL_"))
		}
		if value.RefillDay != nil {
			written += fmt.Sprint("@", value.GetRefillDay())
		}
		if err := sameQuota.UnmarshalText([]byte(written)); err != nil || sameQuota.proto().String() != value.String() {
			t.Errorf("%q is %s, which is %v: %v", text, written, sameQuota.proto(), err)
		}
	})
}

// An entry of metadata is given as KEY=VALUE, and cleared as metadata.KEY: the key may be
// anything, and an update names it and nothing else.
func FuzzMetadata(f *testing.F) {
	for _, seed := range [][2]string{{"team", "billing"}, {"a.b", "c=d"}, {"`", "``"}, {"a,b", "1,2"}, {"", ""}, {"a;b", "'x'"}, {`a\`, `\=`}, {"日本", "\x00"}, {"a\nb", " "}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if name == "" || strings.Contains(name, "=") || !utf8.ValidString(name+value) {
			return // A call can hold no other text.
		}
		var commands commandLine
		if _, err := commands.parse(t.Context(), []string{"keys", "update", "k", "--metadata=" + name + "=" + value}, nil, streams{}); err != nil {
			t.Fatalf("--metadata %q: %v", name+"="+value, err)
		}
		update := &commands.Keys.Update
		if !maps.Equal(update.Metadata, map[string]string{name: value}) {
			t.Fatalf("--metadata %q is %q", name+"="+value, update.Metadata)
		}
		named := func(fields *keyFields, toClear ...string) string {
			key, paths, err := fields.patch(toClear, time.Time{})
			if err != nil || len(paths) != 1 || len(toClear) == 0 && key.GetMetadata()[name] != value {
				t.Fatalf("%q: %v by %q, %v", name, key, paths, err)
			}
			entry, ok, problem := apikey.EntryOf("metadata", paths[0])
			if !ok || problem != "" {
				t.Fatalf("%q is named %q: %s", name, paths[0], problem)
			}
			return entry
		}
		if got := named(&update.keyFields); got != name {
			t.Errorf("--metadata %q sets %q", name, got)
		}
		if got := named(&keyFields{}, "metadata."+name); got != name && strings.TrimSpace("."+name) == "."+name {
			t.Errorf("--clear metadata.%s clears %q", name, got)
		}
	})
}

// Fields are cleared that there are, by one path each.
func FuzzClear(f *testing.F) {
	for _, seed := range []string{"", "description", "scopes,quota", "owner,metadata.a,b", "metadata", "metadata.", " rate-limit ,", "metadata,metadata.a", "quota,quota", "label"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, paths, err := (&keyFields{}).patch([]string{text}, time.Time{})
		if err != nil {
			checkRefusal(t, text, err)
			return
		}
		if key.String() != "" || len(paths) == 0 {
			t.Errorf("%q sets %v by %q", text, key, paths)
		}
		seen := make(map[string]bool)
		for _, path := range paths {
			if seen[path] || path == "label" || path == "" {
				t.Errorf("%q clears %q", text, paths)
			}
			seen[path] = true
		}
	})
}
