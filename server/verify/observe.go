package verify

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/measure"
)

// Way is how a secret came to be verified.
type Way int8

// The ways.
const (
	WayGRPC       Way = iota // a verification over gRPC
	WayREST                  // the same over REST
	WayBatch                 // as one of a batch
	WayCredential            // a call was made with it
	WayGate                  // a gateway asked, over HTTP
	WayExtAuthz              // a gateway asked, as Envoy does
	ways
)

// Ways lists all of them.
func Ways() []Way { return []Way{WayGRPC, WayREST, WayBatch, WayCredential, WayGate, WayExtAuthz} }

// String returns the word for w.
func (w Way) String() string {
	return [ways]string{"grpc", "rest", "batch", "credential", "gate", "ext_authz"}[w]
}

// The outcomes besides the codes of package apikey: storage failed, and the one who
// asked has gone.
const (
	OutcomeUnavailable apikey.Code = "unavailable"
	OutcomeCanceled    apikey.Code = "canceled"
)

// outcomes are all that a verification can come to. The most frequent comes first,
// since they are searched.
var outcomes = [...]apikey.Code{
	apikey.CodeValid, apikey.CodeNotFound, apikey.CodeRateLimited, apikey.CodeQuotaExceeded,
	apikey.CodeMalformed, apikey.CodeRevoked, apikey.CodeDisabled, apikey.CodeExpired,
	apikey.CodeInsufficientScope, apikey.CodeIPNotAllowed, apikey.CodeWrongOrganization,
	OutcomeUnavailable, OutcomeCanceled,
}

// Outcomes lists all that a verification can come to.
func Outcomes() []apikey.Code { return outcomes[:] }

// Observations counts and times verifications, for whoever watches the server. What is
// answered from memory is so much faster than two looks at a clock that of these only
// one in sampled is timed, by chance, and then stands for that many; what has waited for
// storage is always timed. [Verifier.Recheck] is not observed.
type Observations struct {
	start    time.Time
	outcomes *measure.Counters // see cell
	took     [ways]*measure.Histogram
}

// sampled is of how many verifications from memory one is timed. It is a power of two.
const sampled = 64

// NewObservations returns Observations of nothing yet.
func NewObservations() *Observations {
	o := &Observations{start: time.Now(), outcomes: measure.NewCounters(int(ways) * len(outcomes) * 2)}
	for i := range o.took {
		o.took[i] = measure.NewHistogram()
	}
	return o
}

// Count returns how many verifications came to an outcome: those from memory, and those
// that waited for storage.
func (o *Observations) Count(w Way, outcome apikey.Code) (fromMemory, waited uint64) {
	return o.outcomes.Value(cell(w, outcome, false)), o.outcomes.Value(cell(w, outcome, true))
}

// Took returns how long verifications took; of a batch, the batch as a whole.
func (o *Observations) Took(w Way) measure.Snapshot { return o.took[w].Snapshot() }

// cell is the index of a count.
func cell(w Way, outcome apikey.Code, waited bool) int {
	i := 0
	for i < len(outcomes)-1 && outcomes[i] != outcome {
		i++
	}
	i = (int(w)*len(outcomes) + i) * 2
	if waited {
		i++
	}
	return i
}

// observation is one verification while it is observed. The methods of the zero
// observation do nothing: nobody wants to know.
type observation struct {
	by     *Observations
	began  time.Duration // since by.start
	weight uint64        // for how many it is timed; zero for not at all
	random uint32
	waited bool // for storage
}

// begin begins to observe. A nil o observes nothing.
func (o *Observations) begin() (s observation) {
	if o == nil {
		return s
	}
	s.by, s.random = o, rand.Uint32() //nolint:gosec // It spreads counts and picks samples.
	if s.random/sampled%sampled == 0 {
		s.time(sampled)
	}
	return s
}

// time times the verification from here on.
func (s *observation) time(weight uint64) {
	s.weight = weight
	s.began = time.Since(s.by.start)
}

// wait says that the verification is going to wait for storage.
func (s *observation) wait() {
	if s.by == nil || s.waited {
		return
	}
	s.waited = true
	if s.weight == 0 {
		s.time(1)
	}
	s.weight = 1
}

// end says what it has come to.
func (s *observation) end(w Way, outcome apikey.Code, err error) {
	if s.by == nil {
		return
	}
	if err != nil {
		if outcome = outcomeOf(err); outcome == "" {
			return
		}
	}
	s.by.outcomes.Add(cell(w, outcome, s.waited), 1, s.random)
	if s.weight > 0 {
		s.by.took[w].Observe(time.Since(s.by.start)-s.began, s.weight)
	}
}

// outcomeOf returns the outcome of a verification that failed; none for a request that
// was refused as such.
func outcomeOf(err error) apikey.Code {
	switch known := apikey.AsError(err); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded) && known == nil:
		return OutcomeCanceled
	case known != nil && known.Kind != apikey.KindUnavailable:
		return ""
	}
	return OutcomeUnavailable
}

// observe counts the results of a batch, or its failure.
func (b *batch) observe(s *observation, results []apikey.Verification, err error) {
	if s.by == nil {
		return
	}
	outcome := apikey.Code("")
	if err != nil {
		if outcome = outcomeOf(err); outcome == "" {
			return
		}
	}
	for i := range b.requests {
		if err == nil {
			outcome = results[i].Code
		}
		s.by.outcomes.Add(cell(WayBatch, outcome, i < len(b.missed) && b.missed[i]), 1, s.random)
	}
	s.by.took[WayBatch].Observe(time.Since(s.by.start)-s.began, 1)
}

// CacheStats is how the cache of keys fares.
type CacheStats struct {
	// Entries is about how many secrets are in memory, and Most how many may be.
	Entries, Most int
	// Dropped is how many were dropped since their keys changed, Evicted how many had to
	// make room.
	Dropped, Evicted uint64
	// Reads is how many reads of keys wait or are under way.
	Reads int
}

// CacheStats returns how the cache fares. It is cheap.
func (v *Verifier) CacheStats() CacheStats {
	c := v.cache
	c.mu.Lock()
	reads := c.reads.Len()
	c.mu.Unlock()
	return CacheStats{
		Entries: c.entries.EstimatedSize(), Most: int(c.entries.GetMaximum()),
		Dropped: c.dropped.Load(), Evicted: c.evicted.Load(), Reads: reads,
	}
}
