package rest

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/apikeys-dev/apikeys/server/connection"
)

// health answers GET /healthz: the process runs and takes requests.
func (e *exchange) health() {
	connection.Of(e.r.Context()).Serve()
	e.succeed(`{"status":"ok"}`, success+`"The server is alive"`+e.h.tail)
}

// readiness answers GET /readyz: what the server needs is there.
func (e *exchange) readiness() {
	connection.Of(e.r.Context()).Serve()
	if err := e.h.Ready(e.r.Context()); err != nil {
		text := "The server is not ready."
		if known, ok := errors.AsType[*NotReady](err); ok {
			text = known.Text
		}
		e.fail(&failure{
			status:     http.StatusServiceUnavailable,
			reason:     reasonNotReady,
			text:       text,
			retryAfter: time.Second,
			cause:      fmt.Errorf("not ready: %w", err),
		})
		return
	}
	e.succeed(`{"status":"ok"}`, success+`"The server is ready"`+e.h.tail)
}

// reasonNotReady is the reason of a readiness that is none. It is asked for every
// few seconds and told in the log once, by whoever knows, so it is no error here.
const reasonNotReady = "NOT_READY"

// NotReady is why the server should be sent no calls.
type NotReady struct {
	// Text is a sentence for everybody.
	Text string
	// Cause is for the log of the server; nil where Text says all.
	Cause error
}

var _ error = (*NotReady)(nil)

// Error returns the sentence, and the cause behind it.
func (e *NotReady) Error() string {
	if e.Cause == nil {
		return e.Text
	}
	return e.Text + " (" + e.Cause.Error() + ")"
}

// Unwrap returns the cause.
func (e *NotReady) Unwrap() error { return e.Cause }

// options answers OPTIONS with the methods of a path.
func (e *exchange) options(allowed string) {
	e.w.Header().Set("Allow", allowed)
	e.succeed("null", success+quote("This path takes "+allowed)+e.h.tail)
}

// refuseMethod answers a method that the path does not take.
func (e *exchange) refuseMethod(allowed string) {
	e.w.Header().Set("Allow", allowed)
	e.fail(&failure{status: http.StatusMethodNotAllowed, reason: "METHOD_NOT_ALLOWED", text: "This path takes " + allowed + "."})
}
