package authn

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// heldCalls are the functions that wait for their time, which a test makes pass.
type heldCalls []func()

func (h *heldCalls) after(d time.Duration, f func()) {
	if d != time.Second {
		panic(d)
	}
	*h = append(*h, f)
}

// pass makes a second pass.
func (h *heldCalls) pass() {
	due := *h
	*h = nil
	for _, f := range due {
		f()
	}
}

func newRefusals(level slog.Level) (*Refusals, *heldCalls, *bytes.Buffer) {
	held, log := new(heldCalls), new(bytes.Buffer)
	return &Refusals{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level})), After: held.after}, held, log
}

// lines returns what was logged since the last call, a line each.
func lines(log *bytes.Buffer) []string {
	defer log.Reset()
	return strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
}

// TestRefusals holds the flood of one address to a line a second, which has the
// address, the count and the latest call.
func TestRefusals(t *testing.T) {
	t.Parallel()
	r, held, log := newRefusals(slog.LevelInfo)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for i := range 3000 {
		r.Log(t.Context(), a, "UNAUTHENTICATED", "call failed", slog.Int("call", i))
	}
	r.Log(t.Context(), b, "UNAUTHENTICATED", "call failed")
	r.Log(t.Context(), a, "ROUTE_NOT_FOUND", "call failed")
	r.Log(t.Context(), netip.Addr{}, "ROUTE_NOT_FOUND", "call failed")
	got := lines(log)
	for i, want := range []string{"call=0 address=192.0.2.1 count=1", "address=2001:db8::1 count=1", "address=192.0.2.1 count=1", "address=unknown count=1"} {
		if len(got) != 4 || !strings.HasSuffix(got[i], want) {
			t.Fatalf("the first lines are %q, want one that ends in %s", got, want)
		}
	}
	held.pass()
	if got := lines(log); len(got) != 1 || !strings.HasSuffix(got[0], "call=2999 address=192.0.2.1 count=2999") {
		t.Errorf("after a second there are %q", got)
	}
	r.Log(t.Context(), a, "UNAUTHENTICATED", "call failed")
	if log.Len() > 0 {
		t.Errorf("a second line within a second: %s", log)
	}
	held.pass()
	if got := lines(log); len(got) != 1 || !strings.HasSuffix(got[0], "count=1") {
		t.Errorf("after two seconds there are %q", got)
	}
	held.pass()
	held.pass()
	if log.Len() > 0 || len(r.open) > 0 || len(*held) > 0 {
		t.Errorf("of a quiet address there are left %d entries, %d timers, %s", len(r.open), len(*held), log)
	}
}

// TestRefusalsOfManyAddresses holds memory and lines to a bound when each call comes
// from another address.
func TestRefusalsOfManyAddresses(t *testing.T) {
	t.Parallel()
	r, held, log := newRefusals(slog.LevelInfo)
	for i := range 100_000 {
		r.Log(t.Context(), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "UNAUTHENTICATED", "call failed")
	}
	if got := len(lines(log)); got > maxRefusals+1 || len(r.open) > maxRefusals+1 {
		t.Errorf("%d lines and %d entries, want %d at most", got, len(r.open), maxRefusals+1)
	}
	held.pass()
	want := fmt.Sprintf("count=%d many_addresses=true", 100_000-maxRefusals-1)
	if got := lines(log); len(got) != 1 || !strings.HasSuffix(got[0], want) {
		t.Errorf("after a second there are %q, want %s", got, want)
	}
}

// TestRefusalsInDetail has each call in the log at debug level.
func TestRefusalsInDetail(t *testing.T) {
	t.Parallel()
	r, _, log := newRefusals(slog.LevelDebug)
	for i := range 3 {
		r.Log(t.Context(), netip.Addr{}, "UNAUTHENTICATED", "call failed", slog.Int("call", i))
	}
	if got := lines(log); len(got) != 3 || !strings.Contains(got[2], "level=DEBUG") || !strings.Contains(got[2], "call=2") {
		t.Errorf("%q", got)
	}
}
