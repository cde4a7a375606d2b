package meter

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/outage"
)

// asksTogether bounds how many asks one transaction answers.
const asksTogether = 100

// reserveTimeout bounds how long one transaction of asks may take.
const reserveTimeout = 10 * time.Second

// reservation is units of one key's quota, or requests of its exact rate limit, that
// calls wait for.
type reservation struct {
	counters *Counters
	quota    apikey.Quota
	// limit is the rate limit, where the reservation is of one. Else it is of quota.
	limit apikey.RateLimit
	done  chan struct{}
	// Guarded by the mu of reservations. want is what the calls that still wait for
	// it want, asked is what they wanted when storage was asked. least is what the one
	// of them wants that wants the fewest requests.
	want, asked, least  int64
	inFlight, completed bool
	// What came of it, once done is closed. stale says that the limit was set anew
	// since the key of the calls was read.
	stale bool
	err   error
}

// ofRate reports whether it is of a rate limit.
func (a *reservation) ofRate() bool { return a.limit != (apikey.RateLimit{}) }

// Ticket is one call's part of a reservation of units of a quota, or of requests of
// an exact rate limit. The zero Ticket is none, and not pending.
type Ticket struct {
	*reservation
	units int64
}

// Pending reports whether there is something to wait for.
func (t Ticket) Pending() bool { return t.reservation != nil }

// Units returns how many units of the quota are reserved for the call. Zero where the
// call came too late for the reservation and will have to ask again, and where the
// ticket is of a rate limit: what is reserved of that and not spent goes back by
// itself.
func (t Ticket) Units() int64 {
	if t.reservation == nil || t.ofRate() {
		return 0
	}
	return t.units
}

// KeyID returns the id of the key whose limit it is. It is for pending tickets.
func (t Ticket) KeyID() string { return t.counters.id }

// reservations fetches units: asks that wait at the same time are answered in one
// transaction, by a goroutine that lives as long as there are any.
type reservations struct {
	store QuotaStore
	rates RateStore
	now   func() time.Time
	// returning is the outage of giving units back, settling that of rate limits.
	returning, settling *outage.Outage
	// holds lists counters that have got something, to be given back when it is idle.
	holds func(*Counters)

	mu       sync.Mutex
	waiting  []*reservation
	inFlight []*reservation
	idle     chan struct{} // closed while no goroutine runs; nil at first
	// paused are the keys whose quotas are being set, by how many. Asks for them
	// wait for the end of it.
	paused map[string]int

	stats quotaCounts

	// returns is held from taking units out of a budget until they are stored, and
	// from asking for units until they are in their budgets. So whoever drains a
	// quota finds all of it stored, and no answer speaks of what is left without the
	// units that are just on their way back.
	returns sync.Mutex
}

// joinLocked returns the ticket of a call that needs so many units of a key whose
// counters it holds. The call waits for it.
func (q *reservations) joinLocked(c *Counters, b *budget, need int64) Ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.pending != nil {
		if b.pending.inFlight {
			return Ticket{b.pending, 0}
		}
		b.pending.want += need
		return Ticket{b.pending, need}
	}
	b.pending = &reservation{counters: c, quota: b.quota, want: need, done: make(chan struct{})}
	q.waiting = append(q.waiting, b.pending)
	q.startLocked()
	return Ticket{b.pending, need}
}

// joinRateLocked returns the ticket of a call that needs so many requests of the exact
// rate limit of a key whose counters it holds: all that it costs, since what is held is
// given back by the same ask. With fewer than least there it wants none.
func (q *reservations) joinRateLocked(c *Counters, s *share, need, least int64) Ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.pending != nil {
		if s.pending.inFlight {
			return Ticket{s.pending, 0}
		}
		s.pending.want += need
		s.pending.least = min(s.pending.least, least)
		return Ticket{s.pending, need}
	}
	s.pending = &reservation{counters: c, limit: s.limit, want: need, least: least, done: make(chan struct{})}
	q.waiting = append(q.waiting, s.pending)
	q.startLocked()
	return Ticket{s.pending, need}
}

