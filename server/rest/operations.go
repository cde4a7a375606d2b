package rest

import (
	"net/http"
	"time"

	"github.com/apikeys-dev/apikeys/server/connection"
)

// Operations returns the handler of a listener for operators: `GET /healthz` and
// `GET /readyz`, as the Handler itself has them, and `GET /metrics`, which metrics
// answers, where it is not nil. Nothing else is there, and nothing needs a credential. It
// is for a network that only operators reach.
func (h *Handler) Operations(metrics http.Handler) http.Handler {
	return &operations{h, metrics, allowed(map[string]*route{http.MethodGet: {}})}
}

// operations is the handler of a listener for operators.
type operations struct {
	h       *Handler
	metrics http.Handler
	allow   string
}

// ServeHTTP answers one request.
func (o *operations) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := o.h.begin(w, r)
	defer e.end()
	defer e.onConnection.Close()
	var serve func(*exchange)
	switch r.URL.Path {
	case "/healthz":
		serve = (*exchange).health
	case "/readyz":
		serve = (*exchange).readiness
	case "/metrics":
		if o.metrics != nil {
			serve = o.serveMetrics
		}
	}
	switch {
	case connection.TooManyHeaders(r.Header):
		e.fail(errTooManyHeaders)
	case serve == nil:
		e.fail(errNoRoute)
	case r.Method == http.MethodOptions:
		e.options(o.allow)
	case e.method != http.MethodGet:
		e.refuseMethod(o.allow)
	default:
		serve(e)
	}
}

// serveMetrics lets metrics answer.
func (o *operations) serveMetrics(e *exchange) {
	connection.Of(e.r.Context()).Serve()
	e.done = true
	o.metrics.ServeHTTP(e.w, e.r)
}

// begin begins an exchange: its deadline, and the headers that every answer has.
func (h *Handler) begin(w http.ResponseWriter, r *http.Request) *exchange {
	e := &exchange{h: h, w: w, r: r, method: r.Method, buffers: bufferPool.Get().(*buffers)}
	if e.method == http.MethodHead {
		e.method = http.MethodGet // net/http leaves the body out
	}
	// A client that asks and does not read must not hold its answer for ever.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.AnswerTimeout)) // a writer without deadlines does not block
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	return e
}
