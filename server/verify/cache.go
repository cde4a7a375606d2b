package verify

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/broken"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/meter"
)

// entry is an immutable snapshot of a key, cached under the hash of its current or
// previous secret.
type entry struct {
	key      apikey.Key
	previous bool   // cached under the hash of the previous secret
	encoded  string // what Config.Encode made of the key
	counters *meter.Counters
	position int64 // of the log, at which the key was read, or an earlier one
	// sibling is the next entry of the same key; the index alone reads and writes it.
	sibling *entry
}

// hash returns the hash that the entry is cached under.
func (e *entry) hash() apikey.Hash {
	if e.previous {
		return e.key.Previous.Hash
	}
	return e.key.Secret.Hash
}

// lookup is a secret that is being looked up in storage. Calls that miss the same
// secret join it.
type lookup struct {
	hashes []apikey.Hash // of the secret, under each pepper
	read   *read
	done   chan struct{}
	entry  *entry // nil: no such key
	err    error
}

// read is one read of the keys of all its lookups.
type read struct {
	lookups []*lookup
	cancel  context.CancelFunc
	// Guarded by the cache's mu: how many calls wait for it, how many drops there had
	// been when it began, and where it stands in the cache's reads.
	waiting int
	began   int64
	place   *list.Element
	// started is when the statement began, by the machine's clock; zero before that, and
	// where no other server changes keys.
	started time.Duration
	// discard says that nothing of what it finds is to be kept.
	discard bool
}

// loadTimeout bounds how long the read of a key of several servers may take, with the
// time that it waits for others.
const loadTimeout = 2 * time.Second

// maxDrops bounds how many drops are remembered one by one.
const maxDrops = 10_000

// dropped is a key that was dropped. The position is the log's after the change
// that made its entries stale.
type dropped struct {
	id               string
	position, number int64
}

// cache holds the entries by the hash of their secret, and loads what it misses.
type cache struct {
	keys    KeyStore
	meter   *meter.Meter
	encode  func(*apikey.Key) string
	entries *otter.Cache[apikey.Hash, *entry]
	index   index
	slots   chan struct{} // bounds the reads that run at a time
	clock   *feed.Clock   // nil where only this process changes keys
	// dropped and evicted count entries, for CacheStats.
	dropped, evicted atomic.Uint64

	// mu orders loads and drops.
	mu      sync.Mutex
	lookups map[apikey.Hash]*lookup // that calls may join, by the hash under the newest pepper
	reads   list.List               // of *read, those under way, oldest first
	// drops counts all drops. newest has the newest drop of each key that a read
	// under way may have read too early, and queue has them in their order. Those that
	// were too many for it count as drops of every key, at the position floor.
	drops  int64
	newest map[string]dropped
	queue  []dropped
	floor  int64
}

func newCache(config *Config) (*cache, error) {
	c := &cache{
		keys: config.Keys, meter: config.Meter, encode: config.Encode, slots: make(chan struct{}, config.Loads), clock: config.Clock,
		lookups: make(map[apikey.Hash]*lookup), newest: make(map[string]dropped),
		index: index{byID: make(map[string]*entry)},
	}
	var err error
	c.entries, err = otter.New(&otter.Options[apikey.Hash, *entry]{
		MaximumSize: config.CacheSize,
		OnAtomicDeletion: func(e otter.DeletionEvent[apikey.Hash, *entry]) {
			if e.WasEvicted() {
				c.evicted.Add(1)
			}
			c.index.remove(e.Value)
			e.Value.counters.Release()
		},
	})
	return c, err
}

// drop drops the entries of keys. position is the log's after the change that made
// them stale; an entry that was read there or later stays. Without a position all of
// them go. No later call joins a read that began before, and what such a read finds of
// these keys at an older position is not kept.
func (c *cache) drop(ids []string, position int64) {
	if len(ids) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	clear(c.lookups)
	for _, id := range ids {
		if c.reads.Len() > 0 {
			c.rememberLocked(dropped{id, position, c.drops})
		}
		for _, h := range c.index.hashes(id, position) {
			c.entries.Invalidate(h)
			c.dropped.Add(1)
		}
	}
}

