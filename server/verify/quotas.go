package verify

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// asksTogether bounds how many asks one transaction answers.
const asksTogether = 100

// reserveTimeout bounds how long one transaction of asks may take.
const reserveTimeout = 10 * time.Second

// reservation is units of one key's quota that calls wait for.
type reservation struct {
	state *state
	quota apikey.Quota
	done  chan struct{}
	// Guarded by the quotas' mu. want is what the calls that still wait for it want,
	// asked what they wanted when it took off.
	want, asked   int64
	flies, landed bool
	// What came of it, once done is closed. stale says that the quota was set anew
	// since the entry of the calls was read.
	stale bool
	err   error
}

// claim is one call's part of a reservation. Its units are zero where the call came
// too late for it and will have to ask again. The zero claim is none.
type claim struct {
	*reservation
	units int64
}

// quotas reserves units: asks that wait at the same time are answered in one
// transaction, by a goroutine that lives as long as there are any.
type quotas struct {
	store Quotas
	now   func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	waiting []*reservation
	flying  []*reservation
	idle    chan struct{} // closed while no goroutine runs; nil at first
	// closed are the keys whose quotas are being set, by how many. Asks for them
	// wait for the end of it.
	closed map[string]int

	// returns is held from taking units out of a budget until they are stored, and
	// from asking for units until they are in their budgets. So who recalls a quota
	// finds all of it stored, and no answer speaks of what is left without the units
	// that are just on their way back.
	returns sync.Mutex
}

// joinLocked returns the claim of a call that needs so many units of a key whose
// state it holds. The call waits for it.
func (q *quotas) joinLocked(st *state, b *budget, need int64) claim {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.ask != nil {
		if b.ask.flies {
			return claim{b.ask, 0}
		}
		b.ask.want += need
		return claim{b.ask, need}
	}
	b.ask = &reservation{state: st, quota: b.quota, want: need, done: make(chan struct{})}
	q.waiting = append(q.waiting, b.ask)
	q.startLocked()
	return claim{b.ask, need}
}

// startLocked makes sure that someone answers the asks. The caller holds mu.
func (q *quotas) startLocked() {
	if q.flying == nil && len(q.waiting) > 0 && (q.idle == nil || isClosed(q.idle)) {
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
func (q *quotas) answer() {
	for {
		asks := q.takeOff()
		if asks == nil {
			return
		}
		q.grant(asks)
		for _, a := range asks {
			close(a.done)
		}
	}
}

// grant asks storage for the units of asks and gives them to the states.
func (q *quotas) grant(asks []*reservation) {
	q.returns.Lock()
	defer q.returns.Unlock()
	requests := make([]apikey.QuotaAsk, len(asks))
	for i, a := range asks {
		requests[i] = apikey.QuotaAsk{KeyID: a.state.id, Quota: a.quota, Want: a.asked}
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
	var unclaimed []apikey.QuotaReturn
	for i, a := range asks {
		unclaimed = q.land(a, grants[i], now, err, unclaimed)
	}
	q.giveBack(unclaimed)
}

// takeOff returns the asks to answer next; nil where there are none, and then the
// one who asked is to end.
func (q *quotas) takeOff() []*reservation {
	q.mu.Lock()
	defer q.mu.Unlock()
	var next, rest []*reservation
	for _, a := range q.waiting {
		if len(next) < asksTogether && q.closed[a.state.id] == 0 {
			a.flies, a.asked = true, a.want
			next = append(next, a)
		} else {
			rest = append(rest, a)
		}
	}
	q.flying, q.waiting = next, rest
	if next == nil {
		close(q.idle)
	}
	return next
}

// land gives the state of an ask what it got. Where calls have gone it is taken out
// again but for what the others want, as a return that is appended to returns.
func (q *quotas) land(a *reservation, g apikey.QuotaGrant, now time.Time, err error, returns []apikey.QuotaReturn) []apikey.QuotaReturn {
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	b := a.state.budget
	a.err = err
	if a.stale = err == nil && g.Quota == (apikey.Quota{}); err == nil && !a.stale {
		b.receive(g, now)
	}
	b.ask = nil
	q.mu.Lock()
	defer q.mu.Unlock()
	a.landed = true
	if a.want < a.asked {
		returns = b.surrender(a.state.id, g.Units-a.want, returns)
	}
	return returns
}

// wait waits for a claim and reports whether the entry of the call is stale. Of a
// call that gives up no more stays reserved than the block that a server holds
// anyway.
func (q *quotas) wait(ctx context.Context, c claim) (stale bool, err error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		if q.leave(c) {
			return false, ctx.Err()
		}
		<-c.done // it has its units already
	}
	return c.stale, c.err
}

// leave takes a claim out of its reservation, unless that has landed.
func (q *quotas) leave(c claim) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.landed {
		return false
	}
	c.want -= c.units
	return true
}

// surrender gives back what calls have reserved and not spent, in units by the id
// of the key, but for what a server holds anyway.
func (q *quotas) surrender(s *states, unspent map[string]int64) {
	q.returns.Lock()
	defer q.returns.Unlock()
	var returns []apikey.QuotaReturn
	for id, units := range unspent {
		if st := s.find(id); st != nil {
			st.mu.Lock()
			returns = st.budget.surrender(id, units, returns)
			st.mu.Unlock()
		}
	}
	q.giveBack(returns)
}

// giveBack stores units that were taken out of budgets. What fails is lost, and
// never granted twice.
func (q *quotas) giveBack(returns []apikey.QuotaReturn) {
	if len(returns) == 0 {
		return
	}
	// The units are in nobody's hands, so no caller can break it off.
	ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
	defer cancel()
	if err := q.store.ReturnQuota(ctx, returns); err != nil {
		q.log.Error("What was reserved of quotas and not spent could not be given back; it is lost.", "keys", len(returns), "error", err)
	}
}

// shut lets no ask for keys take off until open is called, and waits for those
// that fly.
func (q *quotas) shut(ctx context.Context, ids []string) (open func(), err error) {
	shut := make(map[string]bool, len(ids))
	q.mu.Lock()
	if q.closed == nil {
		q.closed = make(map[string]int)
	}
	for _, id := range ids {
		shut[id] = true
		q.closed[id]++
	}
	flying := q.flying
	q.mu.Unlock()
	open = sync.OnceFunc(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, id := range ids {
			if q.closed[id]--; q.closed[id] == 0 {
				delete(q.closed, id)
			}
		}
		q.startLocked()
	})
	for _, a := range flying {
		if !shut[a.state.id] {
			continue
		}
		if _, err := q.wait(ctx, claim{a, 0}); ctx.Err() != nil {
			open()
			return nil, err
		}
	}
	return open, nil
}

// recall gives back what is held of keys, so that storage knows all that is left
// of their quotas, and lets nothing be reserved until open is called.
func (q *quotas) recall(ctx context.Context, s *states, ids []string) (open func(), err error) {
	if open, err = q.shut(ctx, ids); err != nil {
		return nil, err
	}
	q.returns.Lock()
	defer q.returns.Unlock()
	var returns []apikey.QuotaReturn
	for _, id := range ids {
		st := s.find(id)
		if st == nil {
			continue
		}
		st.mu.Lock()
		returns = st.budget.release(id, returns)
		st.mu.Unlock()
	}
	if len(returns) == 0 {
		return open, nil
	}
	// The units are in nobody's hands now: a caller who goes away must not take
	// them along.
	if err := q.store.ReturnQuota(context.WithoutCancel(ctx), returns); err != nil {
		open()
		return nil, err
	}
	return open, nil
}
