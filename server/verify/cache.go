package verify

import (
	"context"
	"errors"
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

// flight is a load under way, which others that miss the same secret join.
type flight struct {
	done  chan struct{}
	entry *entry // nil: no such key
	err   error

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
	clear(c.flights)
	for _, h := range hashes {
		c.entries.Invalidate(h)
	}
}

// load reads the entry that one of hashes, of one secret under each pepper,
// finds; nil where there is none. Calls that miss the same secret at the same
// time share one read.
func (c *cache) load(ctx context.Context, hashes []apikey.Hash) (*entry, error) {
	f := c.join(ctx, hashes)
	select {
	case <-f.done:
		return f.entry, f.err
	case <-ctx.Done():
		c.leave(f, hashes[0])
		return nil, ctx.Err()
	}
}

// join returns the flight that is under way for a secret, or starts one.
func (c *cache) join(ctx context.Context, hashes []apikey.Hash) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.flights[hashes[0]]
	if !ok {
		// The read serves all who join, so it must outlive the first caller.
		flying, abandon := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{done: make(chan struct{}), abandon: abandon}
		c.flights[hashes[0]] = f
		go c.fly(flying, f, hashes)
	}
	f.waiting++
	return f
}

// leave gives up waiting for f. A flight that nobody waits for is abandoned, so
// there are never more of them than calls, however many come and go.
func (c *cache) leave(f *flight, hash apikey.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiting--; f.waiting > 0 {
		return
	}
	f.abandon()
	if c.flights[hash] == f {
		delete(c.flights, hash)
	}
}

// read reads the key of a flight once one of the slots is free.
func (c *cache) read(ctx context.Context, hashes []apikey.Hash) (apikey.Key, int64, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
		// Of two cases that are ready, select takes either.
		if ctx.Err() != nil {
			return apikey.Key{}, 0, ctx.Err()
		}
		return c.keys.KeyBySecret(ctx, hashes)
	case <-ctx.Done():
		return apikey.Key{}, 0, ctx.Err()
	}
}

// fly reads the entry of a flight and keeps it, unless the log has moved past
// what it read by an eviction.
func (c *cache) fly(ctx context.Context, f *flight, hashes []apikey.Hash) {
	defer f.abandon() // only to free the context
	key, position, err := c.read(ctx, hashes)

	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.done)
	if c.flights[hashes[0]] == f {
		delete(c.flights, hashes[0])
	}
	switch {
	case errors.Is(err, apikey.ErrNotFound):
		return
	case err != nil:
		f.err = err
		return
	}
	f.entry = &entry{key: key, state: c.states.hold(&key)}
	stored := key.Secret.Hash
	for _, h := range hashes {
		if h != key.Secret.Hash && h == key.Previous.Hash {
			f.entry.previous, stored = true, h
		}
	}
	if position < c.evicted {
		f.entry.state.cached.Add(-1)
		return
	}
	c.entries.Set(stored, f.entry)
}
