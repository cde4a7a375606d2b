package rest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/connection"
)

// A builtin is a path whose handler is written by hand.
type builtin struct {
	method, path string
	serve        func(*exchange)
	about        About
}

// builtins lists the paths whose handlers are written by hand.
func builtins() []builtin {
	return []builtin{
		{http.MethodGet, "/healthz", (*exchange).health, About{
			ID: "getHealth", Summary: "Tells that the server is alive.", Text: "The process runs and takes requests.",
			Data: `{"type":"object","required":["status"],"properties":{"status":{"const":"ok"}}}`,
		}},
		{http.MethodGet, "/readyz", (*exchange).readiness, About{
			ID: "getReadiness", Summary: "Tells whether the server should be sent calls.",
			Text:  "503 with the reason `NOT_READY` while it should not. `warnings` is there where something is not as it should be although the server answers right.",
			Data:  `{"type":"object","required":["status"],"properties":{"status":{"const":"ok"},"warnings":{"type":"array","items":{"type":"string"}}}}`,
			Fails: []int{http.StatusServiceUnavailable},
		}},
		{http.MethodGet, documentPath, (*exchange).file, About{
			ID: "getOpenApiDocument", Summary: "Returns this document.", MediaType: "application/json", Cached: true,
		}},
		{http.MethodGet, pagePath, (*exchange).file, About{
			ID: "getReference", Summary: "Shows this document to people.", MediaType: "text/html", Cached: true,
		}},
		{http.MethodGet, pagePath + "/{file}", (*exchange).file, About{
			ID: "getReferenceFile", Summary: "Returns a part of the page at /docs.", MediaType: "*/*", Cached: true, Fails: []int{http.StatusNotFound},
		}},
		{http.MethodGet, watchPath, (*exchange).watch, About{}}, // in place of the router's own
	}
}

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
	data := `{"status":"ok"}`
	if warnings := e.h.Warnings(); len(warnings) > 0 {
		quoted := make([]string, len(warnings))
		for i, w := range warnings {
			quoted[i] = quote(w)
		}
		data = `{"status":"ok","warnings":[` + strings.Join(quoted, ",") + `]}`
	}
	e.succeed(data, success+`"The server is ready"`+e.h.tail)
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
