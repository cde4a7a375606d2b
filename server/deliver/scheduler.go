package deliver

import (
	"container/heap"
	"container/list"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// scheduler is what a worker knows of the webhooks that have something pending: when
// each is due next, and how many attempts to it are under way. However many there
// are, what a pick costs depends only on those that are due.
type scheduler struct {
	perWebhook, maxInFlight int
	// perHost and perOrganization bound the attempts under way to endpoints of one host
	// and of one organization. Zero means no bound.
	perHost, perOrganization int

	mu   sync.Mutex
	byID map[string]*endpoint
	// unresolved are those whose organization and host are not known yet.
	unresolved []*endpoint
	shares     map[string]share // attempts under way by organization and by host
	later      dueHeap          // those that have something due and room, the first due first
	// ready are those of later whose time has come, by their health and each in
	// the order in which it came.
	ready    [healthStates]list.List
	inFlight [healthStates]int // attempts under way, likewise
	turn     uint64
	// prefetched are the claims that wait for room, the first claimed first, and
	// prefetchedOf how many of them each organization and each host has.
	prefetched   list.List
	prefetchedOf map[string]int
	// asked are the endpoints that the queue is being asked for, and askedOf for how many
	// attempts, by organization and by host; of all under the empty key.
	asked   []*endpoint
	askedOf map[string]int
}

// picking is what a pick has come to so far.
type picking struct {
	picks []webhook.Pick
	room  [healthStates]int
	// taken is the room that is taken, and prefetched how much is prefetched, likewise.
	taken, prefetched map[string]int
	// blocked are the organizations and hosts nothing is prefetched for: one of their
	// endpoints for which nothing may be prefetched waits for their room.
	blocked map[string]bool
}

// maxShare is the part of what is left of the room for attempts that one webhook
// may have, so that however many of them hang, there is some left for the next.
const maxShare = 16

// maxIdle is for how many scans, an hour's where the queue has one server, it is remembered that an endpoint does
// well which has nothing pending.
const maxIdle = 360

// endpointLocked returns the endpoint of a webhook. The caller holds s.mu.
func (s *scheduler) endpointLocked(id string) *endpoint {
	e, ok := s.byID[id]
	if !ok {
		e = &endpoint{id: id, window: max(s.perWebhook/4, 1), health: unknown, later: -1}
		s.byID[id] = e
		s.unresolved = append(s.unresolved, e)
	}
	return e
}

// placeLocked puts an endpoint that has changed where it belongs.
func (s *scheduler) placeLocked(e *endpoint) {
	waits := e.waits()
	switch {
	case e.ready != nil && !waits:
		s.ready[e.health].Remove(e.ready)
		e.ready = nil
	case e.ready != nil:
	case e.later >= 0 && waits:
		heap.Fix(&s.later, e.later)
	case e.later >= 0:
		heap.Remove(&s.later, e.later)
	case waits:
		heap.Push(&s.later, e)
	}
}

// dueAt notes that webhooks have something due at a time, which may be later than
// what is known of.
func (s *scheduler) dueAt(at time.Time, ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.dueLocked(s.endpointLocked(id), at)
	}
}

func (s *scheduler) dueLocked(e *endpoint, at time.Time) {
	if e.due.IsZero() || at.Before(e.due) {
		e.due = at
		s.placeLocked(e)
	}
}

// scanned takes over what the queue says of all webhooks, and forgets those that
// have nothing left; that one did well it remembers for a while.
func (s *scheduler) scanned(due map[string]time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, at := range due {
		s.dueLocked(s.endpointLocked(id), at)
	}
	for id, e := range s.byID {
		if _, pending := due[id]; pending || e.inFlight+e.prefetched > 0 || !e.due.IsZero() {
			e.idle = 0
		} else if e.idle++; e.health != healthy || e.idle > maxIdle {
			delete(s.byID, id)
		}
	}
}

// takenOf returns how much room of a share is taken; none of one that is not known.
func (p *picking) takenOf(key string) int {
	if key == "" {
		return 0
	}
	return p.taken[key]
}

