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

// reservation is units of one key's quota that calls wait for.
type reservation struct {
	counters *Counters
	quota    apikey.Quota
	done     chan struct{}
	// Guarded by the mu of reservations. want is what the calls that still wait for
	// it want, asked is what they wanted when storage was asked.
	want, asked         int64
	inFlight, completed bool
	// What came of it, once done is closed. stale says that the quota was set anew
	// since the key of the calls was read.
	stale bool
	err   error
}

// Ticket is one call's part of a reservation of units of a quota. The zero Ticket
// is none, and not pending.
type Ticket struct {
	*reservation
	units int64
}

// Pending reports whether there is something to wait for.
func (t Ticket) Pending() bool { return t.reservation != nil }

// Units returns how many units are reserved for the call. Zero where the call came
// too late for the reservation and will have to ask again.
func (t Ticket) Units() int64 { return t.units }

// KeyID returns the id of the key whose quota it is. It is for pending tickets.
func (t Ticket) KeyID() string { return t.counters.id }

// reservations fetches units: asks that wait at the same time are answered in one
// transaction, by a goroutine that lives as long as there are any.
type reservations struct {
	store QuotaStore
	now   func() time.Time
	// returning is the outage of giving units back.
	returning *outage.Outage

	mu       sync.Mutex
	waiting  []*reservation
	inFlight []*reservation
	idle     chan struct{} // closed while no goroutine runs; nil at first
	// paused are the keys whose quotas are being set, by how many. Asks for them
	// wait for the end of it.
	paused map[string]int

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

// grant asks storage for the units of asks and gives them to the counters.
func (q *reservations) grant(asks []*reservation) {
	q.returns.Lock()
	defer q.returns.Unlock()
	requests := make([]apikey.QuotaAsk, len(asks))
	for i, a := range asks {
		requests[i] = apikey.QuotaAsk{KeyID: a.counters.id, Quota: a.quota, Want: a.asked}
	}
	now := q.now()
	ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
	defer cancel()
	grants, err := q.store.ReserveQuota(ctx, requests, now)
	if err == nil && len(grants) != len(asks) {
		err = errors.New("not every ask was answered")
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

// nextBatch returns the asks to answer next; nil where there are none, and then the
// one who asked is to end.
func (q *reservations) nextBatch() []*reservation {
	q.mu.Lock()
	defer q.mu.Unlock()
	var next, rest []*reservation
	for _, a := range q.waiting {
		if len(next) < asksTogether && q.paused[a.counters.id] == 0 {
			a.inFlight, a.asked = true, a.want
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

// refund gives back what calls have reserved and not spent, in units by the id
// of the key, but for what a server holds anyway.
func (q *reservations) refund(r *registry, unspent map[string]int64) {
	q.returns.Lock()
	defer q.returns.Unlock()
	var returns []apikey.QuotaReturn
	for id, units := range unspent {
		if c := r.find(id); c != nil {
			c.mu.Lock()
			returns = c.budget.refund(id, units, returns)
			c.mu.Unlock()
		}
	}
	q.storeReturns(returns)
}

// storeReturns stores units that were taken out of budgets. What fails is lost, and
// never granted twice.
func (q *reservations) storeReturns(returns []apikey.QuotaReturn) {
	if len(returns) == 0 {
		return
	}
	// The units are in nobody's hands, so no caller can break it off.
	ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
	defer cancel()
	q.returning.Note(q.store.ReturnQuota(ctx, returns), "keys", len(returns))
}

// pause lets no ask for keys begin until resume is called, and waits for those
// that are in flight.
func (q *reservations) pause(ctx context.Context, ids []string) (resume func(), err error) {
	paused := make(map[string]bool, len(ids))
	q.mu.Lock()
	if q.paused == nil {
		q.paused = make(map[string]int)
	}
	for _, id := range ids {
		paused[id] = true
		q.paused[id]++
	}
	inFlight := q.inFlight
	q.mu.Unlock()
	resume = sync.OnceFunc(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, id := range ids {
			if q.paused[id]--; q.paused[id] == 0 {
				delete(q.paused, id)
			}
		}
		q.startLocked()
	})
	for _, a := range inFlight {
		if !paused[a.counters.id] {
			continue
		}
		if _, err := q.wait(ctx, Ticket{a, 0}); ctx.Err() != nil {
			resume()
			return nil, err
		}
	}
	return resume, nil
}

// drain gives back what is held of keys, so that storage knows all that is left of
// their quotas, and lets nothing be reserved until resume is called.
func (q *reservations) drain(ctx context.Context, r *registry, ids []string) (resume func(), err error) {
	if resume, err = q.pause(ctx, ids); err != nil {
		return nil, err
	}
	q.returns.Lock()
	defer q.returns.Unlock()
	var returns []apikey.QuotaReturn
	for _, id := range ids {
		c := r.find(id)
		if c == nil {
			continue
		}
		c.mu.Lock()
		returns = c.budget.drain(id, returns)
		c.mu.Unlock()
	}
	if len(returns) == 0 {
		return resume, nil
	}
	// The units are in nobody's hands now: a caller who goes away must not take
	// them along.
	if err := q.store.ReturnQuota(context.WithoutCancel(ctx), returns); err != nil {
		resume()
		return nil, err
	}
	return resume, nil
}
