package meter

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Counters are what changes of a key while it is used: its rate limiter, what is
// held of its quota, and its counts. There is one for each key id, whichever secret
// is presented and however often the key is cached and dropped.
type Counters struct {
	id, organization string
	// holders counts the cached keys that point here.
	holders atomic.Int32

	mu      sync.Mutex
	limiter apikey.Limiter
	budget  *budget      // nil until the key's quota is first asked for
	share   *share       // nil until the key's exact rate limit is first asked for
	usage   apikey.Usage // as of now, what is not yet stored included
	unsent  unsent       // valid uses since the last flush, or not stored by it
	seen    uint64       // what the latest use was like: see client.use
	tally   tally        // of all outcomes, likewise
	units   units        // of valid uses, likewise
	client  *client      // of the latest use; nil for none
	listed  bool         // in the list of those that have something to store
	sending bool         // in a flush under way, so stored or unsent again soon
	holding bool         // in the list of those that may hold something reserved
	retired bool         // no longer the key's counters: ask the registry for the new ones
}

// unsent is how many uses are not stored yet.
type unsent struct {
	requests int64
	previous int64 // those by the previous secret
}

// Release ends one hold of [Meter.Acquire].
func (c *Counters) Release() { c.holders.Add(-1) }

// Acquire returns the counters of k and holds them until Release. They are made of
// what is stored where there are none. They are held from here on, before the key
// is cached, so that no sweep comes in between.
func (m *Meter) Acquire(k *apikey.Key) *Counters {
	r := &m.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.getLocked(k.ID, k.OrganizationID, k.Usage)
	c.holders.Add(1)
	return c
}

// registry holds the counters of every key that is cached, has unsent counts, or
// has not got its whole burst back.
type registry struct {
	mu    sync.Mutex
	byID  map[string]*Counters
	dirty []*Counters // those with something to store
	holds []*Counters // those that may hold something reserved
	// unknown counts, by organization, what it asked of secrets of no key.
	unknown map[string]*tally
	// refusals are those of all keys that are not stored yet.
	refusals refusals
	agents   agents
}

// lock locks and returns c or, where a sweep has forgotten c since the caller
// found it, the counters that took its place. Those go on from what c last
// counted: the key that the caller has may be from long before.
func (r *registry) lock(c *Counters) *Counters {
	c.mu.Lock()
	for c.retired {
		id, organization, usage := c.id, c.organization, c.usage
		c.mu.Unlock()
		r.mu.Lock()
		c = r.getLocked(id, organization, usage)
		r.mu.Unlock()
		c.mu.Lock()
	}
	return c
}

// find returns the counters of a key, nil where there are none.
func (r *registry) find(id string) *Counters {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

func (r *registry) getLocked(id, organization string, usage apikey.Usage) *Counters {
	c, ok := r.byID[id]
	if !ok {
		c = &Counters{id: id, organization: organization, usage: usage}
		r.byID[id] = c
	}
	return c
}

// countLocked counts a verification that cost something. Only valid ones are part of the key's usage.
// The caller holds c.mu.
func (r *registry) countLocked(c *Counters, cost int, by *apikey.CheckRequest, v *apikey.Verification) {
	hour := hourOf(v.At)
	if v.Code == apikey.CodeValid {
		c.units.count(v.Key.OwnerID, cost, v.At)
		c.usage.TotalRequests++
		c.unsent.requests++
		if v.At.After(c.usage.LastUsedAt) {
			c.usage.LastUsedAt = v.At
			c.useLocked(by, hour)
		}
		if v.Previous {
			c.countPreviousLocked(v.Key.Rotations, v.At)
		}
	} else {
		r.refuseLocked(c, v.Key, by, v.Code, v.At)
	}
	c.tally.count(v.Code, hour)
	r.listLocked(c)
}

// countPreviousLocked counts a use of the secret before rotation number rotation.
// What is counted for an older one is of a secret that has ended, and is forgotten.
func (c *Counters) countPreviousLocked(rotation int64, now time.Time) {
	switch p := &c.usage.Previous; {
	case rotation < p.Rotation:
		return
	case rotation > p.Rotation:
		*p, c.unsent.previous = apikey.PreviousUsage{Rotation: rotation}, 0
	}
	c.usage.Previous.Requests++
	c.unsent.previous++
	if now.After(c.usage.Previous.LastUsedAt) {
		c.usage.Previous.LastUsedAt = now
	}
}

// listLocked lists c as one that has something to store. The caller holds c.mu.
func (r *registry) listLocked(c *Counters) {
	if !c.listed {
		c.listed = true
		r.mu.Lock()
		r.dirty = append(r.dirty, c)
		r.mu.Unlock()
	}
}

// sweep forgets the counters that nothing points to and that hold nothing that new
// ones would not: no counts that are not stored, those of a flush under way
// included, a whole burst, and nothing of a quota. It returns the ids of those
// that hold nothing but a quota: once that is refunded, the next sweep forgets
// them. now is in microseconds.
func (r *registry) sweep(now int64) (reserving []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.byID {
		// Locks are taken in the other order elsewhere, so this one must not wait.
		if c.holders.Load() > 0 || !c.mu.TryLock() {
			continue
		}
		switch {
		case c.listed || c.sending || !c.fullLocked(now) || c.budget.waitedFor() || c.share.open():
		case c.budget.holds():
			reserving = append(reserving, id)
		default:
			c.retired = true
			delete(r.byID, id)
		}
		c.mu.Unlock()
	}
	return reserving
}

// holdLocked lists c as one that may hold something reserved. The caller holds c.mu.
func (r *registry) holdLocked(c *Counters) {
	if !c.holding {
		c.holding = true
		r.mu.Lock()
		r.holds = append(r.holds, c)
		r.mu.Unlock()
	}
}

// idleQuota is after how many passes of returnIdle, one a second, units of a quota that
// nobody has spent any of are given back.
const idleQuota = 10

// takeHolds returns the counters that may hold something reserved, and the ids of the
// keys of whose quota units have been idle for long. Counters that hold nothing are
// not in the next.
func (r *registry) takeHolds() (all []*Counters, idle []string) {
	r.mu.Lock()
	all, r.holds = r.holds, nil
	r.mu.Unlock()
	for _, c := range all {
		c.mu.Lock()
		c.holding = false
		if c.budget.holds() {
			if c.budget.idle++; c.budget.idle > idleQuota {
				idle = append(idle, c.id)
			}
		}
		if c.budget.holds() || c.share.open() {
			r.holdLocked(c)
		}
		c.mu.Unlock()
	}
	return all, idle
}

// reserving returns the ids of all keys of whose quota units are held.
func (r *registry) reserving() (ids []string) {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.byID))
	r.mu.Unlock()
	for _, c := range all {
		c.mu.Lock()
		if c.budget.holds() {
			ids = append(ids, c.id)
		}
		c.mu.Unlock()
	}
	return ids
}

// fullLocked reports whether the whole burst is there. The caller holds c.mu.
func (c *Counters) fullLocked(now int64) bool {
	c.limiter.Advance(c.limiter.Limit, now)
	return c.limiter.Full()
}
