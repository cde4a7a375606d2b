package verify

import (
	"context"
	"fmt"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// attemptAgain judges a secret that finds e once its claim has been answered, and
// waits for more claims if it takes them. Each time it begins anew, with a new look
// at the clock and the cache: it has waited for a disk. What was reserved for a
// call that spends nothing in the end is given back.
func (v *Verifier) attemptAgain(ctx context.Context, e *entry, r Request, c claim) (result apikey.Verification, err error) {
	id, reserved := c.state.id, false
	for c.reservation != nil && err == nil {
		if err = v.await(ctx, e, c); err != nil {
			break
		}
		reserved = reserved || c.units > 0
		if e, err = v.lookUp(ctx, r.Secret); err == nil {
			result, c, err = v.attempt(e, &r)
		}
	}
	if reserved && (err != nil || result.Code != apikey.CodeValid) {
		v.quotas.surrender(&v.states, map[string]int64{id: int64(r.Cost)})
	}
	return result, err
}

// await waits until units of a quota have been asked for.
func (v *Verifier) await(ctx context.Context, e *entry, c claim) error {
	stale, err := v.quotas.wait(ctx, c)
	if stale {
		v.cache.evict(e.key.Hashes(), 0)
	}
	if err != nil {
		return notJudged(ctx, err)
	}
	return nil
}

// errNotJudged is what callers are told where storage fails.
var errNotJudged = apikey.Errorf(apikey.KindUnavailable, apikey.ReasonUnavailable, "The key could not be judged; try again.")

// notJudged returns what a caller with ctx is told of an error of storage, with
// the cause for the log. One who has gone hears of that alone.
func notJudged(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", errNotJudged, err)
}
