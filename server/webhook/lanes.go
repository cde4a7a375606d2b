package webhook

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// lanes is what a worker knows of the webhooks that have something pending: when
// each is due next, and how many attempts to it are under way.
type lanes struct {
	perWebhook, inFlight int

	mu      sync.Mutex
	byID    map[string]*lane
	flying  int
	limping int    // of flying, those to webhooks that fail
	turn    uint64 // numbers the asks, so that whoever asked longest ago is next
}

// lane is one webhook's share.
type lane struct {
	due    time.Time // when to ask for it next; zero: nothing that is known of
	flying int
	// window is how many attempts may be under way. It is halved by each failure
	// and grows by one with each success, so that an endpoint which comes back is
	// not buried under what has piled up.
	window int
	failed bool // the latest outcome
	turn   uint64
}

// The kinds of outcomes, as far as a lane is concerned.
type laneOutcome int

const (
	outcomeUnknown laneOutcome = iota
	outcomeGood
	outcomeBad
)

// laneLocked returns the lane of a webhook. The caller holds l.mu.
func (l *lanes) laneLocked(id string) *lane {
	found, ok := l.byID[id]
	if !ok {
		found = &lane{window: l.perWebhook}
		l.byID[id] = found
	}
	return found
}

// due notes that webhooks have something due at now.
func (l *lanes) due(ids []string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.laneLocked(id).due = now
	}
}

// dueAt notes that a webhook has something due at a time, which may be later than
// what is known of.
func (l *lanes) dueAt(id string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.laneLocked(id); known.due.IsZero() || at.Before(known.due) {
		known.due = at
	}
}

// replace takes over what the queue says of all webhooks, and forgets those that
// have nothing left.
func (l *lanes) replace(due map[string]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, at := range due {
		if known := l.laneLocked(id); known.due.IsZero() || at.Before(known.due) {
			known.due = at
		}
	}
	for id, known := range l.byID {
		if _, pending := due[id]; !pending && known.flying == 0 && known.due.IsZero() {
			delete(l.byID, id)
		}
	}
}

// ask returns what to ask the queue for at now, at most maxAsks webhooks and each
// for what its window has room for, and how long until a further one is due. A
// webhook that was asked for is marked until claimed or refused.
func (l *lanes) ask(now time.Time) (asks []Ask, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait = time.Hour
	var due []string
	for id, known := range l.byID {
		switch {
		case known.due.IsZero() || known.flying >= known.window:
		case known.due.After(now):
			wait = min(wait, known.due.Sub(now))
		default:
			due = append(due, id)
		}
	}
	slices.SortFunc(due, func(a, b string) int { return cmp.Compare(l.byID[a].turn, l.byID[b].turn) })
	room, limpingRoom := l.inFlight-l.flying, l.inFlight/2-l.limping
	for _, id := range due {
		known := l.byID[id]
		n := min(known.window-known.flying, room)
		if known.failed {
			n = min(n, limpingRoom)
		}
		if n <= 0 {
			continue
		}
		if len(asks) == maxAsks {
			return asks, 0
		}
		room -= n
		if known.failed {
			limpingRoom -= n
		}
		l.turn++
		known.turn, known.due = l.turn, time.Time{}
		asks = append(asks, Ask{WebhookID: id, Max: n})
	}
	return asks, wait
}

// claimed takes over what came of asks.
func (l *lanes) claimed(asks []Ask, claims []Claim, next map[string]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range claims {
		l.count(l.laneLocked(claims[i].Delivery.WebhookID), 1)
	}
	for _, ask := range asks {
		known := l.laneLocked(ask.WebhookID)
		if at, more := next[ask.WebhookID]; more && (known.due.IsZero() || at.Before(known.due)) {
			known.due = at
		}
	}
}

// refused gives asks back that the queue could not answer.
func (l *lanes) refused(asks []Ask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ask := range asks {
		// Any time that has passed will do.
		l.laneLocked(ask.WebhookID).due = time.Unix(1, 0)
	}
}

// done notes that an attempt is over.
func (l *lanes) done(id string, outcome laneOutcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.laneLocked(id)
	l.count(known, -1)
	failed := known.failed
	switch outcome {
	case outcomeGood:
		known.window, failed = min(known.window+1, l.perWebhook), false
	case outcomeBad:
		known.window, failed = max(known.window/2, 1), true
	case outcomeUnknown:
	}
	if failed != known.failed {
		// Those still under way now count as what the webhook has become.
		flying := known.flying
		l.count(known, -flying)
		known.failed = failed
		l.count(known, flying)
	}
}

// count adds n attempts to those under way.
func (l *lanes) count(known *lane, n int) {
	known.flying += n
	l.flying += n
	if known.failed {
		l.limping += n
	}
}