// dropAll drops all entries. No later call joins a read that began before, and nothing of
// such a read is kept.
func (c *cache) dropAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	clear(c.lookups)
	for r := c.reads.Front(); r != nil; r = r.Next() {
		r.Value.(*read).discard = true
	}
	// Whatever was noted for these reads is of no use, and its positions may be those of
	// another log.
	clear(c.newest)
	c.queue, c.floor = nil, 0
	c.entries.InvalidateAll()
}

// rememberLocked notes a drop for the reads that are under way.
func (c *cache) rememberLocked(d dropped) {
	d.position = max(d.position, c.newest[d.id].position)
	c.newest[d.id] = d
	c.queue = append(c.queue, d)
	if len(c.queue) > maxDrops {
		c.floor = max(c.floor, c.queue[0].position)
		c.forgetDropLocked()
	}
}

// forgetDropLocked forgets the oldest drop.
func (c *cache) forgetDropLocked() {
	if oldest := c.queue[0]; c.newest[oldest.id].number == oldest.number {
		delete(c.newest, oldest.id)
	}
	c.queue = c.queue[1:]
}

// staleLocked reports whether a key that was read at a position has been dropped
// for a later change.
func (c *cache) staleLocked(id string, position int64) bool {
	if broken.Is(broken.StaleEntry) {
		return false
	}
	return position < c.floor || position < c.newest[id].position
}

// generation names what is cached: every entry that was found or loaded since it
// was read is good for as long as it stays the same.
func (c *cache) generation() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

// load reads the entries that secrets find, each given by its hash under each
// pepper; nil where there is none. What is missed together is read together, and
// calls that miss the same secret at the same time share one lookup.
func (c *cache) load(ctx context.Context, secrets ...[]apikey.Hash) ([]*entry, error) {
	lookups := c.join(ctx, secrets)
	entries := make([]*entry, len(lookups))
	for i, l := range lookups {
		select {
		case <-l.done:
			if l.err != nil {
				c.leave(lookups)
				return nil, l.err
			}
			entries[i] = l.entry
		case <-ctx.Done():
			c.leave(lookups)
			return nil, ctx.Err()
		}
	}
	return entries, nil
}

// join returns the lookups that are under way for secrets, and starts one read for
// those that have none.
func (c *cache) join(ctx context.Context, secrets [][]apikey.Hash) []*lookup {
	c.mu.Lock()
	defer c.mu.Unlock()
	lookups := make([]*lookup, len(secrets))
	var r *read
	for i, hashes := range secrets {
		l, ok := c.lookups[hashes[0]]
		if !ok || c.lateLocked(l.read) {
			if r == nil {
				r = &read{began: c.drops}
			}
			l = &lookup{hashes: hashes, read: r, done: make(chan struct{})}
			r.lookups = append(r.lookups, l)
			c.lookups[hashes[0]] = l
		}
		l.read.waiting++
		lookups[i] = l
	}
	if r != nil {
		r.place = c.reads.PushBack(r)
		// The read serves all who join, so it must outlive the first caller.
		var reading context.Context
		reading, r.cancel = c.bounded(context.WithoutCancel(ctx))
		go c.complete(reading, r)
	}
	return lookups
}

// lateLocked reports whether a read began too long ago for a call to join it: another
// server may have changed its keys since.
func (c *cache) lateLocked(r *read) bool {
	return c.clock != nil && r.started != 0 && c.clock.Boot()-r.started >= feed.MaxAge
}

// bounded returns a context for a read.
func (c *cache) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.clock == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, loadTimeout)
}

// start notes that the statement of a read begins.
func (c *cache) start(r *read) {
	if c.clock == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.started = c.clock.Boot()
}

// leave gives up waiting for lookups. A read that nobody waits for is cancelled, so
// there are never more of them than calls, however many come and go.
func (c *cache) leave(lookups []*lookup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range lookups {
		r := l.read
		if r.waiting--; r.waiting > 0 {
			continue
		}
		r.cancel()
		for _, l := range r.lookups {
			c.closeLocked(l)
		}
	}
}

// closeLocked lets nobody join l any more. The caller holds mu.
func (c *cache) closeLocked(l *lookup) {
	if c.lookups[l.hashes[0]] == l {
		delete(c.lookups, l.hashes[0])
	}
}

