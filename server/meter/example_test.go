package meter_test

import (
	"context"
	"fmt"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/meter"
)

// printed stores counts by printing them.
type printed struct{}

func (printed) AddUsage(_ context.Context, counts []apikey.UsageCount) (int, error) {
	for _, c := range counts {
		fmt.Println("store:", c.KeyID, "was used", c.Count, "times")
	}
	return len(counts), nil
}

// A key that allows two requests a minute is charged three times.
func ExampleMeter_Charge() {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	m := meter.New(meter.Config{Usage: printed{}, Now: func() time.Time { return now }})
	key := apikey.Key{ID: "api_key_1", RateLimit: apikey.RateLimit{Requests: 2, WindowSeconds: 60}}
	counters := m.Acquire(&key)
	defer counters.Release()
	for range 3 {
		v := apikey.Verification{Key: &key, Code: apikey.CodeValid, At: now}
		m.Charge(counters, 1, &apikey.CheckRequest{}, &v)
		fmt.Println(v.Code, "remaining:", v.Limit.Remaining, "wait:", v.RetryAfter)
	}
	if err := m.Flush(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// valid remaining: 1 wait: 0s
	// valid remaining: 0 wait: 0s
	// rate_limited remaining: 0 wait: 30s
	// store: api_key_1 was used 2 times
}

// stored is a quota of which 1,000 units are left.
type stored struct{ quota apikey.Quota }

func (s *stored) ReserveQuota(_ context.Context, asks []apikey.QuotaAsk, now time.Time) ([]apikey.QuotaGrant, error) {
	grants := make([]apikey.QuotaGrant, len(asks))
	for i, a := range asks {
		units := apikey.Block(a.Want, s.quota.Remaining)
		s.quota.Remaining -= units
		grants[i] = apikey.QuotaGrant{Units: units, Quota: s.quota}
		fmt.Println("store: asked for", a.Want, "granted", units)
	}
	return grants, nil
}

func (s *stored) ReturnQuota(_ context.Context, returns []apikey.QuotaReturn) error {
	for _, r := range returns {
		s.quota.Remaining += r.Units
		fmt.Println("store: returned", r.Units)
	}
	return nil
}

// Units of a quota are fetched in blocks. The call that finds none waits, and is
// charged again.
func ExampleMeter_Wait() {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	quota := apikey.Quota{Limit: 1000, Remaining: 1000, Refill: apikey.RefillNone, Epoch: 1}
	m := meter.New(meter.Config{Usage: printed{}, Quotas: &stored{quota}, Now: func() time.Time { return now }})
	key := apikey.Key{ID: "api_key_1", Quota: quota}
	counters := m.Acquire(&key)
	defer counters.Release()
	for range 2 {
		v := apikey.Verification{Key: &key, Code: apikey.CodeValid, At: now}
		for ticket := m.Charge(counters, 1, &apikey.CheckRequest{}, &v); ticket.Pending(); ticket = m.Charge(counters, 1, &apikey.CheckRequest{}, &v) {
			if _, err := m.Wait(context.Background(), ticket); err != nil {
				fmt.Println(err)
				return
			}
		}
		fmt.Println(v.Code, "remaining:", v.Quota.Remaining)
	}
	m.RefundAll(context.Background())
	// Output:
	// store: asked for 1 granted 63
	// valid remaining: 999
	// valid remaining: 998
	// store: returned 61
}
