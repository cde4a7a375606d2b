package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/apikeys-dev/apikeys/server/store"
)

// fakeStorage is a database whose faults are set by the test.
type fakeStorage struct {
	err   error
	fault *store.Fault
	ends  bool // the fault is over, which Retry finds out
}

func (f *fakeStorage) Ready(context.Context) error { return f.err }
func (f *fakeStorage) Fault() *store.Fault         { return f.fault }
func (f *fakeStorage) Retry(context.Context) *store.Fault {
	if f.ends {
		f.fault = nil
	}
	return f.fault
}

// The health service and /readyz say the same, and the log is told of a change once.
func TestReadiness(t *testing.T) {
	t.Parallel()
	damaged := &store.Fault{Kind: store.FaultDamaged, File: "/var/lib/apikeys.db", Err: errors.New("malformed")}
	full := &store.Fault{Kind: store.FaultFull, File: "/var/lib/apikeys.db", Err: errors.New("full")}
	steps := []struct {
		name    string
		storage fakeStorage
		ready   string // what /readyz says, "" where it is ready
		log     string // the one new line, "" for none
	}{
		{"at first", fakeStorage{}, "", ""},
		{"away", fakeStorage{err: errors.New("away")}, "The database does not answer.", "The server is not ready."},
		{"still away", fakeStorage{err: errors.New("away")}, "The database does not answer.", ""},
		{"back", fakeStorage{}, "", "ready again"},
		{"full", fakeStorage{fault: full}, "The database file apikeys.db has no room to grow", "free some space"},
		{"still full", fakeStorage{fault: full}, "The database file apikeys.db has no room to grow", ""},
		{"over", fakeStorage{fault: full, ends: true}, "", "ready again"},
		{"damaged", fakeStorage{fault: damaged}, "The database file apikeys.db is damaged.", "restore the database"},
		{"still damaged", fakeStorage{fault: damaged, err: damaged}, "The database file apikeys.db is damaged.", ""},
	}
	var log bytes.Buffer
	r := &readiness{health: health.NewServer(), log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, step := range steps {
		storage := step.storage
		r.storage = &storage
		log.Reset()
		if more, err := r.check(t.Context()); more || err != nil {
			t.Errorf("%s: %v, %v", step.name, more, err)
		}
		checkReadiness(t, r, step.name, step.ready)
		if lines := strings.Count(log.String(), "\n"); lines > 1 || (lines == 1) != (step.log != "") || !strings.Contains(log.String(), step.log) {
			t.Errorf("%s: the log says %s", step.name, log.String())
		}
	}

	// A fault is told when it shows, not at the next check.
	r.storage = &fakeStorage{}
	if _, err := r.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	r.storage = &fakeStorage{fault: full}
	r.fault(full)
	checkReadiness(t, r, "a fault that shows", "The database file apikeys.db has no room")
	r.fault(full)
	if strings.Count(log.String(), "\n") != 1 {
		t.Errorf("a fault that shows twice: %s", log.String())
	}

	r.storage = &fakeStorage{}
	r.stop()
	if _, err := r.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkReadiness(t, r, "stopping", "The server is stopping.")
}

func checkReadiness(t *testing.T, r *readiness, name, want string) {
	t.Helper()
	err := r.ready(t.Context())
	if (err != nil) != (want != "") || err != nil && !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%s: /readyz says %v", name, err)
	}
	status := healthpb.HealthCheckResponse_SERVING
	if want != "" {
		status = healthpb.HealthCheckResponse_NOT_SERVING
	}
	for _, service := range []string{"", "apikeys.v1.ApiKeysService", "apikeys.v1.EventsService", "apikeys.v1.WebhooksService"} {
		got, err := r.health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || got.GetStatus() != status {
			t.Errorf("%s: %q is %v, %v", name, service, got.GetStatus(), err)
		}
	}
}
