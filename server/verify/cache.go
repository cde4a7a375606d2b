package verify

import (
	"context"
	"sync"

	"github.com/maypok86/otter/v2"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// entry is a key as one of its secrets finds it. It never changes.
type entry struct {
	key      apikey.Key
	previous bool // found by the secret before the last rotation
	state    *state
}

// flight is a load of one secret under way, which others that miss it join.
type flight struct {
	hashes []apikey.Hash // of the secret, under each pepper
	trip   *trip
	done   chan struct{}
	entry  *entry // nil: no such key
	err    error
}

// trip is one read of the keys of all its flights.
type trip struct {
	flights []*flight
	waiting int // calls that wait for it; guarded by the cache's mu
	abandon context.CancelFunc
}

// cache holds the entries by the hash of their secret, and loads what it misses.
type cache struct {
	keys    Keys
	states  *states
	entries *otter.Cache[apikey.Hash, *entry]
	slots   chan struct{} // bounds the loads that run at a time

	// mu orders loads and evictions.
	mu      sync.Mutex
	flights map[apikey.Hash]*flight
	// evicted is the position of the newest eviction. A load that read the log at
	// an older position may have read what the eviction was about, so it is not
	// kept.
	evicted int64
	// evictions counts them.
	evictions int64
}

func newCache(keys Keys, states *states, size, loads int) (*cache, error) {
	c := &cache{keys: keys, states: states, slots: make(chan struct{}, loads), flights: make(map[apikey.Hash]*flight)}
	var err error
	c.entries, err = otter.New(&otter.Options[apikey.Hash, *entry]{
		MaximumSize: size,
		OnAtomicDeletion: func(e otter.DeletionEvent[apikey.Hash, *entry]) {
			e.Value.state.cached.Add(-1)
		},
	})
	return c, err
}

// evict drops what is cached under hashes. position is the log's after the change
// that made it stale. No later call joins a load that began before.
func (c *cache) evict(hashes []apikey.Hash, position int64) {
	if len(hashes) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.evicted = max(c.evicted, position)
	c.evictions++
	clear(c.flights)
	for _, h := range hashes {
		c.entries.Invalidate(h)
	}
}

// generation names what is cached: every entry that was found or loaded since it
// was read is good for as long as it stays the same.
func (c *cache) generation() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.evictions
}

// load reads the entries that secrets find, each given by its hash under each
// pepper; nil where there is none. What is missed together is read together, and
// calls that miss the same secret at the same time share one read.
func (c *cache) load(ctx context.Context, secrets ...[]apikey.Hash) ([]*entry, error) {
	flights := c.join(ctx, secrets)
	entries := make([]*entry, len(flights))
	for i, f := range flights {
		select {
		case <-f.done:
			if f.err != nil {
				c.leave(flights)
				return nil, f.err
			}
			entries[i] = f.entry
		case <-ctx.Done():
			c.leave(flights)
			return nil, ctx.Err()
		}
	}
	return entries, nil
}

// join returns the flights that are under way for secrets, and starts one trip
// for those that have none.
func (c *cache) join(ctx context.Context, secrets [][]apikey.Hash) []*flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	flights := make([]*flight, len(secrets))
	var t *trip
	for i, hashes := range secrets {
		f, ok := c.flights[hashes[0]]
		if !ok {
			if t == nil {
				t = &trip{}
			}
			f = &flight{hashes: hashes, trip: t, done: make(chan struct{})}
			t.flights = append(t.flights, f)
			c.flights[hashes[0]] = f
		}
		f.trip.waiting++
		flights[i] = f
	}
	if t != nil {
		// The read serves all who join, so it must outlive the first caller.
		var flying context.Context
		flying, t.abandon = context.WithCancel(context.WithoutCancel(ctx))
		go c.fly(flying, t)
	}
	return flights
}

// leave gives up waiting for flights. A trip that nobody waits for is abandoned,
// so there are never more of them than calls, however many come and go.
func (c *cache) leave(flights []*flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range flights {
		t := f.trip
		if t.waiting--; t.waiting > 0 {
			continue
		}
		t.abandon()
		for _, f := range t.flights {
			c.forgetLocked(f)
		}
	}
}

// forgetLocked lets nobody join f any more. The caller holds mu.
func (c *cache) forgetLocked(f *flight) {
	if c.flights[f.hashes[0]] == f {
		delete(c.flights, f.hashes[0])
	}
}

// read reads the keys of a trip once one of the slots is free.
func (c *cache) read(ctx context.Context, t *trip) ([]apikey.Key, int64, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
		// Of two cases that are ready, select takes either.
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		var hashes []apikey.Hash
		for _, f := range t.flights {
			hashes = append(hashes, f.hashes...)
		}
		return c.keys.KeysBySecret(ctx, hashes)
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

// fly reads the entries of a trip and keeps them, unless the log has moved past
// what it read by an eviction.
func (c *cache) fly(ctx context.Context, t *trip) {
	defer t.abandon() // only to free the context
	keys, position, err := c.read(ctx, t)
	found := make(map[apikey.Hash]*apikey.Key, len(keys))
	for i := range keys {
		for _, h := range keys[i].Hashes() {
			found[h] = &keys[i]
		}
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range t.flights {
		c.forgetLocked(f)
		f.err = err
		for _, h := range f.hashes {
			if key := found[h]; key != nil {
				f.entry = c.enterLocked(key, h, position)
				break
			}
		}
		close(f.done)
	}
}

// enterLocked returns the entry of a key as the secret with the hash h finds it,
// and keeps it if it is of the newest there is. The caller holds mu.
func (c *cache) enterLocked(key *apikey.Key, h apikey.Hash, position int64) *entry {
	e := &entry{key: *key, previous: h != key.Secret.Hash, state: c.states.hold(key)}
	if position < c.evicted {
		e.state.cached.Add(-1)
	} else {
		c.entries.Set(h, e)
	}
	return e
}
