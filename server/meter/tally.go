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

// hourOf returns the hour of t, counted from 1970.
func hourOf(t time.Time) int64 { return t.Unix() / secondsAnHour }

// count counts an outcome in an hour. It allocates only at the turn of an hour. A
// code that is not one of the outcomes is not counted.
func (t *tally) count(code apikey.Code, hour int64) {
	if hour != t.hour {
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
	if len(r.unknown) >= maxUnknown && r.unknown[organization] == nil {
		return
	}
	r.unknownLocked(organization).count(code, hourOf(now))
}

// maxUnknown bounds the organizations for which secrets of no key are counted between
// two flushes: whoever verifies for all of them can name any, without end.
const maxUnknown = 10_000

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
	refused := r.refusals.take()
	counts := make([]apikey.UsageCount, 0, len(dirty)+len(unknown))
	byID := make(map[string]*Counters, len(dirty))
	for _, c := range dirty {
		c.mu.Lock()
		n := apikey.UsageCount{KeyID: c.id, OrganizationID: c.organization, Count: c.unsent.requests, Outcomes: c.tally.take(), Units: c.units.take()}
		if n.Count > 0 {
			n.LastUsedAt = c.usage.LastUsedAt
		}
		addr, agent := c.client.take(&n)
		if c.unsent.previous > 0 {
			n.Previous = c.usage.Previous
			n.Previous.Requests = c.unsent.previous
		}
		c.unsent, c.listed, c.sending = unsent{}, false, true
		c.mu.Unlock()
		n.IP, n.UserAgent = apikey.AddressText(addr), r.agents.clean(agent)
		n.Refusals = r.recordsOf(refused, c.id)
		counts = append(counts, n)
		byID[c.id] = c
	}
	for id, k := range refused { // of keys whose counts were taken before
		counts = append(counts, apikey.UsageCount{KeyID: id, OrganizationID: k.organization, Refusals: r.recordsOf(refused, id)})
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
		if i >= stored {
			r.refusals.putBack(n.OrganizationID, n.KeyID, n.Refusals)
		}
		if c := byID[n.KeyID]; c != nil {
			r.sent(c, n, i < stored)
		} else if n.KeyID != "" {
			continue
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
	c.client.putBack(&n)
	if n.Previous.Rotation == c.usage.Previous.Rotation {
		c.unsent.previous += n.Previous.Requests
	}
	c.tally.putBack(n.Outcomes)
	c.units.putBack(n.Units)
	r.listLocked(c)
}