// startLocked makes sure that someone answers the asks. The caller holds mu.
func (q *reservations) startLocked() {
	if q.inFlight == nil && len(q.waiting) > 0 && (q.idle == nil || isClosed(q.idle)) {
		q.idle = make(chan struct{})
		go q.answer()
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// answer answers asks until there are none that it may.
func (q *reservations) answer() {
	for {
		asks := q.nextBatch()
		if asks == nil {
			return
		}
		q.grant(asks)
		for _, a := range asks {
			close(a.done)
		}
	}
}

// grant asks storage for what asks want and gives it to the counters.
func (q *reservations) grant(asks []*reservation) {
	q.returns.Lock()
	defer q.returns.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
	defer cancel()
	var quotas, rates []*reservation
	for _, a := range asks {
		if a.ofRate() {
			rates = append(rates, a)
		} else {
			quotas = append(quotas, a)
		}
	}
	if len(rates) > 0 {
		q.grantRates(ctx, rates)
	}
	if len(quotas) > 0 {
		q.grantQuotas(ctx, quotas)
	}
}

// grantQuotas asks storage for units of quotas and gives them to the counters.
func (q *reservations) grantQuotas(ctx context.Context, asks []*reservation) {
	requests := make([]apikey.QuotaAsk, len(asks))
	for i, a := range asks {
		requests[i] = apikey.QuotaAsk{KeyID: a.counters.id, Quota: a.quota, Want: a.asked}
	}
	now := q.now()
	grants, err := q.store.ReserveQuota(ctx, requests, now)
	q.stats.asked(grants, len(asks), err)
	if err == nil && len(grants) != len(asks) {
		err = errNotAll
	}
	if err != nil {
		grants = make([]apikey.QuotaGrant, len(asks))
	}
	var unwanted []apikey.QuotaReturn
	for i, a := range asks {
		unwanted = q.complete(a, grants[i], now, err, unwanted)
	}
	q.storeReturns(unwanted)
}

// errNotAll is an answer of storage that does not fit what was asked.
var errNotAll = errors.New("not every ask was answered")

// grantRates asks storage for requests of exact rate limits and gives them to the
// counters. The blocks that the counters have go back with it. Where that fails they
// are lost: nobody knows whether they were taken back, and they end by themselves.
func (q *reservations) grantRates(ctx context.Context, asks []*reservation) {
	now := q.now()
	requests := make([]apikey.RateAsk, len(asks))
	for i, a := range asks {
		a.counters.mu.Lock()
		block, more := a.counters.share.takeBlock(now.UnixMicro())
		a.counters.mu.Unlock()
		requests[i] = apikey.RateAsk{KeyID: a.counters.id, Limit: a.limit, Block: block, Want: a.asked, Least: a.least, More: more}
	}
	grants, err := q.rates.ReserveRate(ctx, requests, now)
	if err == nil && len(grants) != len(asks) {
		err = errNotAll
	}
	for i, a := range asks {
		var g apikey.RateGrant
		if err == nil {
			g = grants[i]
		}
		q.completeRate(a, &g, now, err)
	}
}

// completeRate gives the counters of an ask what it got.
func (q *reservations) completeRate(a *reservation, g *apikey.RateGrant, now time.Time, err error) {
	a.counters.mu.Lock()
	defer a.counters.mu.Unlock()
	s := a.counters.share
	a.err = err
	if a.stale = err == nil && g.Stale; err == nil && !a.stale {
		s.receive(a.limit, g, now.UnixMicro())
		if s.block.Units > 0 {
			q.holds(a.counters)
		}
	}
	s.pending = nil
	q.mu.Lock()
	defer q.mu.Unlock()
	a.completed = true
}

// settle gives back the blocks of exact rate limits that counters have, if takes says
// so, and tells storage what was spent of them.
func (q *reservations) settle(ctx context.Context, all []*Counters, takes func(*share) bool) {
	q.returns.Lock()
	defer q.returns.Unlock()
	now := q.now()
	var asks []apikey.RateAsk
	var of []*Counters
	for _, c := range all {
		c.mu.Lock()
		if s := c.share; s != nil && s.block.Units > 0 && s.pending == nil && takes(s) {
			block, _ := s.takeBlock(now.UnixMicro())
			asks = append(asks, apikey.RateAsk{KeyID: c.id, Limit: s.limit, Block: block})
			of = append(of, c)
		}
		c.mu.Unlock()
	}
	for len(asks) > 0 {
		n := min(len(asks), asksTogether)
		grants, err := q.rates.ReserveRate(ctx, asks[:n], now)
		q.settling.Note(err, "keys", n)
		for i, c := range of[:n] {
			if err != nil || i >= len(grants) || grants[i].Stale {
				continue
			}
			c.mu.Lock()
			if s := c.share; s.limit == asks[i].Limit && s.block.Units == 0 {
				s.stored, s.knownAt = grants[i].Limiter, now.UnixMicro()
			}
			c.mu.Unlock()
		}
		asks, of = asks[n:], of[n:]
	}
}

// nextBatch returns the asks to answer next; nil where there are none, and then the
// one who asked is to end.
func (q *reservations) nextBatch() []*reservation {
	q.mu.Lock()
	defer q.mu.Unlock()
	var next, rest []*reservation
	for _, a := range q.waiting {
		if len(next) < asksTogether && q.paused[a.counters.id] == 0 {
			a.inFlight, a.asked = true, a.want
			a.least = min(a.least, a.asked) // callers may have gone
			next = append(next, a)
		} else {
			rest = append(rest, a)
		}
	}
	q.inFlight, q.waiting = next, rest
	if next == nil {
		close(q.idle)
	}
	return next
}

// complete gives the counters of an ask what it got. Where calls have gone it is taken out
// again but for what the others want, as a return that is appended to returns.
func (q *reservations) complete(a *reservation, g apikey.QuotaGrant, now time.Time, err error, returns []apikey.QuotaReturn) []apikey.QuotaReturn {
	a.counters.mu.Lock()
	defer a.counters.mu.Unlock()
	b := a.counters.budget
	a.err = err
	if a.stale = err == nil && g.Quota == (apikey.Quota{}); err == nil && !a.stale {
		b.receive(g, now)
		if b.held > 0 {
			q.holds(a.counters)
		}
	}
	b.pending = nil
	q.mu.Lock()
	defer q.mu.Unlock()
	a.completed = true
	if a.want < a.asked {
		returns = b.refund(a.counters.id, g.Units-a.want, returns)
	}
	return returns
}

// wait waits for a ticket and reports whether the key of the call is stale. Of a
// call that gives up no more stays reserved than the block that a server holds
// anyway.
func (q *reservations) wait(ctx context.Context, t Ticket) (stale bool, err error) {
	select {
	case <-t.done:
	case <-ctx.Done():
		if q.cancel(t) {
			return false, ctx.Err()
		}
		<-t.done // it has its units already
	}
	return t.stale, t.err
}

// cancel takes a ticket out of its reservation, unless that is complete.
func (q *reservations) cancel(t Ticket) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.completed {
		return false
	}
	t.want -= t.units
	return true
}
