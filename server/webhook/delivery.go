package webhook

import (
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// DeliveryState is where a delivery stands.
type DeliveryState string

// The states.
const (
	StatePending   DeliveryState = "pending"   // waiting or under way
	StateDelivered DeliveryState = "delivered" // acknowledged
	StateFailed    DeliveryState = "failed"    // at the end of its schedule
	StateCancelled DeliveryState = "cancelled"
)

// Trigger is why an attempt is made.
type Trigger string

// The triggers.
const (
	TriggerSchedule Trigger = "schedule"
	TriggerRetry    Trigger = "retry"
	TriggerReplay   Trigger = "replay"
	TriggerTest     Trigger = "test"
)

// Delivery is one event on its way to one webhook. There is one for a webhook
// and an event, for good: it is opened again rather than made again. URL and
// Format are those of the webhook when the event happened.
type Delivery struct {
	ID             string
	WebhookID      string
	OrganizationID string
	EventID        string
	Event          apikey.EventType
	ResourceID     string
	URL            string
	Format         Format

	State DeliveryState
	// Attempts counts all attempts; Failures those that failed since the delivery
	// was opened the last time, which is its place in the schedule.
	Attempts, Failures int
	// Last is what came of the latest attempt.
	Last Outcome
	// Trigger is why the next attempt is made, NextAttemptAt when, and Delay how
	// long that was after the event or the latest attempt. Only a pending
	// delivery has them.
	Trigger       Trigger
	NextAttemptAt time.Time
	Delay         time.Duration

	CreatedAt   time.Time
	UpdatedAt   time.Time
	FirstSentAt time.Time
	// EndedAt is when it came to its end; the zero time while it is pending. Retention
	// counts from it.
	EndedAt time.Time
}

// Attempt is one attempt of a delivery. Number counts from 1.
type Attempt struct {
	DeliveryID string
	Number     int
	Trigger    Trigger
	URL        string // where it was sent
	StartedAt  time.Time
	Duration   time.Duration
	Outcome
}

// NewDelivery returns the delivery of e to w, due at once.
func NewDelivery(w *Webhook, e *apikey.Event, trigger Trigger, now time.Time) Delivery {
	return Delivery{
		ID:             DeliveryID(w.ID, e.ID),
		WebhookID:      w.ID,
		OrganizationID: w.OrganizationID,
		EventID:        e.ID,
		Event:          e.Type,
		ResourceID:     e.ResourceID,
		URL:            w.URL,
		Format:         w.Format,
		State:          StatePending,
		Trigger:        trigger,
		NextAttemptAt:  now,
		CreatedAt:      now,
	}
}

// Settle takes what came of an attempt into d and returns the attempt: the delivery is
// acknowledged, due again later, or at its end.
//
// A caller may have changed the delivery while the attempt was under way. One that
// was opened again stays pending, so that it is sent once more, whatever came of the
// attempt. One that was cancelled stays cancelled, unless it was acknowledged.
func (d *Delivery) Settle(r *Result, b Backoff) Attempt {
	touched := !d.UpdatedAt.Equal(r.Delivery.UpdatedAt)
	d.Attempts++
	d.Last, d.UpdatedAt = r.Outcome, r.EndedAt
	if d.FirstSentAt.IsZero() {
		d.FirstSentAt = r.StartedAt
	}
	a := Attempt{
		DeliveryID: d.ID, Number: d.Attempts, Trigger: r.Delivery.Trigger, URL: r.URL, StartedAt: r.StartedAt,
		Duration: max(r.EndedAt.Sub(r.StartedAt), 0), Outcome: r.Outcome,
	}
	if !r.Outcome.Acknowledged() {
		d.Failures++
	}
	switch {
	case touched && d.State == StatePending: // It was opened again since.
	case r.Outcome.Acknowledged():
		d.end(StateDelivered, r.EndedAt)
	case d.State == StatePending:
		delay, more := b.Next(d.Failures, r.Outcome.RetryAfter)
		if !more || r.Outcome.Failure.Class == ClassEventGone {
			d.end(StateFailed, r.EndedAt)
			break
		}
		d.Trigger, d.Delay, d.NextAttemptAt = TriggerSchedule, delay, r.EndedAt.Add(delay)
	}
	return a
}

// Retry makes d due at once, whatever its state is. One that had ended begins
// its schedule anew.
func (d *Delivery) Retry(w *Webhook, trigger Trigger, now time.Time) error {
	if !w.Enabled {
		return apikey.Errorf(apikey.KindFailedPrecondition, ReasonWebhookDisabled,
			"The webhook of this delivery is disabled; enable it first.")
	}
	if d.State != StatePending {
		d.Failures = 0
	}
	d.State, d.Trigger, d.EndedAt = StatePending, trigger, time.Time{}
	d.NextAttemptAt, d.Delay, d.UpdatedAt = now, 0, now
	return nil
}

// Cancel ends a pending delivery. It reports whether that changed d: one that is
// cancelled already stays as it is.
func (d *Delivery) Cancel(now time.Time) (changed bool, err error) {
	switch d.State {
	case StateCancelled:
		return false, nil
	case StatePending:
		d.end(StateCancelled, now)
		d.UpdatedAt = now
		return true, nil
	default:
		return false, apikey.Errorf(apikey.KindFailedPrecondition, ReasonNotPending,
			"The delivery is %s; only a pending one can be cancelled.", d.State)
	}
}

// Abandon ends a delivery whose webhook was deleted.
func (d *Delivery) Abandon(now time.Time) { d.end(StateCancelled, now) }

// end leaves d in a state that waits for nothing.
func (d *Delivery) end(state DeliveryState, now time.Time) {
	d.State, d.Trigger, d.EndedAt = state, "", now
	d.NextAttemptAt, d.Delay = time.Time{}, 0
}

// Retries returns the number of attempts after the first.
func (d *Delivery) Retries() int { return max(d.Attempts-1, 0) }

// ErrorClass is the kind of a failed attempt, for machines.
type ErrorClass string

// The classes.
const (
	ClassBlockedAddress    ErrorClass = "blocked_address"    // the guard refuses the place
	ClassDNSError          ErrorClass = "dns_error"          // the host's name did not resolve
	ClassConnectionRefused ErrorClass = "connection_refused" // nobody listens there
	ClassConnectionFailed  ErrorClass = "connection_failed"  // unreachable, or it broke
	ClassTLSError          ErrorClass = "tls_error"          // no trusted, encrypted connection
	ClassTimeout           ErrorClass = "timeout"            // not over in time
	ClassInvalidResponse   ErrorClass = "invalid_response"   // what came is not HTTP, or too much of it
	ClassHTTPStatus        ErrorClass = "http_status"        // an answer, but no 2xx

	// What is no fault of the endpoint, and says nothing of it.
	ClassEventGone ErrorClass = "event_gone" // nothing to send: the log no longer keeps the event
	ClassInternal  ErrorClass = "internal"   // the delivery could not be sent
)

// Failure is why an attempt failed. Its message holds nothing of the url but, at
// most, the host. The zero Failure is none.
type Failure struct {
	Class   ErrorClass
	Message string
}

// Outcome is what came of an attempt.
type Outcome struct {
	// Status is the answer's status code; 0 where there was no answer.
	Status int
	// Body is the beginning of the answer's body, as it came.
	Body    []byte
	Failure Failure
	// RetryAfter is how long the endpoint asked to be left alone.
	RetryAfter time.Duration
}

// Acknowledged reports whether the endpoint took the delivery.
func (o *Outcome) Acknowledged() bool { return o.Failure == (Failure{}) }

// Ours reports whether the attempt failed before it reached for the endpoint.
func (o *Outcome) Ours() bool {
	return o.Failure.Class == ClassEventGone || o.Failure.Class == ClassInternal
}
