package verify

import (
	"context"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// RecallQuota gives back what this server holds of a key's quota, and reserves
// nothing of it until resume is called, so that what is stored is all there is.
// Who sets the quota calls it before, and resume after.
func (v *Verifier) RecallQuota(ctx context.Context, id string) (resume func(), err error) {
	return v.quotas.recall(ctx, &v.states, []string{id})
}

// Reckon completes the quota of a key that was read from storage: what is left of
// it counts what this server holds in reserve, and a refill that has come since.
func (v *Verifier) Reckon(k *apikey.Key) {
	if k.Quota.Limit == 0 {
		return
	}
	now := v.now()
	k.Quota = k.Quota.At(now)
	st := v.states.find(k.ID)
	if st == nil {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	b := st.budget
	if b == nil || b.quota.Epoch != k.Quota.Epoch {
		return
	}
	b.turn(now)
	if !b.quota.RefilledAt.Equal(k.Quota.RefilledAt) {
		return
	}
	if !b.knownAt.IsZero() {
		// What was reserved after the key was read is in neither of the two.
		k.Quota.Remaining = min(k.Quota.Remaining, b.quota.Remaining)
	}
	k.Quota.Remaining += b.held
}

// giveBack gives back what is held of keys that are not in use. What fails is
// lost, and never granted twice.
func (v *Verifier) giveBack(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	open, err := v.quotas.recall(whole, &v.states, ids)
	if err != nil {
		v.log.Error("What was reserved of quotas could not be given back; it is lost.", "keys", len(ids), "error", err)
		return
	}
	open()
}
