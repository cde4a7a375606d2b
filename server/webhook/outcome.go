package webhook

import (
	"time"
)

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
