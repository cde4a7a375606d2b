package deliver

import (
	"container/heap"
	"container/list"
	"sync"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// lanes is what a worker knows of the webhooks that have something pending: when
// each is due next, and how many attempts to it are under way. However many there
// are, what an ask costs depends only on those that are due.
type lanes struct {
	perWebhook, inFlight int

	mu    sync.Mutex
	byID  map[string]*lane
	later soonest // those that have something and room, soonest first
	// ready are those of later whose time has come, by their standing and each in
	// the order in which it came.
	ready  [standings]list.List
	flying [standings]int // attempts under way, likewise
	turn   uint64
}

// A standing is what is known of a webhook's endpoint by its latest outcome.
type standing int

const (
	well standing = iota
	fresh
	failing
	standings
)

// lane is one webhook's share.
type lane struct {
	id     string
	due    time.Time // when to ask for it next; zero: nothing that is known of
	flying int
	// window is how many attempts may be under way. It is halved by each failure
	// and grows by one with each success, and begins small, so that an endpoint
	// which comes back is not buried under what has piled up, and one that hangs
	// takes little until that is known.
	window   int
	standing standing // by the latest outcome
	turn     uint64   // when it became ready
	idle     int      // scans since it had something

	later int           // its place in lanes.later, -1 where it is not there
	ready *list.Element // its place in lanes.ready, nil where it is not there
}

// The kinds of outcomes, as far as a lane is concerned.
type laneOutcome int

const (
	outcomeUnknown laneOutcome = iota
	outcomeGood
	outcomeBad
)

// maxShare is the part of what is left of the room for attempts that one webhook
// may have, so that however many of them hang, there is some left for the next.
const maxShare = 16

// maxIdle is for how many scans, an hour's, it is remembered that an endpoint does
// well which has nothing pending.
const maxIdle = 360

// laneLocked returns the lane of a webhook. The caller holds l.mu.
func (l *lanes) laneLocked(id string) *lane {
	k, ok := l.byID[id]
	if !ok {
		k = &lane{id: id, window: max(l.perWebhook/4, 1), standing: fresh, later: -1}
		l.byID[id] = k
	}
	return k
}

// fileLocked puts a lane that has changed where it belongs.
func (l *lanes) fileLocked(k *lane) {
	waits := !k.due.IsZero() && k.flying < k.window
	switch {
	case k.ready != nil && !waits:
		l.ready[k.standing].Remove(k.ready)
		k.ready = nil
	case k.ready != nil:
	case k.later >= 0 && waits:
		heap.Fix(&l.later, k.later)
	case k.later >= 0:
		heap.Remove(&l.later, k.later)
	case waits:
		heap.Push(&l.later, k)
	}
}

// dueAt notes that webhooks have something due at a time, which may be later than
// what is known of.
func (l *lanes) dueAt(at time.Time, ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.dueLocked(l.laneLocked(id), at)
	}
}

func (l *lanes) dueLocked(k *lane, at time.Time) {
	if k.due.IsZero() || at.Before(k.due) {
		k.due = at
		l.fileLocked(k)
	}
}

// scanned takes over what the queue says of all webhooks, and forgets those that
// have nothing left; that one did well it remembers for a while.
func (l *lanes) scanned(due map[string]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, at := range due {
		l.dueLocked(l.laneLocked(id), at)
	}
	for id, k := range l.byID {
		if _, pending := due[id]; pending || k.flying > 0 || !k.due.IsZero() {
			k.idle = 0
		} else if k.idle++; k.standing != well || k.idle > maxIdle {
			delete(l.byID, id)
		}
	}
}

