package verify

import (
	"context"
	"fmt"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// VerifyBatch judges secrets one after the other, as [Verifier.Verify] does, and
// returns the results in the order of requests. What is missing in memory is read
// together, and what they need of quotas is reserved together. A cost that a key's
// limits can never meet is an error that names each such request as keys[i].cost,
// and nothing is spent then.
func (v *Verifier) VerifyBatch(ctx context.Context, requests []Request) ([]apikey.Verification, error) {
	entries, err := v.entries(ctx, requests)
	if err != nil {
		return nil, err
	}
	if err := v.prepare(ctx, requests, entries); err != nil {
		return nil, err
	}
	results := make([]apikey.Verification, len(requests))
	for i := range requests {
		var c claim
		if results[i], c, err = v.attempt(entries[i], &requests[i]); c.reservation != nil {
			results[i], err = v.attemptAgain(ctx, entries[i], requests[i], c)
		}
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}

// entries returns the entry that each request finds, nil where there is none.
func (v *Verifier) entries(ctx context.Context, requests []Request) ([]*entry, error) {
	entries := make([]*entry, len(requests))
	var missed []int
	var secrets [][]apikey.Hash
	for i := range requests {
		var ok bool
		if entries[i], ok = v.cached(requests[i].Secret); !ok {
			missed = append(missed, i)
			secrets = append(secrets, v.peppers.Hashes(requests[i].Secret))
		}
	}
	if len(missed) == 0 {
		return entries, nil
	}
	loaded, err := v.cache.load(ctx, secrets...)
	if err != nil {
		return nil, notJudged(ctx, err)
	}
	for n, i := range missed {
		entries[i] = loaded[n]
	}
	return entries, nil
}

// prepare judges all requests without spending anything: whether their costs can
// be, and what they need of quotas, which it reserves.
func (v *Verifier) prepare(ctx context.Context, requests []Request, entries []*entry) error {
	var problems []apikey.FieldProblem
	needs := make(map[*entry]int64)
	now := v.now()
	for i, e := range entries {
		r := &requests[i]
		result, foreign := v.find(e, r, now)
		if result.Code != "" {
			continue
		}
		if result = judge(e, r, foreign, now); result.Code != "" {
			continue
		}
		if err := apikey.AsError(affordable(&e.key, r.Cost)); err != nil {
			for _, f := range err.Fields {
				problems = append(problems, apikey.FieldProblem{Field: fmt.Sprintf("keys[%d].%s", i, f.Field), Problem: f.Problem})
			}
		}
		if e.key.Quota.Limit > 0 && r.Cost > 0 {
			needs[e] += int64(r.Cost)
		}
	}
	if err := apikey.InvalidFields(problems); err != nil {
		return err
	}
	asks := make(map[*entry]claim)
	for e, need := range needs {
		st := v.states.lock(e.state)
		b := st.budgetLocked(&e.key.Quota, now)
		if need -= b.held; need > 0 && b.mayHave(1, now) {
			asks[e] = v.quotas.joinLocked(st, b, need)
		}
		st.mu.Unlock()
	}
	for e, a := range asks {
		if err := v.await(ctx, e, a); err != nil {
			return err
		}
	}
	return nil
}
