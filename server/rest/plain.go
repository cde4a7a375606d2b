package rest

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/connection"
)

// health answers GET /healthz: the process runs and takes requests.
func (c *call) health() {
	connection.Of(c.r.Context()).Serve()
	c.succeed(`{"status":"ok"}`, success+`"The server is alive"`+c.h.tail)
}

// readiness answers GET /readyz: what the server needs is there.
func (c *call) readiness() {
	connection.Of(c.r.Context()).Serve()
	if err := c.h.Ready(c.r.Context()); err != nil {
		c.fail(&failure{
			status:     http.StatusServiceUnavailable,
			reason:     "NOT_READY",
			text:       "The server is not ready yet. Try again in a moment.",
			retryAfter: time.Second,
			cause:      fmt.Errorf("not ready: %w", err),
		})
		return
	}
	c.succeed(`{"status":"ok"}`, success+`"The server is ready"`+c.h.tail)
}

// options answers OPTIONS with the methods of a path.
func (c *call) options() {
	verbs := c.h.routes.verbs(c.r.URL.Path)
	if verbs == nil {
		c.fail(errNoRoute)
		return
	}
	allowed := strings.Join(verbs, ", ")
	c.w.Header().Set("Allow", allowed)
	c.succeed("null", success+quote("This path takes "+allowed)+c.h.tail)
}

// refuseVerb answers a method that the path does not take.
func (c *call) refuseVerb() {
	allowed := strings.Join(c.h.routes.verbs(c.r.URL.Path), ", ")
	c.w.Header().Set("Allow", allowed)
	c.fail(&failure{status: http.StatusMethodNotAllowed, reason: "METHOD_NOT_ALLOWED", text: "This path takes " + allowed + "."})
}