// find reads the keys of a read once one of the slots is free.
func (c *cache) find(ctx context.Context, r *read) ([]apikey.Key, int64, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
		// Of two cases that are ready, select takes either.
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		c.start(r)
		var hashes []apikey.Hash
		for _, l := range r.lookups {
			hashes = append(hashes, l.hashes...)
		}
		return c.keys.KeysBySecret(ctx, hashes)
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

// complete reads the entries of r, keeps those that no drop has made stale
// meanwhile, and answers the calls that wait for them.
func (c *cache) complete(ctx context.Context, r *read) {
	defer r.cancel() // only to free the context
	keys, position, err := c.find(ctx, r)
	found := make(map[apikey.Hash]*apikey.Key, len(keys))
	for i := range keys {
		for _, h := range keys[i].Hashes() {
			found[h] = &keys[i]
		}
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range r.lookups {
		c.closeLocked(l)
		l.err = err
		for _, h := range l.hashes {
			if key := found[h]; key != nil {
				l.entry = c.enterLocked(key, h, position, r.discard)
				break
			}
		}
		if err == nil && l.entry == nil {
			c.forgetLocked(l.hashes)
		}
		close(l.done)
	}
	c.endLocked(r)
}

// enterLocked returns the entry of a key under the hash h, and keeps it unless it is
// stale, or one that was read later is there. The caller holds mu.
func (c *cache) enterLocked(key *apikey.Key, h apikey.Hash, position int64, discard bool) *entry {
	e := &entry{key: *key, previous: h != key.Secret.Hash, counters: c.meter.Acquire(key), position: position}
	e.key.LastUse = nil // no answer tells it
	if c.encode != nil {
		e.encoded = c.encode(key)
		e.key = e.key.SharingTexts(e.encoded)
	}
	if kept, ok := c.entries.GetIfPresent(h); discard || c.staleLocked(key.ID, position) || ok && kept.position > position {
		e.counters.Release()
	} else {
		c.index.add(e)
		c.entries.Set(h, e)
	}
	return e
}

// forgetLocked drops what is cached under the hashes of a secret that no key has. Another
// server has deleted the key, or ended the secret, and the log that says so has not been
// read here: whoever has been told so must not be told otherwise by the next call.
func (c *cache) forgetLocked(hashes []apikey.Hash) {
	for _, h := range hashes {
		if _, ok := c.entries.Invalidate(h); ok {
			c.dropped.Add(1)
		}
	}
}

// endLocked ends a read, and forgets the drops that were remembered for it and are
// of no use to the reads that began later.
func (c *cache) endLocked(r *read) {
	c.reads.Remove(r.place)
	front := c.reads.Front()
	if front == nil {
		clear(c.newest)
		c.queue = nil
		return
	}
	for oldest := front.Value.(*read).began; len(c.queue) > 0 && c.queue[0].number <= oldest; {
		c.forgetDropLocked()
	}
}

// index finds the cached entries of a key by its id. It has a lock of its own,
// since otter tells of a deletion while it holds one of its locks.
type index struct {
	mu   sync.Mutex
	byID map[string]*entry // the first of the key's entries
}

// add adds an entry that is about to be cached.
func (x *index) add(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.sibling = x.byID[e.key.ID]
	x.byID[e.key.ID] = e
}

// remove removes an entry that is not cached any more.
func (x *index) remove(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	first := x.byID[e.key.ID]
	if first != e {
		for ; first != nil; first = first.sibling {
			if first.sibling == e {
				first.sibling = e.sibling
				return
			}
		}
		return
	}
	// The text that the map has as its key goes with its entry, and keeps none alive.
	delete(x.byID, e.key.ID)
	if e.sibling != nil {
		x.byID[e.sibling.key.ID] = e.sibling
	}
}

// hashes returns what the entries of a key are cached under that were read before a
// position; all of them, where that is zero.
func (x *index) hashes(id string, position int64) (hashes []apikey.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for e := x.byID[id]; e != nil; e = e.sibling {
		if position == 0 || e.position < position {
			hashes = append(hashes, e.hash())
		}
	}
	return hashes
}
