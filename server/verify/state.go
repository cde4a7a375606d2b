package verify

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// state is what changes of a key while it is used: its limit and its counters.
// There is one for each key id, whichever secret is presented and however often
// the key's entries come and go.
type state struct {
	id string
	// cached counts the entries of the cache that point here.
	cached atomic.Int32

	mu      sync.Mutex
	bucket  bucket
	usage   apikey.Usage // as of now, what is not yet stored included
	unsent  int64        // counted since the last flush, or not stored by it
	sending int64        // in a flush under way, so stored or unsent again soon
	gone    bool         // no longer the key's state: ask states for the new one
}

// states holds the state of every key that is cached, has unsent counts, or has
// not got its whole burst back.
type states struct {
	mu    sync.Mutex
	byID  map[string]*state
	dirty []*state // those with unsent counts
}

// hold returns the state of k for one more entry that points to it; it is made
// of what is stored where there is none. The entry counts from here on, before it
// is cached, so that no sweep comes in between.
func (s *states) hold(k *apikey.Key) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.getLocked(k.ID, k.Usage)
	st.cached.Add(1)
	return st
}

// lock locks and returns st or, where a sweep has forgotten st since the caller
// found it, the state that took its place. That one goes on from what st last
// counted: the entry of the caller may be from long before.
func (s *states) lock(st *state) *state {
	st.mu.Lock()
	for st.gone {
		id, usage := st.id, st.usage
		st.mu.Unlock()
		s.mu.Lock()
		st = s.getLocked(id, usage)
		s.mu.Unlock()
		st.mu.Lock()
	}
	return st
}

func (s *states) getLocked(id string, usage apikey.Usage) *state {
	st, ok := s.byID[id]
	if !ok {
		st = &state{id: id, usage: usage}
		s.byID[id] = st
	}
	return st
}

// countLocked adds one use at now and returns the usage with it. The caller
// holds st.mu.
func (s *states) countLocked(st *state, now time.Time) apikey.Usage {
	st.usage.TotalRequests++
	if now.After(st.usage.LastUsedAt) {
		st.usage.LastUsedAt = now
	}
	if st.unsent++; st.unsent == 1 {
		s.mu.Lock()
		s.dirty = append(s.dirty, st)
		s.mu.Unlock()
	}
	return st.usage
}

// flush stores what was counted since the last flush. What cannot be stored is
// kept for the next.
func (s *states) flush(ctx context.Context, keys Keys) error {
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = nil
	s.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	counts := make([]apikey.UsageCount, len(dirty))
	byID := make(map[string]*state, len(dirty))
	for i, st := range dirty {
		st.mu.Lock()
		counts[i] = apikey.UsageCount{KeyID: st.id, Count: st.unsent, LastUsedAt: st.usage.LastUsedAt}
		st.sending += st.unsent
		st.unsent = 0
		st.mu.Unlock()
		byID[st.id] = st
	}
	stored, err := keys.AddUsage(ctx, counts)
	for i, c := range counts {
		st := byID[c.KeyID]
		st.mu.Lock()
		st.sending -= c.Count
		again := i >= stored && st.unsent == 0
		if i >= stored {
			st.unsent += c.Count
		}
		st.mu.Unlock()
		if again {
			s.mu.Lock()
			s.dirty = append(s.dirty, st)
			s.mu.Unlock()
		}
	}
	return err
}

// sweep forgets the states that nothing points to and that hold nothing a new
// one would not: no counts that are not stored, those of a flush under way
// included, and a whole burst. now is in microseconds.
func (s *states) sweep(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, st := range s.byID {
		if st.cached.Load() > 0 || !st.mu.TryLock() {
			continue
		}
		if st.unsent == 0 && st.sending == 0 && st.fullLocked(now) {
			st.gone = true
			delete(s.byID, id)
		}
		st.mu.Unlock()
	}
}

// fullLocked reports whether the whole burst is there. The caller holds st.mu.
func (st *state) fullLocked(now int64) bool {
	st.bucket.drain(st.bucket.limit, now)
	return st.bucket.debt == 0
}
