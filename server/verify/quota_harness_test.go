package verify

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
)

// fakeQuotas is what is stored of quotas. Tests can make it fail and hold it up.
type fakeQuotas struct {
	mu     sync.Mutex
	byID   map[string]apikey.Quota
	asked  int // transactions
	broken error
	onAsk  func() // called at the start of each
	// onGrant, where it is set, is called with the units of each grant.
	onGrant func(units int64)
	// onReturn, where it is set, is called before a return is stored.
	onReturn func()
}

var _ meter.QuotaStore = (*fakeQuotas)(nil)

func (f *fakeQuotas) ReserveQuota(_ context.Context, asks []apikey.QuotaAsk, now time.Time) ([]apikey.QuotaGrant, error) {
	f.mu.Lock()
	hook := f.onAsk
	f.mu.Unlock()
	if hook != nil {
		hook()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.broken != nil {
		return nil, f.broken
	}
	grants := make([]apikey.QuotaGrant, len(asks))
	for i, a := range asks {
		q, ok := f.byID[a.KeyID]
		if !ok || q.Epoch != a.Quota.Epoch {
			continue
		}
		q = q.At(now)
		units := apikey.Block(a.Want, q.Remaining)
		if f.onGrant != nil {
			f.onGrant(units)
		}
		q.Remaining -= units
		f.byID[a.KeyID] = q
		grants[i] = apikey.QuotaGrant{Units: units, Quota: q}
	}
	return grants, nil
}

func (f *fakeQuotas) ReturnQuota(_ context.Context, returns []apikey.QuotaReturn) error {
	f.mu.Lock()
	hook := f.onReturn
	f.mu.Unlock()
	if hook != nil {
		hook()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return f.broken
	}
	for _, r := range returns {
		if q := f.byID[r.KeyID]; q.Epoch == r.Epoch && q.RefilledAt.Equal(r.RefilledAt) {
			q.Remaining += r.Units
			f.byID[r.KeyID] = q
		}
	}
	return nil
}

// of returns a key's quota.
func (f *fakeQuotas) of(id string) (apikey.Quota, bool) {
	if f == nil {
		return apikey.Quota{}, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	q, ok := f.byID[id]
	return q, ok
}

func (f *fakeQuotas) remaining(id string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byID[id].Remaining
}

func (f *fakeQuotas) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// A quotaHarness is a verifier over keys with quotas.
type quotaHarness struct {
	*harness
	keys   *fakeKeys
	quotas *fakeQuotas
	clock  *clock.Clock
}

func newQuotaHarness(t testing.TB) *quotaHarness {
	t.Helper()
	r := &quotaHarness{keys: newFakeKeys(), quotas: &fakeQuotas{byID: make(map[string]apikey.Quota)}, clock: newClock()}
	r.keys.quotas = r.quotas
	r.restart(t)
	return r
}

// restart is what a crash leaves: storage alone.
func (r *quotaHarness) restart(t testing.TB) {
	t.Helper()
	r.harness = newVerifier(t, r.keys, r.clock.Now)
}

func (r *quotaHarness) create(t testing.TB, limit int64, refill apikey.Refill, rate apikey.RateLimit) (apikey.Key, string) {
	t.Helper()
	q := apikey.Quota{Limit: limit, Remaining: limit, Refill: refill, Epoch: 1}
	if refill == apikey.RefillMonthly {
		q.RefillDay = 1
	}
	q.RefilledAt = q.PeriodStart(r.clock.Now())
	k, secret := r.keys.create(t, apikey.Key{OrganizationID: "org_a", Quota: q, RateLimit: rate}, 0)
	r.quotas.byID[k.ID] = q
	return k, secret
}

// set changes a key's quota as an update does.
func (r *quotaHarness) set(t testing.TB, k *apikey.Key, change func(q *apikey.Quota)) {
	t.Helper()
	resume, err := r.PauseQuota(t.Context(), k.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer resume()
	r.quotas.mu.Lock()
	k.Quota = r.quotas.byID[k.ID]
	k.Quota.Epoch++
	change(&k.Quota)
	r.quotas.byID[k.ID] = k.Quota
	r.quotas.mu.Unlock()
	r.keys.change(r.harness, *k)
}

// spend makes n calls one after the other and returns how many were valid.
func (r *quotaHarness) spend(t testing.TB, secret string, n, cost int) (valid int) {
	t.Helper()
	for range n {
		switch got := ask(t, r.harness, Request{Secret: secret, Cost: cost}); got.Code {
		case apikey.CodeValid:
			valid++
		case apikey.CodeQuotaExceeded:
		default:
			t.Errorf("code %s", got.Code)
		}
	}
	return valid
}

// times is n requests that are alike.
func times(n int, secret string, cost int) []Request {
	return slices.Repeat([]Request{{Secret: secret, Cost: cost}}, n)
}
