package server

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// TestTellHealth loses the database and gets it back.
func TestTellHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		ready := func(context.Context) error {
			if away.Load() {
				return errors.New("away")
			}
			return nil
		}
		h := health.NewServer()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tellHealth(ctx, h, ready, slog.New(slog.DiscardHandler)) }()
		for _, want := range []healthpb.HealthCheckResponse_ServingStatus{
			healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING,
		} {
			away.Store(want != healthpb.HealthCheckResponse_SERVING)
			time.Sleep(healthInterval + time.Second)
			for _, service := range []string{"", "apikeys.v1.ApiKeysService", "apikeys.v1.EventsService", "apikeys.v1.WebhooksService"} {
				got, err := h.Check(ctx, &healthpb.HealthCheckRequest{Service: service})
				if err != nil || got.GetStatus() != want {
					t.Errorf("%q is %v, %v; want %v", service, got.GetStatus(), err, want)
				}
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
