package meter

import (
	"context"
	"math"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Charge charges a verification of a key to its limits and counts it. It completes
// result, whose Key, Code and At it is given: where the code is valid and a limit
// refuses the cost, the code becomes that of the limit. All limits are looked at
// before any of them is spent, so one that refuses leaves the others whole. A code
// that is a refusal already spends nothing.
//
// A cost of zero spends nothing and counts nothing.
//
// Where units of the quota have to be fetched first, Charge does nothing and
// returns a pending ticket: [Meter.Wait] for it, check the key again, and charge
// again.
func (m *Meter) Charge(c *Counters, cost int, result *apikey.Verification) Ticket {
	c = m.registry.lock(c)
	defer c.mu.Unlock()
	key := result.Key
	limited := key.RateLimit != (apikey.RateLimit{})
	now := m.micros(result.At)
	if limited {
		c.limiter.advance(key.RateLimit, now)
		if result.Code == apikey.CodeValid {
			if result.RetryAfter = c.limiter.wait(cost, now); result.RetryAfter > 0 {
				result.Code = apikey.CodeRateLimited
			}
		}
	}
	var b *budget
	if key.Quota.Limit > 0 {
		b = c.budgetLocked(&key.Quota, result.At)
		if need := int64(cost) - b.held; need > 0 && result.Code == apikey.CodeValid {
			if b.mayHave(need, result.At) {
				return m.reservations.joinLocked(c, b, need)
			}
			result.Code = apikey.CodeQuotaExceeded
			if at := b.quota.NextRefill(); !at.IsZero() {
				result.RetryAfter = at.Sub(result.At)
			}
		}
	}
	if result.Code == apikey.CodeValid {
		if limited {
			c.limiter.spend(cost)
		}
		if b != nil {
			b.held -= int64(cost)
		}
	}
	if limited {
		remaining, full := c.limiter.left(now)
		result.Limit = apikey.LimitStatus{Limit: key.RateLimit.Requests, Remaining: remaining, ResetAt: result.At.Add(full)}
	}
	if b != nil {
		result.Quota = b.status()
	}
	if cost > 0 {
		m.registry.countLocked(c, result)
	}
	result.Usage = c.usage
	return Ticket{}
}

// CountUnknown counts what an organization asked about a secret of no key that it
// may know of.
func (m *Meter) CountUnknown(organization string, code apikey.Code, now time.Time) {
	m.registry.countUnknown(organization, code, now)
}

// Available is the most that calls could spend of a key's limits now.
type Available struct{ RateLimit, Quota int64 }

// Available returns the most that calls could spend of the limits of k at now. What
// is not limited is [math.MaxInt64].
func (m *Meter) Available(c *Counters, k *apikey.Key, now time.Time) Available {
	c = m.registry.lock(c)
	defer c.mu.Unlock()
	most := Available{math.MaxInt64, math.MaxInt64}
	if k.Quota.Limit > 0 {
		most.Quota = c.budgetLocked(&k.Quota, now).most(now)
	}
	if k.RateLimit != (apikey.RateLimit{}) {
		at := m.micros(now)
		c.limiter.advance(k.RateLimit, at)
		left, _ := c.limiter.left(at)
		most.RateLimit = int64(left)
	}
	return most
}

// Reserve reserves units of the quota of k for calls to come, beyond what is held
// already. The ticket is pending where there is something to wait for.
func (m *Meter) Reserve(c *Counters, k *apikey.Key, units int64, now time.Time) Ticket {
	c = m.registry.lock(c)
	defer c.mu.Unlock()
	b := c.budgetLocked(&k.Quota, now)
	if need := units - b.held; need > 0 {
		return m.reservations.joinLocked(c, b, need)
	}
	return Ticket{}
}

// Wait waits until units of a quota have been fetched for a ticket. stale says that
// the quota was set anew since the key was read: it has to be read again. Of a call
// that gives up, no more stays reserved than a server holds anyway.
func (m *Meter) Wait(ctx context.Context, t Ticket) (stale bool, err error) {
	return m.reservations.wait(ctx, t)
}

// Refund gives back units, by the id of the key, that were reserved for calls which
// have not spent them. What a server holds anyway stays.
func (m *Meter) Refund(unspent map[string]int64) {
	if len(unspent) > 0 {
		m.reservations.refund(&m.registry, unspent)
	}
}

// PauseQuota gives back what this server holds of a key's quota, and reserves
// nothing of it until resume is called, so that what is stored is all there is.
// Whoever sets the quota calls it before, and resume after.
func (m *Meter) PauseQuota(ctx context.Context, id string) (resume func(), err error) {
	return m.reservations.drain(ctx, &m.registry, []string{id})
}

// FillRemaining completes the quota of a key that was read from storage: what is
// left of it counts what this server holds in reserve, and a refill that has come
// since.
func (m *Meter) FillRemaining(k *apikey.Key) {
	if k.Quota.Limit == 0 {
		return
	}
	now := m.now()
	k.Quota = k.Quota.At(now)
	c := m.registry.find(k.ID)
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.budget
	if b == nil || b.quota.Epoch != k.Quota.Epoch {
		return
	}
	b.rollPeriod(now)
	if !b.quota.RefilledAt.Equal(k.Quota.RefilledAt) {
		return
	}
	if !b.knownAt.IsZero() {
		// What was reserved after the key was read is in neither of the two.
		k.Quota.Remaining = min(k.Quota.Remaining, b.quota.Remaining)
	}
	k.Quota.Remaining += b.held
}
