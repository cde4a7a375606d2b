package verify

import (
	"context"
	"fmt"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/meter"
)

// maxFound bounds the keys that one batch may tell of, in bytes of their messages:
// clients of gRPC take answers of 4 MiB unless they are set otherwise, and one that
// a client does not take has been spent all the same.
const maxFound = 3 << 20

// maxLooks is how often a batch looks for keys that change while it waits for
// storage. After that it looks again at each of them when it is its turn.
const maxLooks = 4

// VerifyBatch decides about secrets one after the other, as [Verifier.Verify] does, and
// returns the results in the order of requests. What is missing in memory is read
// together, and what they need of limits is reserved together, before the first is
// decided: a change of a key that was answered by then is seen.
//
// A cost that a key's limits can never meet is no error here but a refusal: who
// asks about many keys cannot know the limits of all. Other faults of a request,
// and keys that are too large for one answer, are an error before anything is
// spent. After that only storage can fail a batch half-way, and only if it has to
// be asked again: for a key that is being changed, or for units that others have
// spent meanwhile.
func (v *Verifier) VerifyBatch(ctx context.Context, requests []Request) (results []apikey.Verification, err error) {
	b := &batch{Verifier: v, requests: requests, unspent: make(map[string]int64)}
	seen := v.observations.begin()
	if seen.by != nil {
		seen.time(1)
		b.missed = make([]bool, len(requests))
	}
	defer func() { b.observe(&seen, results, err) }()
	if err := b.checkRequests(); err != nil {
		return nil, err
	}
	defer func() { v.meter.Refund(b.unspent) }()
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	return b.decideAll(ctx)
}

// batch is a call of VerifyBatch. Its phases are: check the requests, find the
// keys, bound the answer, reserve units and decide.
type batch struct {
	*Verifier
	requests []Request
	entries  []*entry // that each request finds; nil where there is none
	missed   []bool   // what each request looks for was not in memory; nil if nobody observes
	// stale says that a key may have changed since entries were found.
	stale bool
	// unspent is what was reserved for the batch, by the id of the key, less what it
	// has spent: of these units or of others, since one is as good as another.
	unspent map[string]int64
}

// checkRequests names the faults of the requests themselves.
func (b *batch) checkRequests() error {
	var problems []apikey.FieldProblem
	for i := range b.requests {
		if b.requests[i].Cost < 0 {
			problems = append(problems, apikey.FieldProblem{Field: fmt.Sprintf("keys[%d].cost", i), Problem: "must not be negative"})
		}
	}
	if err := apikey.InvalidFields(problems); err != nil {
		return err
	}
	return nil
}

// prepare does all that waits for storage. It begins anew after it has waited for
// units, or where a key has changed during it, so that what it leaves is as of its
// end.
func (b *batch) prepare(ctx context.Context) error {
	found := int64(-1) // the generation that the entries are of
	for range maxLooks {
		if now := b.cache.generation(); now != found {
			found = now
			if err := b.findAll(ctx); err != nil {
				return err
			}
			if err := b.bound(); err != nil {
				return err
			}
		}
		waited, err := b.reserve(ctx)
		if err != nil {
			return err
		}
		if !waited && b.cache.generation() == found {
			return nil
		}
	}
	b.stale = true
	return nil
}

// findAll finds the entries of all requests. What is not in memory is read
// together.
func (b *batch) findAll(ctx context.Context) error {
	b.entries = make([]*entry, len(b.requests))
	var missed []int
	reading := b.reading()
	for i := range b.requests {
		var ok bool
		if b.entries[i], ok = b.cached(apikey.BareSecret(b.requests[i].Secret)); !ok {
			missed = append(missed, i)
			if b.missed != nil {
				b.missed[i] = true
			}
		}
	}
	if _, fresh := b.freshness(reading); !fresh {
		for i, e := range b.entries {
			if e != nil {
				missed = append(missed, i)
				if b.missed != nil {
					b.missed[i] = true
				}
			}
		}
	}
	if len(missed) == 0 {
		return nil
	}
	secrets := make([][]apikey.Hash, len(missed))
	for n, i := range missed {
		secrets[n] = b.peppers.Hashes(apikey.BareSecret(b.requests[i].Secret))
	}
	loaded, err := b.cache.load(ctx, secrets...)
	if err != nil {
		return unavailable(ctx, err)
	}
	for n, i := range missed {
		b.entries[i] = loaded[n]
	}
	return nil
}

