package verify

import (
	"context"
	"errors"
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
	want  int64 // guarded by the quotas' mu until it flies
	flies bool  // guarded by the quotas' mu
	done  chan struct{}
	// What came of it, once done is closed. stale says that the quota was set anew
	// since the entry of the calls was read.
	stale bool
	err   error
}

// quotas reserves units: asks that wait at the same time are answered in one
// transaction, by a goroutine that lives as long as there are any.
type quotas struct {
	store Quotas
	now   func() time.Time

	mu      sync.Mutex
	waiting []*reservation
	flying  []*reservation
	idle    chan struct{} // closed while no goroutine runs; nil at first
	// closed are the keys whose quotas are being set, by how many. Asks for them
	// wait for the end of it.
	closed map[string]int
}

// joinLocked returns the ask that calls wait for who need so many units, of a key
// whose state the caller holds.
func (q *quotas) joinLocked(st *state, b *budget, need int64) *reservation {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.ask != nil {
		if !b.ask.flies { // else these calls will find too little and ask again
			b.ask.want += need
		}
		return b.ask
	}
	b.ask = &reservation{state: st, quota: b.quota, want: need, done: make(chan struct{})}
	q.waiting = append(q.waiting, b.ask)
	q.startLocked()
	return b.ask
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
		requests := make([]apikey.QuotaAsk, len(asks))
		for i, a := range asks {
			requests[i] = apikey.QuotaAsk{KeyID: a.state.id, Quota: a.quota, Want: a.want}
		}
		now := q.now()
		ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
		grants, err := q.store.ReserveQuota(ctx, requests, now)
		cancel()
		if err == nil && len(grants) != len(asks) {
			err = errors.New("not every ask was answered")
		}
		for i, a := range asks {
			if err != nil {
				a.land(apikey.QuotaGrant{}, now, err)
			} else {
				a.land(grants[i], now, nil)
			}
		}
	}
}

// takeOff returns the asks to answer next; nil where there are none, and then the
// one who asked is to end.
func (q *quotas) takeOff() []*reservation {
	q.mu.Lock()
	defer q.mu.Unlock()
	var next, rest []*reservation
	for _, a := range q.waiting {
		if len(next) < asksTogether && q.closed[a.state.id] == 0 {
			a.flies = true
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

// land gives the state of an ask what it got, and lets the calls go on.
func (a *reservation) land(g apikey.QuotaGrant, now time.Time, err error) {
	a.state.mu.Lock()
	b := a.state.budget
	a.err = err
	if a.stale = err == nil && g.Quota == (apikey.Quota{}); err == nil && !a.stale {
		b.receive(g, now)
	}
	b.ask = nil
	a.state.mu.Unlock()
	close(a.done)
}

// wait waits for an ask and reports whether the entry of the call is stale.
func (a *reservation) wait(ctx context.Context) (stale bool, err error) {
	select {
	case <-a.done:
		return a.stale, a.err
	case <-ctx.Done():
		return false, ctx.Err()
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
		if _, err := a.wait(ctx); ctx.Err() != nil {
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
	var returns []apikey.QuotaReturn
	for _, id := range ids {
		s.mu.Lock()
		st := s.byID[id]
		s.mu.Unlock()
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
