package meter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// awayStore is storage that can be away.
type awayStore struct {
	away   atomic.Bool
	stored atomic.Int64
}

var errAway = errors.New("the disk")

func (s *awayStore) AddUsage(_ context.Context, counts []apikey.UsageCount) (int, error) {
	if s.away.Load() {
		return 0, errAway
	}
	for _, c := range counts {
		s.stored.Add(c.Count)
	}
	return len(counts), nil
}

func (s *awayStore) ReserveQuota(_ context.Context, asks []apikey.QuotaAsk, _ time.Time) ([]apikey.QuotaGrant, error) {
	return make([]apikey.QuotaGrant, len(asks)), nil
}

func (s *awayStore) ReturnQuota(context.Context, []apikey.QuotaReturn) error {
	if s.away.Load() {
		return errAway
	}
	return nil
}

// newAwayMeter returns a meter whose log is text, over storage.
func newAwayMeter() (m *Meter, s *awayStore, text *bytes.Buffer) {
	s, text = new(awayStore), new(bytes.Buffer)
	return New(Config{Usage: s, Quotas: s, Logger: slog.New(slog.NewTextHandler(text, nil))}), s, text
}

func checkOutage(t *testing.T, text *bytes.Buffer, begin, end string) {
	t.Helper()
	if got := text.String(); strings.Count(got, "\n") != 2 || strings.Count(got, begin) != 1 || strings.Count(got, end) != 1 {
		t.Errorf("the log: %s", got)
	}
}

// Storage that is away for a while loses no count, and is two lines of the log.
func TestCountersWithoutStorage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, s, text := newAwayMeter()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		key := apikey.Key{ID: "api_key_1"}
		counters := m.Acquire(&key)
		use := func() {
			m.Charge(counters, 1, &apikey.CheckRequest{}, &apikey.Verification{Key: &key, Code: apikey.CodeValid, At: time.Now()})
		}
		s.away.Store(true)
		for range 60 {
			use()
			time.Sleep(time.Second)
		}
		s.away.Store(false)
		time.Sleep(2 * time.Second)
		counters.Release()
		stop()
		if err := <-done; err != nil || s.stored.Load() != 60 {
			t.Errorf("%d of 60 stored, %v", s.stored.Load(), err)
		}
		checkOutage(t, text, "The usage counters could not be stored; they are kept and tried again.", "The usage counters are stored again.")
	})
}

// What cannot be given back of quotas is told once, however many callers meet it.
func TestRefundsWithoutStorage(t *testing.T) {
	t.Parallel()
	m, s, text := newAwayMeter()
	returns := []apikey.QuotaReturn{{KeyID: "api_key_1", Units: 1}}
	s.away.Store(true)
	for range 100 {
		m.reservations.storeReturns(returns)
	}
	s.away.Store(false)
	m.reservations.storeReturns(returns)
	checkOutage(t, text, "could not be given back; it is lost", "given back again")
}

// TestUnknownIsBounded counts secrets of no key for as many organizations as anyone can
// name: only so many are remembered until the next flush, and those still count.
func TestUnknownIsBounded(t *testing.T) {
	m := New(Config{})
	for i := range maxUnknown + 100 {
		m.CountUnknown(fmt.Sprint("org_", i), apikey.CodeNotFound, time.Unix(1, 0))
	}
	m.CountUnknown("org_0", apikey.CodeNotFound, time.Unix(1, 0))
	counts, _ := m.registry.takeCounts()
	if len(counts) != maxUnknown {
		t.Errorf("counts of %d organizations, want %d", len(counts), maxUnknown)
	}
	for _, n := range counts {
		if want := map[bool]int{true: 2, false: 1}[n.OrganizationID == "org_0"]; len(n.Outcomes) != 1 || int(n.Outcomes[0].Count) != want {
			t.Fatalf("%s: %+v, want %d", n.OrganizationID, n.Outcomes, want)
		}
	}
}
