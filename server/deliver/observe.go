package deliver

import (
	"slices"
	"time"

	"github.com/apikeys-dev/apikeys/server/measure"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// Observations counts and times what a worker does, for whoever watches the server. A
// nil Observations observes nothing.
type Observations struct {
	start    time.Time
	attempts *measure.Counters // by attemptOutcomes
	took     *measure.Histogram
	health   *measure.Counters // by HealthChanges
}

// NewObservations returns Observations of nothing yet.
func NewObservations() *Observations {
	return &Observations{
		start:    time.Now(),
		attempts: measure.NewCounters(len(attemptOutcomes)),
		took:     measure.NewHistogram(),
		health:   measure.NewCounters(len(healthChanges)),
	}
}

// The outcomes of attempts besides the classes of their failures.
const (
	// OutcomeAcknowledged is that the endpoint answered 2xx.
	OutcomeAcknowledged webhook.ErrorClass = "acknowledged"
	// OutcomeCutOff is that the server stopped first; the attempt does not count.
	OutcomeCutOff webhook.ErrorClass = "cut_off"
)

// attemptOutcomes are all outcomes; one that is not among them counts as the last.
var attemptOutcomes = [...]webhook.ErrorClass{
	OutcomeAcknowledged, OutcomeCutOff,
	webhook.ClassBlockedAddress, webhook.ClassDNSError, webhook.ClassConnectionRefused, webhook.ClassConnectionFailed,
	webhook.ClassTLSError, webhook.ClassTimeout, webhook.ClassInvalidResponse, webhook.ClassHTTPStatus,
	webhook.ClassEventGone, webhook.ClassInternal,
}

// AttemptOutcomes lists what attempts can come to.
func AttemptOutcomes() []webhook.ErrorClass { return attemptOutcomes[:] }

// The changes of an endpoint's health.
const (
	HealthFailing   = "failing"
	HealthRecovered = "recovered"
	HealthDisabled  = "disabled"
)

var healthChanges = [...]string{HealthFailing, HealthRecovered, HealthDisabled}

// HealthChanges lists the changes of an endpoint's health.
func HealthChanges() []string { return healthChanges[:] }

// Attempts returns how many attempts came to an outcome.
func (o *Observations) Attempts(outcome webhook.ErrorClass) uint64 {
	return o.attempts.Value(max(0, slices.Index(attemptOutcomes[:], outcome)))
}

// Took returns how long attempts took, those that were cut off aside.
func (o *Observations) Took() measure.Snapshot { return o.took.Snapshot() }

// Changes returns how many webhooks changed their health in a way.
func (o *Observations) Changes(change string) uint64 {
	return o.health.Value(max(0, slices.Index(healthChanges[:], change)))
}

// begin returns when an attempt begins.
func (o *Observations) begin() time.Duration {
	if o == nil {
		return 0
	}
	return time.Since(o.start)
}

// end counts an attempt that began at a time. An error means that it was cut off.
func (o *Observations) end(began time.Duration, outcome *webhook.Outcome, err error) {
	if o == nil {
		return
	}
	class := outcome.Failure.Class
	switch {
	case err != nil:
		class = OutcomeCutOff
	case outcome.Acknowledged():
		class = OutcomeAcknowledged
	}
	i := slices.Index(attemptOutcomes[:], class)
	if i < 0 {
		i = len(attemptOutcomes) - 1
	}
	o.attempts.Add(i, 1, uint32(began)) // It spreads counts.
	if err == nil {
		o.took.Observe(time.Since(o.start)-began, 1)
	}
}

// changed counts a change of a webhook's health.
func (o *Observations) changed(c *webhook.HealthChange) {
	if o == nil {
		return
	}
	change := HealthRecovered
	switch {
	case c.DisabledReason != "":
		change = HealthDisabled
	case c.State == webhook.HealthFailing:
		change = HealthFailing
	}
	o.health.Add(slices.Index(healthChanges[:], change), 1, 0)
}

// FanOutLag is how far the fan-out is behind the log.
type FanOutLag struct {
	// Organizations is how many have events without all of their deliveries.
	Organizations int
	// Oldest is how old the oldest of these events is, about; zero for none.
	Oldest time.Duration
	// Furthest is the organization of that event.
	Furthest string
}

// Lag returns how far the fan-out of this server is behind. It looks at each organization
// that has webhooks.
func (f *FanOut) Lag() (lag FanOutLag) {
	now := f.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.known {
		if o.oldest.IsZero() {
			continue
		}
		lag.Organizations++
		if age := now.Sub(o.oldest); lag.Furthest == "" || age > lag.Oldest {
			lag.Oldest, lag.Furthest = max(age, 0), o.id
		}
	}
	return lag
}

// Endpoints is what a worker has to do with the webhooks that have something pending,
// by how their endpoints fare.
type Endpoints struct {
	// Healthy, Unknown and Failing are webhooks by the latest outcome of an attempt.
	Healthy, Unknown, Failing int
	// InFlight is how many attempts are under way in all.
	InFlight int
}

// Endpoints returns what the worker of this server knows. It looks at each webhook that
// has something pending.
func (w *Worker) Endpoints() (all Endpoints) {
	s := &w.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.byID {
		switch e.health {
		case healthy:
			all.Healthy++
		case failing:
			all.Failing++
		default:
			all.Unknown++
		}
	}
	for _, n := range s.inFlight {
		all.InFlight += n
	}
	return all
}
