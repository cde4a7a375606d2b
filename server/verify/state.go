package verify

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// state is what changes of a key while it is used: its limits and its counters.
// There is one for each key id, whichever secret is presented and however often
// the key's entries come and go.
type state struct {
	id, organization string
	// cached counts the entries of the cache that point here.
	cached atomic.Int32

	mu      sync.Mutex
	bucket  bucket
	budget  *budget      // nil until the key's quota is first asked for
	usage   apikey.Usage // as of now, what is not yet stored included
	unsent  int64        // valid uses since the last flush, or not stored by it
	tally   tally        // of all outcomes, likewise
	dirty   bool         // in the list of those that have something to store
	sending bool         // in a flush under way, so stored or unsent again soon
	gone    bool         // no longer the key's state: ask states for the new one
}

// states holds the state of every key that is cached, has unsent counts, or has
// not got its whole burst back.
type states struct {
	mu    sync.Mutex
	byID  map[string]*state
	dirty []*state // those with something to store
	// unknown counts, by organization, what it asked of secrets of no key.
	unknown map[string]*tally
}

// hold returns the state of k for one more entry that points to it; it is made
// of what is stored where there is none. The entry counts from here on, before it
// is cached, so that no sweep comes in between.
func (s *states) hold(k *apikey.Key) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.getLocked(k.ID, k.OrganizationID, k.Usage)
	st.cached.Add(1)
	return st
}

// lock locks and returns st or, where a sweep has forgotten st since the caller
// found it, the state that took its place. That one goes on from what st last
// counted: the entry of the caller may be from long before.
func (s *states) lock(st *state) *state {
	st.mu.Lock()
	for st.gone {
		id, organization, usage := st.id, st.organization, st.usage
		st.mu.Unlock()
		s.mu.Lock()
		st = s.getLocked(id, organization, usage)
		s.mu.Unlock()
		st.mu.Lock()
	}
	return st
}

// find returns the state of a key, nil where there is none.
func (s *states) find(id string) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

func (s *states) getLocked(id, organization string, usage apikey.Usage) *state {
	st, ok := s.byID[id]
	if !ok {
		st = &state{id: id, organization: organization, usage: usage}
		s.byID[id] = st
	}
	return st
}

// countLocked adds one verification with an outcome at now and returns the usage
// with it, of which only valid ones are part. The caller holds st.mu.
func (s *states) countLocked(st *state, code apikey.Code, now time.Time) apikey.Usage {
	if code == apikey.CodeValid {
		st.usage.TotalRequests++
		if now.After(st.usage.LastUsedAt) {
			st.usage.LastUsedAt = now
		}
		st.unsent++
	}
	st.tally.count(code, now)
	s.listLocked(st)
	return st.usage
}

// listLocked lists st as one that has something to store. The caller holds st.mu.
func (s *states) listLocked(st *state) {
	if !st.dirty {
		st.dirty = true
		s.mu.Lock()
		s.dirty = append(s.dirty, st)
		s.mu.Unlock()
	}
}

// countUnknown adds one verification of a secret of no key.
func (s *states) countUnknown(organization string, code apikey.Code, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unknownLocked(organization).count(code, now)
}

func (s *states) unknownLocked(organization string) *tally {
	t := s.unknown[organization]
	if t == nil {
		if s.unknown == nil {
			s.unknown = make(map[string]*tally)
		}
		t = new(tally)
		s.unknown[organization] = t
	}
	return t
}

// takeCounts returns what was counted since the last flush, and the states of the
// keys in it.
func (s *states) takeCounts() ([]apikey.UsageCount, map[string]*state) {
	s.mu.Lock()
	dirty, unknown := s.dirty, s.unknown
	s.dirty, s.unknown = nil, nil
	s.mu.Unlock()
	counts := make([]apikey.UsageCount, 0, len(dirty)+len(unknown))
	byID := make(map[string]*state, len(dirty))
	for _, st := range dirty {
		st.mu.Lock()
		c := apikey.UsageCount{KeyID: st.id, OrganizationID: st.organization, Count: st.unsent, Outcomes: st.tally.take()}
		if c.Count > 0 {
			c.LastUsedAt = st.usage.LastUsedAt
		}
		st.unsent, st.dirty, st.sending = 0, false, true
		st.mu.Unlock()
		counts = append(counts, c)
		byID[st.id] = st
	}
	for organization, t := range unknown {
		counts = append(counts, apikey.UsageCount{OrganizationID: organization, Outcomes: t.take()})
	}
	return counts, byID
}

// flush stores what was counted since the last flush. What cannot be stored is
// kept for the next.
func (s *states) flush(ctx context.Context, keys Keys) error {
	counts, byID := s.takeCounts()
	if len(counts) == 0 {
		return nil
	}
	stored, err := keys.AddUsage(ctx, counts)
	for i, c := range counts {
		if st := byID[c.KeyID]; st != nil {
			s.sent(st, c, i < stored)
		} else if i >= stored {
			s.mu.Lock()
			s.unknownLocked(c.OrganizationID).putBack(c.Outcomes)
			s.mu.Unlock()
		}
	}
	return err
}

// sent ends the part that a key has in a flush.
func (s *states) sent(st *state, c apikey.UsageCount, stored bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sending = false
	if !stored {
		st.unsent += c.Count
		st.tally.putBack(c.Outcomes)
		s.listLocked(st)
	}
}

// sweep forgets the states that nothing points to and that hold nothing a new
// one would not: no counts that are not stored, those of a flush under way
// included, a whole burst, and nothing of a quota. It returns the ids of those
// that hold nothing else: once that is given back, the next sweep forgets them.
// now is in microseconds.
func (s *states) sweep(now int64) (reserving []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, st := range s.byID {
		if st.cached.Load() > 0 || !st.mu.TryLock() {
			continue
		}
		switch {
		case st.dirty || st.sending || !st.fullLocked(now) || st.budget.waitedFor():
		case st.budget.holds():
			reserving = append(reserving, id)
		default:
			st.gone = true
			delete(s.byID, id)
		}
		st.mu.Unlock()
	}
	return reserving
}

// reserving returns the ids of all states that hold units of a quota.
func (s *states) reserving() (ids []string) {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.byID))
	s.mu.Unlock()
	for _, st := range all {
		st.mu.Lock()
		if st.budget.holds() {
			ids = append(ids, st.id)
		}
		st.mu.Unlock()
	}
	return ids
}

// fullLocked reports whether the whole burst is there. The caller holds st.mu.
func (st *state) fullLocked(now int64) bool {
	st.bucket.drain(st.bucket.limit, now)
	return st.bucket.debt == 0
}
