package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/rest"
	"github.com/apikeys-dev/apikeys/server/store"
)

// storage is what readiness asks of the database.
type storage interface {
	// Ready returns an error where the database does not answer.
	Ready(context.Context) error
	// Fault returns what is wrong with the file, or nil.
	Fault() *store.Fault
	// Retry ends a fault that is over, and returns the one that stands, or nil.
	Retry(context.Context) *store.Fault
}

// readyTimeout bounds how long the database is waited for.
const readyTimeout = 2 * time.Second

// readiness knows whether the server should be sent calls. `GET /readyz` and the
// health service of gRPC say the same: not while the storage of the database is at
// fault, the database does not answer or a log that other servers write is not
// followed, and not once the server is stopping.
//
// A clock of this machine that is off the database's is a warning: the server goes by
// the database's, and checks right.
type readiness struct {
	storage storage
	feed    *feed.Feed // nil until there is one
	health  *health.Server
	log     *slog.Logger
	// further are the names of services that are not of the API.
	further []string

	mu       sync.Mutex
	notReady bool         // what was told last
	told     *store.Fault // the fault that the log was told of, while it stands
	stopping bool
}

// ready returns why the server should be sent no calls, in words for everybody, or
// nil.
func (r *readiness) ready(ctx context.Context) error {
	r.mu.Lock()
	stopping := r.stopping
	r.mu.Unlock()
	if stopping {
		return &rest.NotReady{Text: "The server is stopping."}
	}
	if fault := r.storage.Fault(); fault != nil {
		return &rest.NotReady{Text: fault.Public() + " The log of the server says what to do.", Cause: fault}
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := r.storage.Ready(ctx); err != nil {
		return &rest.NotReady{Text: "The database does not answer.", Cause: err}
	}
	if r.feed != nil && r.feed.Broken() {
		return &rest.NotReady{Text: "The server cannot follow the changes of other servers; it answers from the database."}
	}
	return nil
}

// warnings returns what is not as it should be while the server is ready, in words for
// everybody.
func (r *readiness) warnings() []string {
	if r.feed == nil {
		return nil
	}
	if off, warn := r.feed.ClockOff(); warn {
		return []string{fmt.Sprintf("The clock of this machine is %s off the database's, by which the server goes.", off.Abs().Round(time.Second))}
	}
	return nil
}

func newReadiness(log *slog.Logger) *readiness {
	return &readiness{health: health.NewServer(), log: log}
}

// begin tells the health service of each service before the first check: as the server is
// whose database has just been opened.
func (r *readiness) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	status := healthpb.HealthCheckResponse_SERVING
	if r.told != nil {
		status = healthpb.HealthCheckResponse_NOT_SERVING
	}
	r.tellHealthLocked(status)
}

// check tells the health service and, where something has changed, the log. It is
// a periodic job. What it finds is told here, so it never fails.
func (r *readiness) check(ctx context.Context) (more bool, _ error) {
	fault := r.storage.Retry(ctx)
	err := r.ready(ctx)
	if ctx.Err() != nil {
		return false, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch was := r.notReady; {
	case r.stopping:
	case fault != nil:
		r.tellFaultLocked(fault)
	case err != nil:
		r.tellHealthLocked(healthpb.HealthCheckResponse_NOT_SERVING)
		if !was {
			r.log.Error("The server is not ready.", "error", err)
		}
	default:
		r.tellHealthLocked(healthpb.HealthCheckResponse_SERVING)
		if was {
			r.log.Info("The server is ready again.")
		}
	}
	return false, nil
}

// fault is called when a fault of the storage shows.
func (r *readiness) fault(fault *store.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stopping {
		r.tellFaultLocked(fault)
	}
}

// tellFaultLocked tells the health service of a fault, and the log where it has not
// been told of this kind.
func (r *readiness) tellFaultLocked(fault *store.Fault) {
	r.tellHealthLocked(healthpb.HealthCheckResponse_NOT_SERVING)
	if r.told == nil || r.told.Kind != fault.Kind {
		r.log.Error("The server is not ready: the storage of the database is at fault.",
			"file", fault.Name(), "error", fault.Public(), "cause", fault.Err, "remedy", fault.Remedy())
	}
	r.told = fault
}

// last reports whether the server was ready at the last look.
func (r *readiness) last() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.notReady && !r.stopping
}

// stop says from now on that the server is not ready.
func (r *readiness) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
	r.health.Shutdown()
}

// tellHealthLocked sets what the health service says of the server as a whole and
// of each service.
func (r *readiness) tellHealthLocked(status healthpb.HealthCheckResponse_ServingStatus) {
	r.notReady = status != healthpb.HealthCheckResponse_SERVING
	if !r.notReady {
		r.told = nil
	}
	r.health.SetServingStatus("", status)
	for _, service := range api.Services() {
		r.health.SetServingStatus(service.ServiceName, status)
	}
	for _, name := range r.further {
		r.health.SetServingStatus(name, status)
	}
}