// pick returns what to claim from the queue at now, at most maxPicks webhooks and each
// for what it has room for, those that have been ready longest first, and how
// long until a further one is due. A webhook that is asked for is known to have
// nothing due until claimed or refused says otherwise, or a wake-up.
func (s *scheduler) pick(now time.Time) (picks []webhook.Pick, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.later) > 0 && !s.later[0].due.After(now) {
		e := heap.Pop(&s.later).(*endpoint)
		s.turn++
		e.turn, e.ready = s.turn, s.ready[e.health].PushBack(e)
	}
	wait = time.Hour
	if len(s.later) > 0 {
		wait = s.later[0].due.Sub(now)
	}
	p := &picking{room: roomOf(s.inFlight, s.maxInFlight), taken: make(map[string]int), prefetched: make(map[string]int), blocked: make(map[string]bool)}
	for more := true; more; {
		picked, had := len(p.picks), make(map[string]bool)
		s.roundLocked(p, had)
		if more = len(p.picks) > picked; more && len(had) == 1 { // Nobody else waits.
			s.roundLocked(p, nil)
			more = false
		}
	}
	s.askedOf = p.taken
	return p.picks, wait
}

// roundLocked adds to a pick endpoints of organizations that have not had their turn, and
// notes that they had it: so each has its turn before any has a second. Where had is nil
// there are no turns.
func (s *scheduler) roundLocked(p *picking, had map[string]bool) {
	var next [healthStates]*list.Element
	for h := range next {
		next[h] = s.ready[h].Front()
	}
	for len(p.picks) < maxPicks {
		e := oldest(next, p.room)
		if e == nil {
			break
		}
		next[e.health] = e.ready.Next()
		if e.organization != "" && had[e.organization] {
			continue
		}
		n := max(min(min(e.window, max(p.room[healthy]/maxShare, 1))-e.inFlight, p.room[e.health],
			s.shareRoomLocked(e, e.organization, s.perOrganization)-p.takenOf(e.organization),
			s.shareRoomLocked(e, e.host, s.perHost)-p.takenOf(e.host)), 0)
		prefetch := s.prefetchRoomLocked(e, p)
		if n+prefetch == 0 {
			if !e.doesWell() && e.organization != "" {
				p.blocked[e.organization], p.blocked[e.host] = true, true
			}
			continue
		}
		if had != nil {
			had[e.organization] = true
		}
		if e.organization != "" {
			for _, key := range []string{e.organization, e.host} {
				p.taken[key] += n
				p.prefetched[key] += prefetch
			}
		}
		p.taken[""] += n
		p.prefetched[""] += prefetch
		for h := range e.health + 1 {
			p.room[h] -= n
		}
		for h := unknown; h < healthStates; h++ {
			p.room[h] = min(p.room[h], p.room[h-1])
		}
		p.picks = append(p.picks, webhook.Pick{WebhookID: e.id, Max: n + prefetch})
		e.asked, e.prefetching = n, prefetch > 0
		s.asked = append(s.asked, e)
		e.due = time.Time{}
		s.placeLocked(e)
	}
}

// share is how many attempts are under way of one organization, or to one host, by the
// health of the endpoints.
type share [healthStates]int

// roomOf returns how many more attempts endpoints of each health may begin where so
// many are under way, of most in all: those that fail may have half, together with those
// of which nothing is known three quarters, so that those that do well always have the
// rest.
func roomOf(inFlight [healthStates]int, most int) (room [healthStates]int) {
	bad := inFlight[failing]
	unproven := inFlight[unknown] + bad
	room[healthy] = most - inFlight[healthy] - unproven
	room[unknown] = min(room[healthy], max(most*3/4, 1)-unproven)
	room[failing] = min(room[unknown], max(most/2, 1)-bad)
	return room
}

// shareRoomLocked returns how many more attempts to e may begin for a share of it.
func (s *scheduler) shareRoomLocked(e *endpoint, key string, most int) int {
	if key == "" || most == 0 {
		return s.maxInFlight
	}
	return roomOf(s.shares[key], most)[e.health]
}

// countShareLocked adds n attempts to those under way of a share.
func (s *scheduler) countShareLocked(key string, of health, n int) {
	if key == "" || n == 0 {
		return
	}
	if s.shares == nil {
		s.shares = make(map[string]share)
	}
	u := s.shares[key]
	if u[of] += n; u == (share{}) {
		delete(s.shares, key)
	} else {
		s.shares[key] = u
	}
}

// unknownIDs returns the webhooks of which it is not known whose they are, and forgets
// that.
func (s *scheduler) unknownIDs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, e := range s.unresolved {
		if e.organization == "" {
			ids = append(ids, e.id)
		}
	}
	s.unresolved = nil
	return ids
}