// bound refuses a batch that finds more than one answer should tell of.
func (b *batch) bound() error {
	size := 0
	for i, e := range b.entries {
		var result apikey.Verification
		r := b.requests[i].as(batched)
		if b.check(e, b.now(), &r, &result); result.Key != nil {
			size += result.Key.MessageSize()
		}
	}
	if size > maxFound {
		return apikey.InvalidField("keys", "would have an answer of more than %d MiB; ask about fewer keys at once", maxFound>>20)
	}
	return nil
}

// plan is what the requests of a batch are going to take of one key's limits.
type plan struct {
	entry    *entry
	units    int64 // of the quota
	requests int64 // of an exact rate limit
	// available is the most that the limits can give, of the rate limit after these
	// requests.
	available meter.Available
}

// plans goes through the requests in their order and adds up, by the id of the
// key, what those that will pass take of quotas and exact rate limits. What a limit is
// going to refuse takes nothing: it must not be reserved, since a crash loses what is.
func (b *batch) plans() map[string]*plan {
	plans := make(map[string]*plan)
	now := b.now()
	for i, e := range b.entries {
		r := b.requests[i].as(batched)
		if e == nil || e.key.Quota.Limit == 0 && !e.key.RateLimit.Exact || r.cost == 0 {
			continue
		}
		var result apikey.Verification
		if b.check(e, now, &r, &result); result.Code != apikey.CodeValid {
			continue
		}
		p := plans[e.key.ID]
		if p == nil {
			p = &plan{entry: e, available: b.meter.Available(e.counters, &e.key, now)}
			plans[e.key.ID] = p
		}
		if cost := int64(r.cost); cost <= p.available.RateLimit && p.units+cost <= p.available.Quota {
			if e.key.Quota.Limit > 0 {
				p.units += cost
			}
			if e.key.RateLimit.Exact {
				p.requests += cost
			}
			p.available.RateLimit -= cost
		}
	}
	return plans
}

// reserve reserves what the plans need beyond what is held, and reports whether
// that was anything.
func (b *batch) reserve(ctx context.Context) (waited bool, err error) {
	plans := b.plans()
	var tickets []meter.Ticket
	now := b.now()
	for _, p := range plans {
		if p.units > 0 {
			if t := b.meter.Reserve(p.entry.counters, &p.entry.key, p.units, now); t.Pending() {
				tickets = append(tickets, t)
			}
		}
		if p.requests > 0 {
			if t := b.meter.ReserveRate(p.entry.counters, &p.entry.key, p.requests, now); t.Pending() {
				tickets = append(tickets, t)
			}
		}
	}
	// Where one fails the others are given up.
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	for _, t := range tickets {
		switch err := b.await(waiting, t.KeyID(), t); {
		case err == nil:
			if units := t.Units(); units > 0 {
				b.unspent[t.KeyID()] += units
			}
		case failed == nil:
			failed = err
			cancel()
		}
	}
	return len(tickets) > 0, failed
}

// decideAll decides about the requests one after the other.
func (b *batch) decideAll(ctx context.Context) ([]apikey.Verification, error) {
	results := make([]apikey.Verification, len(b.requests))
	for i, e := range b.entries {
		r := b.requests[i].as(batched)
		var err error
		at := b.now()
		if b.stale && e != nil {
			// Of a secret that nobody had there is nothing in memory, and it would have to
			// be read once more; whoever has it now has it since the batch began.
			if e, at, err = b.lookUp(ctx, r.Secret); err != nil {
				return nil, err
			}
		}
		var t meter.Ticket
		if t, err = b.checkAndCharge(e, at, &r, &results[i]); t.Pending() {
			b.stale = true
			err = b.decideAfter(ctx, &r, t, &results[i])
		}
		if err != nil {
			return nil, err
		}
		if results[i].Code == apikey.CodeValid {
			b.spend(results[i].Key.ID, int64(r.cost))
		}
	}
	return results, nil
}

// spend takes units off what is unspent of a key.
func (b *batch) spend(id string, units int64) {
	if left := b.unspent[id] - units; left > 0 {
		b.unspent[id] = left
	} else {
		delete(b.unspent, id)
	}
}
