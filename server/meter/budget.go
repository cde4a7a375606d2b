package meter

import (
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// budget is what this server knows and holds of one key's quota.
type budget struct {
	// quota is the key's as of the last grant; its Remaining is what storage had
	// left then.
	quota apikey.Quota
	// held was reserved and is not spent yet.
	held int64
	// knownAt is when quota was granted from; the zero time where it was merely read
	// with the key, which may be older than what was given back since.
	knownAt time.Time
	pending *reservation // that calls wait for; nil for none
	// idle counts the passes of returnIdle since units were last spent.
	idle int8
}

// budgetLocked returns the budget of c for a key with quota q at now. The caller
// holds c.mu.
func (c *Counters) budgetLocked(q *apikey.Quota, now time.Time) *budget {
	b := c.budget
	if b == nil {
		b = &budget{quota: *q}
		c.budget = b
	}
	if q.Epoch > b.quota.Epoch {
		// What was reserved before the quota was set anew is void.
		b.quota, b.held, b.knownAt = *q, 0, time.Time{}
	}
	b.rollPeriod(now)
	return b
}

// rollPeriod ends the period if its time is over, or if a wrong clock began it, and what
// is held of it. Storage is then asked before anything is spent, so that it goes
// on from the same period.
func (b *budget) rollPeriod(now time.Time) {
	if current := b.quota.At(now); !current.RefilledAt.Equal(b.quota.RefilledAt) {
		b.quota, b.held, b.knownAt = current, 0, time.Time{}
	}
}

// knownFor is how long a server believes that nothing more is left: another one
// on the same database may have given something back.
const knownFor = 10 * time.Second

// known reports whether this server knows what is left.
func (b *budget) known(now time.Time) bool {
	return !b.knownAt.IsZero() && now.Sub(b.knownAt) <= knownFor
}

// mayHave reports whether storage may have that many units left.
func (b *budget) mayHave(units int64, now time.Time) bool {
	return b.quota.Remaining >= units || !b.known(now)
}

// most returns how many units calls can get at most, those that are held included.
func (b *budget) most(now time.Time) int64 {
	if b.known(now) {
		return b.left()
	}
	return b.quota.Limit
}

// spend spends units that are held.
func (b *budget) spend(cost int) {
	b.held -= int64(cost)
	b.idle = 0
}

// left returns what remains, as far as this server knows.
func (b *budget) left() int64 { return b.held + b.quota.Remaining }

// status returns what a caller is told.
func (b *budget) status() apikey.QuotaStatus {
	return apikey.QuotaStatus{Limit: b.quota.Limit, Remaining: b.left(), RefillAt: b.quota.NextRefill()}
}

// receive adds a grant of an ask, unless it is of an epoch that is over: then it is
// void. Which period it is of, storage decides: where that is one that is over,
// the next rollPeriod ends it; and where this server had begun a later one by a
// clock that was set back since, refusing it would mean to ask for ever.
func (b *budget) receive(g apikey.QuotaGrant, now time.Time) {
	if g.Quota.Epoch < b.quota.Epoch {
		return
	}
	if g.Quota.Epoch > b.quota.Epoch || !g.Quota.RefilledAt.Equal(b.quota.RefilledAt) {
		b.held = 0
	}
	b.quota, b.knownAt, b.idle = g.Quota, now, 0
	b.held += g.Units
}

// waitedFor reports whether calls wait for units. A nil budget has none.
func (b *budget) waitedFor() bool { return b != nil && b.pending != nil }

// holds reports whether units are held. A nil budget holds none.
func (b *budget) holds() bool { return b != nil && b.held > 0 }

// drain takes what is held out of the budget, as a return that is appended to
// returns. A nil budget holds nothing.
func (b *budget) drain(id string, returns []apikey.QuotaReturn) []apikey.QuotaReturn {
	if !b.holds() {
		return returns
	}
	b.knownAt = time.Time{}
	return b.putBack(id, b.held, returns)
}

// refund takes units out of the budget that were reserved for calls and are not
// spent, as a return that is appended to returns. No more than a block stays, as
// it would after any grant. A nil budget holds nothing.
func (b *budget) refund(id string, units int64, returns []apikey.QuotaReturn) []apikey.QuotaReturn {
	if !b.holds() {
		return returns
	}
	if units = min(units, b.held-apikey.Block(0, b.left())); units <= 0 {
		return returns
	}
	return b.putBack(id, units, returns)
}

// putBack takes units that are held out of the budget.
func (b *budget) putBack(id string, units int64, returns []apikey.QuotaReturn) []apikey.QuotaReturn {
	b.held -= units
	b.quota.Remaining += units
	return append(returns, apikey.QuotaReturn{KeyID: id, Units: units, Epoch: b.quota.Epoch, RefilledAt: b.quota.RefilledAt})
}