// introduce takes over whose webhooks are and where they lead.
func (s *scheduler) introduce(endpoints []webhook.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range endpoints {
		if e := s.byID[endpoints[i].WebhookID]; e != nil {
			s.introduceLocked(e, endpoints[i].OrganizationID, endpoints[i].URL)
		}
	}
}

// introduceLocked notes whose e is and where it leads, with what is under way to it.
func (s *scheduler) introduceLocked(e *endpoint, organization, address string) {
	host := ""
	if u, err := url.Parse(address); err == nil {
		host = strings.ToLower(u.Hostname())
	}
	s.countShareLocked(e.organization, e.health, -e.inFlight)
	s.countShareLocked(e.host, e.health, -e.inFlight)
	e.organization, e.host = "organization "+organization, "host "+host
	s.countShareLocked(e.organization, e.health, e.inFlight)
	s.countShareLocked(e.host, e.health, e.inFlight)
	s.placeLocked(e)
}

// oldest returns the endpoint that has been ready longest of those at the front that
// have room, or nil.
func oldest(fronts [healthStates]*list.Element, room [healthStates]int) *endpoint {
	var found *endpoint
	for h, front := range fronts {
		if front == nil || room[h] <= 0 {
			continue
		}
		if e := front.Value.(*endpoint); found == nil || e.turn < found.turn {
			found = e
		}
	}
	return found
}

// claimed takes over what came of picks. It returns of each claim whether there is no
// room for its attempt yet: those for which there was room begin.
func (s *scheduler) claimed(claims []webhook.Claim, next map[string]time.Time) (prefetch []bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	prefetch = make([]bool, len(claims))
	for i := range claims {
		e := s.endpointLocked(claims[i].Delivery.WebhookID)
		if w := claims[i].Webhook; w != nil {
			s.introduceLocked(e, w.OrganizationID, w.URL)
		}
		if prefetch[i] = e.prefetching && e.asked == 0; !prefetch[i] {
			e.asked = max(e.asked-1, 0)
			s.countLocked(e, 1)
		}
	}
	s.answeredLocked()
	for id, at := range next {
		s.dueLocked(s.endpointLocked(id), at)
	}
	return prefetch
}

// answeredLocked notes that the queue is asked for nothing.
func (s *scheduler) answeredLocked() {
	for _, e := range s.asked {
		e.asked, e.prefetching = 0, false
	}
	s.asked, s.askedOf = s.asked[:0], nil
}

// refused gives picks back that the queue could not answer.
func (s *scheduler) refused(picks []webhook.Pick, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answeredLocked()
	for _, pick := range picks {
		s.dueLocked(s.endpointLocked(pick.WebhookID), now)
	}
}

// done notes that an attempt is over, and returns whether the bounds of the webhook have
// changed with it.
func (s *scheduler) done(id string, outcome outcomeKind) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpointLocked(id)
	window, known := e.window, e.health
	s.countLocked(e, -1)
	switch outcome {
	case outcomeSucceeded, outcomeQuick:
		e.window = min(e.window+1, s.perWebhook)
		e.quick = outcome == outcomeQuick
		s.setHealthLocked(e, healthy)
	case outcomeFailed:
		e.window = max(e.window/2, 1)
		s.setHealthLocked(e, failing)
	case outcomeNone:
	}
	s.placeLocked(e)
	return e.window != window || e.health != known
}

// setHealthLocked gives an endpoint another health, with what it has under way.
func (s *scheduler) setHealthLocked(e *endpoint, to health) {
	if e.health == to {
		return
	}
	s.inFlight[e.health] -= e.inFlight
	s.inFlight[to] += e.inFlight
	for _, key := range []string{e.organization, e.host} {
		s.countShareLocked(key, e.health, -e.inFlight)
		s.countShareLocked(key, to, e.inFlight)
	}
	if e.ready != nil {
		s.ready[e.health].Remove(e.ready)
		e.ready = s.ready[to].PushBack(e)
	}
	e.health = to
}

// countLocked adds n attempts to those under way.
func (s *scheduler) countLocked(e *endpoint, n int) {
	e.inFlight += n
	s.inFlight[e.health] += n
	s.countShareLocked(e.organization, e.health, n)
	s.countShareLocked(e.host, e.health, n)
	s.placeLocked(e)
}
