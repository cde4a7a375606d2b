package meter

import (
	"context"
	"sync"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

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
	err := q.store.ReturnQuota(ctx, returns)
	q.stats.returned(returns, err)
	q.returning.Note(err, "keys", len(returns))
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
	err = q.store.ReturnQuota(context.WithoutCancel(ctx), returns)
	q.stats.returned(returns, err)
	if err != nil {
		resume()
		return nil, err
	}
	return resume, nil
}
