package api

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/measure"
)

// Observations counts and times calls, for whoever watches the server. What belongs to
// a method is found once, when the method is registered, so that no call searches for
// it. A nil Observations observes nothing.
type Observations struct {
	start time.Time

	mu      sync.Mutex
	methods []*MethodObservations

	refusals *measure.Counters // by refusalReasons
	streams  atomic.Int64      // open
	ended    *measure.Counters // by StreamEnds
}

// unknownMethod stands for all methods that there are not: callers choose their names.
const unknownMethod = "unknown"

// NewObservations returns Observations of nothing yet.
func NewObservations() *Observations {
	return &Observations{
		start:    time.Now(),
		refusals: measure.NewCounters(len(refusalReasons)),
		ended:    measure.NewCounters(len(streamEnds)),
	}
}

// Methods returns what was observed of each method that is registered, and of those
// that there are not.
func (o *Observations) Methods() []*MethodObservations {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.methods)
}

// method returns what is observed of a method, by its full name. It is called while
// methods are registered. A nil o has none.
func (o *Observations) method(name string, stream bool) *MethodObservations {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.methods {
		if m.Name == name {
			return m
		}
	}
	m := &MethodObservations{Name: name, Stream: stream, by: o, calls: measure.NewCounters(2 * len(Codes()))}
	if !stream {
		m.took = measure.NewHistogram()
	}
	o.methods = append(o.methods, m)
	return m
}

// MethodObservations is what was observed of one method. The methods of a nil one do
// nothing.
type MethodObservations struct {
	// Name is the full name, /service/method, or unknown.
	Name string
	// Stream says that calls are streams, whose length means nothing.
	Stream bool

	by    *Observations
	calls *measure.Counters
	took  *measure.Histogram
}

// Codes lists the codes of gRPC in their order.
func Codes() []codes.Code {
	all := make([]codes.Code, codes.Unauthenticated+1)
	for i := range all {
		all[i] = codes.Code(i)
	}
	return all
}

// Count returns how many calls ended with a code: over gRPC, or over REST, which calls
// the same methods.
func (m *MethodObservations) Count(code codes.Code, overREST bool) uint64 {
	return m.calls.Value(callIndex(code, overREST))
}

// Took returns how long calls took, from before their credential was looked at until
// their answer was ready; not how long it took to send that. Streams have none.
func (m *MethodObservations) Took() measure.Snapshot {
	if m.took == nil {
		return measure.Snapshot{}
	}
	return m.took.Snapshot()
}

func callIndex(code codes.Code, overREST bool) int {
	i := 2 * int(min(code, codes.Unauthenticated))
	if overREST {
		i++
	}
	return i
}

// begin returns when a call began.
func (m *MethodObservations) begin() time.Duration {
	if m == nil {
		return 0
	}
	return time.Since(m.by.start)
}

// end counts a call that began at a time and ended with the status err.
func (m *MethodObservations) end(began time.Duration, overREST bool, err error) {
	if m == nil {
		return
	}
	m.calls.Add(callIndex(status.Code(err), overREST), 1, rand.Uint32()) //nolint:gosec // It spreads counts.
	if m.took != nil {
		m.took.Observe(time.Since(m.by.start)-began, 1)
	}
}

// refusalReasons are why a call is refused before anything of it is read. Others count as
// the last.
var refusalReasons = [...]apikey.Reason{
	apikey.ReasonUnauthenticated, apikey.ReasonPermissionDenied, apikey.ReasonInsufficientScope,
	apikey.ReasonIPNotAllowed, apikey.ReasonWrongOrganization, apikey.ReasonPreviousSecret,
	apikey.ReasonRateLimited, apikey.ReasonQuotaExceeded, apikey.ReasonInvalidArgument,
	apikey.ReasonUnavailable, "OTHER",
}

// RefusalReasons lists why a call can be refused before anything of it is read.
func RefusalReasons() []apikey.Reason { return refusalReasons[:] }

// Refused returns how many calls were refused for the reason.
func (o *Observations) Refused(reason apikey.Reason) uint64 {
	return o.refusals.Value(indexOf(refusalReasons[:], reason))
}

// refuse counts a call that authentication has refused.
func (o *Observations) refuse(err error) {
	if o == nil || err == nil {
		return
	}
	var reason apikey.Reason
	if known := apikey.AsError(err); known != nil {
		reason = known.Reason
	}
	o.refusals.Add(indexOf(refusalReasons[:], reason), 1, 0)
}

// StreamEnd is why a stream ended.
type StreamEnd string

// The ends of streams.
const (
	EndClient      StreamEnd = "client"      // its client went
	EndStopping    StreamEnd = "stopping"    // the server stops
	EndCredential  StreamEnd = "credential"  // its credential is no longer good for it
	EndSlowClient  StreamEnd = "slow_client" // its client took nothing for too long
	EndTooMany     StreamEnd = "too_many"    // its caller had too many already
	EndCursor      StreamEnd = "cursor"      // what it should go on after is no longer kept, or is none
	EndUnavailable StreamEnd = "unavailable" // the storage failed
	EndOther       StreamEnd = "other"       // anything else, such as a fault of ours
)

// The reasons of streams that the server ends for what their clients do.
const (
	reasonTooManyStreams apikey.Reason = "TOO_MANY_STREAMS"
	reasonSlowConsumer   apikey.Reason = "SLOW_CONSUMER"
)

var streamEnds = [...]StreamEnd{
	EndClient, EndStopping, EndCredential, EndSlowClient, EndTooMany, EndCursor, EndUnavailable, EndOther,
}

// StreamEnds lists why streams can end.
func StreamEnds() []StreamEnd { return streamEnds[:] }

// Streams returns how many streams are open.
func (o *Observations) Streams() int64 { return o.streams.Load() }

// Ended returns how many streams ended for a reason.
func (o *Observations) Ended(why StreamEnd) uint64 { return o.ended.Value(indexOf(streamEnds[:], why)) }

// beginStream counts a stream that is open from here until the function that it
// returns is called with what the stream ended with.
func (o *Observations) beginStream(ctx context.Context) (end func(error)) {
	if o == nil {
		return func(error) {}
	}
	o.streams.Add(1)
	return func(err error) {
		o.streams.Add(-1)
		o.ended.Add(indexOf(streamEnds[:], streamEndOf(ctx, err)), 1, 0)
	}
}

// streamEndOf returns why a stream ended that ended with err.
func streamEndOf(ctx context.Context, err error) StreamEnd {
	if err == nil {
		return EndClient // Streams do not end of themselves.
	}
	switch known := knownError(ctx, err); {
	case known == errStopping:
		return EndStopping
	case known.Reason == reasonTooManyStreams:
		return EndTooMany
	case known.Reason == reasonSlowConsumer:
		return EndSlowClient
	case known == canceledError, known == deadlineError:
		return EndClient
	case known.Kind == apikey.KindUnauthenticated, known.Kind == apikey.KindPermissionDenied:
		return EndCredential
	case known.Kind == apikey.KindOutOfRange, known.Kind == apikey.KindInvalid:
		return EndCursor
	case known.Kind == apikey.KindUnavailable:
		return EndUnavailable
	}
	return EndOther
}

// indexOf returns the index of what in all, or of the last, which stands for others.
func indexOf[T comparable](all []T, what T) int {
	if i := slices.Index(all, what); i >= 0 {
		return i
	}
	return len(all) - 1
}
