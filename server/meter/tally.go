package meter

import (
	"context"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// outcomes are the codes that are counted, in the order of a tally's counts.
var outcomes = [...]apikey.Code{
	apikey.CodeValid, apikey.CodeRateLimited, apikey.CodeQuotaExceeded, apikey.CodeInsufficientScope,
	apikey.CodeIPNotAllowed, apikey.CodeExpired, apikey.CodeDisabled, apikey.CodeRevoked,
	apikey.CodeNotFound, apikey.CodeMalformed,
}

// tally counts outcomes by the hour in which they came.
type tally struct {
	hour   int64 // since 1970, of counts
	counts [len(outcomes)]uint32
	// others is what does not fit into counts: other hours, and what a flush could
	// not store.
	others []apikey.OutcomeCount
}

const secondsAnHour = int64(time.Hour / time.Second)

// count counts an outcome at now. It allocates only at the turn of an hour. A
// code that is not one of the outcomes is not counted.
func (t *tally) count(code apikey.Code, now time.Time) {
	if hour := now.Unix() / secondsAnHour; hour != t.hour {
		t.others = t.take()
		t.hour = hour
	}
	for i := range outcomes {
		if outcomes[i] == code {
			t.counts[i]++
			return
		}
	}
}

// take returns what was counted and forgets it.
func (t *tally) take() []apikey.OutcomeCount {
	all := t.others
	for i, n := range t.counts {
		if n > 0 {
			all = append(all, apikey.OutcomeCount{
				Hour: time.Unix(t.hour*secondsAnHour, 0).UTC(), Code: outcomes[i], Count: int64(n),
			})
		}
	}
	t.counts, t.others = [len(outcomes)]uint32{}, nil
	return all
}

// putBack counts again what was taken.
func (t *tally) putBack(counts []apikey.OutcomeCount) {
	for _, c := range counts {
		found := false
		for i := range t.others {
			if o := &t.others[i]; o.Code == c.Code && o.Hour.Equal(c.Hour) {
				o.Count += c.Count
				found = true
			}
		}
		if !found {
			t.others = append(t.others, c)
		}
	}
}

// countUnknown adds one verification of a secret of no key.
func (r *registry) countUnknown(organization string, code apikey.Code, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unknownLocked(organization).count(code, now)
}

func (r *registry) unknownLocked(organization string) *tally {
	t := r.unknown[organization]
	if t == nil {
		if r.unknown == nil {
			r.unknown = make(map[string]*tally)
		}
		t = new(tally)
		r.unknown[organization] = t
	}
	return t
}

// takeCounts returns what was counted since the last flush, and the counters of the
// keys in it.
func (r *registry) takeCounts() ([]apikey.UsageCount, map[string]*Counters) {
	r.mu.Lock()
	dirty, unknown := r.dirty, r.unknown
	r.dirty, r.unknown = nil, nil
	r.mu.Unlock()
	counts := make([]apikey.UsageCount, 0, len(dirty)+len(unknown))
	byID := make(map[string]*Counters, len(dirty))
	for _, c := range dirty {
		c.mu.Lock()
		n := apikey.UsageCount{KeyID: c.id, OrganizationID: c.organization, Count: c.unsent.requests, Outcomes: c.tally.take()}
		if n.Count > 0 {
			n.LastUsedAt = c.usage.LastUsedAt
		}
		if c.unsent.previous > 0 {
			n.Previous = c.usage.Previous
			n.Previous.Requests = c.unsent.previous
		}
		c.unsent, c.listed, c.sending = unsent{}, false, true
		c.mu.Unlock()
		counts = append(counts, n)
		byID[c.id] = c
	}
	for organization, t := range unknown {
		counts = append(counts, apikey.UsageCount{OrganizationID: organization, Outcomes: t.take()})
	}
	return counts, byID
}

// flush stores what was counted since the last flush. What cannot be stored is
// kept for the next.
func (r *registry) flush(ctx context.Context, store UsageStore) error {
	counts, byID := r.takeCounts()
	if len(counts) == 0 {
		return nil
	}
	stored, err := store.AddUsage(ctx, counts)
	for i, n := range counts {
		if c := byID[n.KeyID]; c != nil {
			r.sent(c, n, i < stored)
		} else if i >= stored {
			r.mu.Lock()
			r.unknownLocked(n.OrganizationID).putBack(n.Outcomes)
			r.mu.Unlock()
		}
	}
	return err
}

// sent ends the part that a key has in a flush.
func (r *registry) sent(c *Counters, n apikey.UsageCount, stored bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending = false
	if stored {
		return
	}
	c.unsent.requests += n.Count
	if n.Previous.Rotation == c.usage.Previous.Rotation {
		c.unsent.previous += n.Previous.Requests
	}
	c.tally.putBack(n.Outcomes)
	r.listLocked(c)
}
