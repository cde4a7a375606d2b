package server

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/apikeys-dev/apikeys/server/api"
)

// healthInterval is how often the database is asked whether it answers.
const healthInterval = 5 * time.Second

// tellHealth keeps what the gRPC health service says, of the server as a whole
// and of each service, at what ready says, until ctx ends.
func tellHealth(ctx context.Context, h *health.Server, ready func(context.Context) error, log *slog.Logger) error {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for was := true; ; {
		err := ready(ctx)
		if ctx.Err() != nil {
			return nil
		}
		status := healthpb.HealthCheckResponse_SERVING
		if err != nil {
			status = healthpb.HealthCheckResponse_NOT_SERVING
		}
		h.SetServingStatus("", status)
		for _, service := range api.Services() {
			h.SetServingStatus(service.ServiceName, status)
		}
		if is := err == nil; is != was {
			was = is
			log.Warn("The database's readiness changed.", "ready", is, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