// ask returns what to ask the queue for at now, at most maxAsks webhooks and each
// for what it has room for, those that have been ready longest first, and how
// long until a further one is due. A webhook that is asked for is known to have
// nothing due until claimed or refused says otherwise, or a wake-up.
func (l *lanes) ask(now time.Time) (asks []webhook.Ask, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.later) > 0 && !l.later[0].due.After(now) {
		k := heap.Pop(&l.later).(*lane)
		l.turn++
		k.turn, k.ready = l.turn, l.ready[k.standing].PushBack(k)
	}
	wait = time.Hour
	if len(l.later) > 0 {
		wait = l.later[0].due.Sub(now)
	}
	room := l.roomLocked()
	var next [standings]*list.Element
	for s := range next {
		next[s] = l.ready[s].Front()
	}
	for len(asks) < maxAsks {
		k := oldest(next, room)
		if k == nil {
			break
		}
		next[k.standing] = k.ready.Next()
		n := min(min(k.window, max(room[well]/maxShare, 1))-k.flying, room[k.standing])
		if n <= 0 {
			continue
		}
		for s := range k.standing + 1 {
			room[s] -= n //nolint:gosec // A standing is an index of room.
		}
		for s := fresh; s < standings; s++ {
			room[s] = min(room[s], room[s-1])
		}
		asks = append(asks, webhook.Ask{WebhookID: k.id, Max: n})
		k.due = time.Time{}
		l.fileLocked(k)
	}
	return asks, wait
}

// roomLocked returns how many more attempts lanes of each standing may begin:
// those that fail may have half of all, together with those of which nothing is
// known three quarters, so that those that do well always have the rest.
func (l *lanes) roomLocked() (room [standings]int) {
	bad := l.flying[failing]
	unproven := l.flying[fresh] + bad
	room[well] = l.inFlight - l.flying[well] - unproven
	room[fresh] = min(room[well], max(l.inFlight*3/4, 1)-unproven)
	room[failing] = min(room[fresh], max(l.inFlight/2, 1)-bad)
	return room
}

// oldest returns the lane that has been ready longest of those at the front that
// have room, or nil.
func oldest(fronts [standings]*list.Element, room [standings]int) *lane {
	var found *lane
	for s, front := range fronts {
		if front == nil || room[s] <= 0 {
			continue
		}
		if k := front.Value.(*lane); found == nil || k.turn < found.turn {
			found = k
		}
	}
	return found
}

// claimed takes over what came of asks.
func (l *lanes) claimed(claims []webhook.Claim, next map[string]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range claims {
		l.countLocked(l.laneLocked(claims[i].Delivery.WebhookID), 1)
	}
	for id, at := range next {
		l.dueLocked(l.laneLocked(id), at)
	}
}

// refused gives asks back that the queue could not answer.
func (l *lanes) refused(asks []webhook.Ask, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ask := range asks {
		l.dueLocked(l.laneLocked(ask.WebhookID), now)
	}
}

// done notes that an attempt is over.
func (l *lanes) done(id string, outcome laneOutcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.laneLocked(id)
	l.countLocked(k, -1)
	switch outcome {
	case outcomeGood:
		k.window = min(k.window+1, l.perWebhook)
		l.standLocked(k, well)
	case outcomeBad:
		k.window = max(k.window/2, 1)
		l.standLocked(k, failing)
	case outcomeUnknown:
	}
	l.fileLocked(k)
}

// standLocked gives a lane another standing, with what it has under way.
func (l *lanes) standLocked(k *lane, to standing) {
	if k.standing == to {
		return
	}
	l.flying[k.standing] -= k.flying
	l.flying[to] += k.flying
	if k.ready != nil {
		l.ready[k.standing].Remove(k.ready)
		k.ready = l.ready[to].PushBack(k)
	}
	k.standing = to
}

// countLocked adds n attempts to those under way.
func (l *lanes) countLocked(k *lane, n int) {
	k.flying += n
	l.flying[k.standing] += n
	l.fileLocked(k)
}

// soonest is a heap of lanes by when they are due.
type soonest []*lane

var _ heap.Interface = (*soonest)(nil)

func (h soonest) Len() int           { return len(h) }
func (h soonest) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h soonest) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].later, h[j].later = i, j
}

// Push adds a lane at the end.
func (h *soonest) Push(x any) {
	k := x.(*lane)
	k.later = len(*h)
	*h = append(*h, k)
}

// Pop takes the last lane away.
func (h *soonest) Pop() any {
	last := len(*h) - 1
	k := (*h)[last]
	k.later = -1
	(*h)[last] = nil
	*h = (*h)[:last]
	return k
}
