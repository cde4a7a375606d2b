package meter

import (
	"context"
	"math"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/broken"
)

// Charge charges a verification of a key to its limits and counts it. It completes
// result, whose Key, Code and At it is given: where the code is valid and a limit
// refuses the cost, the code becomes that of the limit. All limits are looked at
// before any of them is spent, so one that refuses leaves the others whole. A code
// that is a refusal already spends nothing.
//
// A cost of zero spends nothing, counts nothing, and is not put on record. by tells
// from where the key was used, and by whom.
//
// Where units of the quota, or requests of an exact rate limit, have to be fetched
// first, Charge does nothing and returns a pending ticket: [Meter.Wait] for it, check the key again, and charge
// again.
func (m *Meter) Charge(c *Counters, cost int, by *apikey.CheckRequest, result *apikey.Verification) Ticket {
	c = m.registry.lock(c)
	defer c.mu.Unlock()
	key := result.Key
	var local, exact bool
	if key.RateLimit != (apikey.RateLimit{}) {
		exact = key.RateLimit.Exact && !broken.Is(broken.ExactLocal)
		local = !exact
	}
	var now int64 // for the local limit
	if local {
		now = m.micros(result.At)
		c.limiter.Advance(key.RateLimit, now)
		if result.Code == apikey.CodeValid {
			if result.RetryAfter = c.limiter.Wait(cost, now); result.RetryAfter > 0 {
				result.Code = apikey.CodeRateLimited
			}
		}
	}
	var s *share
	if exact {
		s = c.shareLocked(key.RateLimit)
		if t := m.checkShareLocked(c, s, cost, result); t.Pending() {
			return t
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
		if local {
			c.limiter.Spend(cost)
		}
		if exact {
			s.spend(cost, result.At.UnixMicro())
		}
		if b != nil {
			b.spend(cost)
		}
	}
	switch {
	case local:
		remaining, full := c.limiter.Left(now)
		result.Limit = apikey.LimitStatus{Limit: key.RateLimit.Requests, Remaining: remaining, ResetAt: result.At.Add(full)}
	case exact:
		result.Limit = s.status(result.At.UnixMicro(), result.At)
	}
	if b != nil {
		result.Quota = b.status()
	}
	if cost > 0 {
		m.registry.countLocked(c, cost, by, result)
	}
	result.Usage = c.usage
	return Ticket{}
}

// checkShareLocked looks whether a call may have its cost of an exact rate limit, and
// refuses it where it may not. The ticket is pending where storage has to be asked:
// for requests, or by a call of whatever cost that is the first.
func (m *Meter) checkShareLocked(c *Counters, s *share, cost int, result *apikey.Verification) Ticket {
	if result.Code != apikey.CodeValid {
		return Ticket{}
	}
	now := result.At.UnixMicro()
	if held := s.held(now); s.knownAt != 0 && int64(cost) <= held {
		return Ticket{}
	}
	if s.knownAt != 0 && cost == 0 {
		return Ticket{}
	}
	wait, may := s.mayHave(cost, now)
	if may {
		return m.reservations.joinRateLocked(c, s, int64(cost), int64(cost))
	}
	result.Code, result.RetryAfter = apikey.CodeRateLimited, wait
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
	if k.RateLimit.Exact {
		most.RateLimit = c.shareLocked(k.RateLimit).most(now.UnixMicro())
	} else if k.RateLimit != (apikey.RateLimit{}) {
		at := m.micros(now)
		c.limiter.Advance(k.RateLimit, at)
		left, _ := c.limiter.Left(at)
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

// ReserveRate reserves requests of the exact rate limit of k for calls to come, in all
// with those that are held. The ticket is pending where there is something to wait
// for.
func (m *Meter) ReserveRate(c *Counters, k *apikey.Key, requests int64, now time.Time) Ticket {
	c = m.registry.lock(c)
	defer c.mu.Unlock()
	s := c.shareLocked(k.RateLimit)
	if at := now.UnixMicro(); requests > s.held(at) {
		if _, may := s.mayHave(int(min(requests, int64(k.RateLimit.Requests))), at); may {
			return m.reservations.joinRateLocked(c, s, requests, 1)
		}
	}
	return Ticket{}
}

// Wait waits until what a ticket is for has been fetched. stale says that
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

// PauseQuota gives back what this server holds of the quotas of keys, and reserves
// nothing of them until resume is called, so that what is stored is all there is.
// Whoever sets a quota calls it before, and resume after.
func (m *Meter) PauseQuota(ctx context.Context, ids ...string) (resume func(), err error) {
	return m.reservations.drain(ctx, &m.registry, ids)
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
