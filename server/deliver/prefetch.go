package deliver

import (
	"container/list"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// The bounds of what is prefetched: claimed while there is no room for its attempts yet,
// so that the room which an attempt leaves has the next at once.
const (
	// maxPrefetched bounds how many claims wait for room, and maxPrefetchedShare how many
	// of them are of one organization or one host.
	maxPrefetched      = 256
	maxPrefetchedShare = maxPrefetched / 2
	// maxPrefetchedTime is how long a claim waits for room. It is short, since whoever
	// disables a webhook or changes its url expects no attempt of before. What has not
	// begun by then is given back, uncounted.
	maxPrefetchedTime = time.Second
	// quickAttempt is how long the latest attempt to an endpoint took at most for which
	// claims are prefetched: those of a slow one would be given back most of the time.
	quickAttempt = maxPrefetchedTime / 10
)

// sending is a delivery that was claimed at a time.
type sending struct {
	claim   *webhook.Claim
	event   *rendering
	claimed time.Time
}

// prefetchedClaim is a sending that waits for room, and the shares that it is counted in.
type prefetchedClaim struct {
	sending
	to                 *endpoint
	organization, host string
}

// doesWell reports whether e is an endpoint that claims are prefetched for.
func (e *endpoint) doesWell() bool { return e.health == healthy && e.quick }

// mayPrefetch reports whether claims for e may wait for room: its endpoint does well, and
// at most half a window of them waits.
func (e *endpoint) mayPrefetch() bool {
	return e.doesWell() && e.organization != "" && e.prefetched <= e.window/2
}

// prefetchRoomLocked returns how many claims for e may be prefetched beside those that
// this pick has prefetched already. Little room is none: small claims cost as much as
// large ones.
func (s *scheduler) prefetchRoomLocked(e *endpoint, p *picking) int {
	if !e.mayPrefetch() || p.blocked[e.organization] || p.blocked[e.host] || !s.lowLocked(e) {
		return 0
	}
	n := min(e.window-e.prefetched, maxPrefetched-s.prefetched.Len()-p.prefetched[""],
		maxPrefetchedShare-s.prefetchedOf[e.organization]-p.prefetched[e.organization],
		maxPrefetchedShare-s.prefetchedOf[e.host]-p.prefetched[e.host])
	if n < (e.window+1)/2 {
		return 0
	}
	return n
}

// lowLocked reports whether so few claims are prefetched, in all and of e's shares, that
// more are to be.
func (s *scheduler) lowLocked(e *endpoint) bool {
	return s.prefetched.Len() <= maxPrefetched/2 &&
		s.prefetchedOf[e.organization] <= maxPrefetchedShare/2 && s.prefetchedOf[e.host] <= maxPrefetchedShare/2
}

// prefetch has a claim wait for room.
func (s *scheduler) prefetch(d sending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpointLocked(d.claim.Delivery.WebhookID)
	s.prefetched.PushBack(&prefetchedClaim{sending: d, to: e, organization: e.organization, host: e.host})
	s.countPrefetchedLocked(e, e.organization, e.host, 1)
}

func (s *scheduler) countPrefetchedLocked(e *endpoint, organization, host string, n int) {
	if s.prefetchedOf == nil {
		s.prefetchedOf = make(map[string]int)
	}
	e.prefetched += n
	for _, key := range []string{organization, host} {
		if s.prefetchedOf[key] += n; s.prefetchedOf[key] == 0 {
			delete(s.prefetchedOf, key)
		}
	}
	s.placeLocked(e)
}

// takePrefetchedLocked takes a claim out of those that wait for room.
func (s *scheduler) takePrefetchedLocked(place *list.Element) sending {
	p := s.prefetched.Remove(place).(*prefetchedClaim)
	s.countPrefetchedLocked(p.to, p.organization, p.host, -1)
	return p.sending
}

// mayBeginLocked reports whether there is room for the attempt of a prefetched claim,
// beside what the queue is being asked for.
func (s *scheduler) mayBeginLocked(e *endpoint) bool {
	return e.health == healthy && e.inFlight+e.asked < e.window && roomOf(s.inFlight, s.maxInFlight)[healthy] > s.askedOf[""] &&
		s.shareRoomLocked(e, e.organization, s.perOrganization) > s.askedOf[e.organization] &&
		s.shareRoomLocked(e, e.host, s.perHost) > s.askedOf[e.host]
}

// begin takes out the prefetched claims that there is room for now, and those that are
// to be given back: they have waited too long, or their endpoint fails. It also returns
// how long until the next has waited too long.
func (s *scheduler) begin(now time.Time) (begin, back []sending, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = time.Hour
	var next *list.Element
	for place := s.prefetched.Front(); place != nil; place = next {
		next = place.Next()
		p := place.Value.(*prefetchedClaim)
		switch left := maxPrefetchedTime - now.Sub(p.claimed); {
		case p.to.health != healthy || left <= 0:
			p.to.quick = false
			back = append(back, s.takePrefetchedLocked(place))
		case s.mayBeginLocked(p.to):
			begin = append(begin, s.takePrefetchedLocked(place))
			s.countLocked(p.to, 1)
		default:
			wait = min(wait, left)
		}
	}
	return begin, back, wait
}

// following takes out the first prefetched claim that there is room for, if there is one,
// after an attempt to a webhook is over. low says that more is to be claimed.
func (s *scheduler) following(id string, now time.Time) (d sending, found, low bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for place := s.prefetched.Front(); place != nil; place = place.Next() {
		if p := place.Value.(*prefetchedClaim); now.Sub(p.claimed) < maxPrefetchedTime && s.mayBeginLocked(p.to) {
			d = s.takePrefetchedLocked(place)
			s.countLocked(p.to, 1)
			return d, true, s.lowLocked(s.endpointLocked(id)) || s.lowLocked(p.to)
		}
	}
	return sending{}, false, true
}

// drain takes out all prefetched claims.
func (s *scheduler) drain() (back []sending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.prefetched.Len() > 0 {
		back = append(back, s.takePrefetchedLocked(s.prefetched.Front()))
	}
	return back
}
