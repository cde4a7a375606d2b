package store

import (
	"slices"
	"sync"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// opened are webhooks that were read and opened, by id: most claims are of webhooks that
// have not changed since the one before.
type opened struct {
	mu       sync.Mutex
	webhooks map[string]*webhook.Webhook
}

// maxOpened bounds how many webhooks are kept opened.
const maxOpened = 1024

// get returns the webhook of an id if it has a version.
func (o *opened) get(id string, version int64) *webhook.Webhook {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.webhooks[id]; w != nil && w.Version == version {
		return w
	}
	return nil
}

func (o *opened) put(w *webhook.Webhook) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.webhooks == nil || len(o.webhooks) >= maxOpened {
		o.webhooks = make(map[string]*webhook.Webhook)
	}
	o.webhooks[w.ID] = w
}

// forget keeps no webhook opened any longer.
func (o *opened) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.webhooks = nil
}

// Forget drops what is remembered of events and webhooks for claims. It is for whoever
// finds that the database has lost the newest part of its log: what has the same
// position or version now may be something else.
func (s *Store) Forget() {
	s.recent.forget()
	s.opened.forget()
}

// recentEvents are events that deliveries were claimed of, by position. An event does
// not change, and has a delivery for each webhook.
type recentEvents struct {
	mu     sync.Mutex
	events map[int64]*apikey.Event
	bytes  int // of their payloads
}

// The bounds of what is kept of events.
const (
	maxRecentEvents     = 4096
	maxRecentEventBytes = 8 << 20
)

// take adds to found the events of deliveries that are kept, and returns the positions
// of the others, each once and ascending. What is kept at a position is another event
// where the database has lost the newest part of its log and made another one.
func (r *recentEvents) take(rows []claimRow, found map[int64]*apikey.Event) (missing []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range rows {
		position := rows[i].position
		if e := r.events[position]; e != nil && e.ID == rows[i].EventID {
			found[position] = e
		} else {
			missing = append(missing, position)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

func (r *recentEvents) add(e *apikey.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil || len(r.events) >= maxRecentEvents || r.bytes+len(e.Payload) > maxRecentEventBytes {
		r.events, r.bytes = make(map[int64]*apikey.Event), 0
	}
	r.events[e.Position] = e
	r.bytes += len(e.Payload)
}

// forget keeps no event any longer.
func (r *recentEvents) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events, r.bytes = nil, 0
}
