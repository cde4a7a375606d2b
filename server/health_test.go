package server

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest/described"
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

// damage overwrites the first pages of a table and its indexes in a database that
// nobody has open.
func damage(t *testing.T, path, table string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// What stands in the write-ahead log is not read from the pages.
	var busy, frames, moved int
	if err := db.QueryRowContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved); err != nil || busy != 0 {
		t.Fatalf("the write-ahead log is not emptied: %d, %v", busy, err)
	}
	rows, err := db.QueryContext(t.Context(), "SELECT rootpage FROM sqlite_master WHERE rootpage > 0 AND tbl_name = ?", table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pages := 0
	for ; rows.Next(); pages++ {
		var page int64
		if err := rows.Scan(&page); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xA5}, 4096), (page-1)*4096); err != nil {
			t.Fatal(err)
		}
	}
	if rows.Err() != nil || pages == 0 {
		t.Fatalf("%d pages of %s are damaged: %v", pages, table, rows.Err())
	}
}

// A damaged database is seen over both listeners, and the log is told of it once,
// however many calls meet it.
func TestDamageOverBothListeners(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, stop := runServer(t, Config{DataDir: dir}); stop() != nil { // which makes the database
		t.Fatal(stop())
	}
	damage(t, filepath.Join(dir, "apikeys.db"), "api_keys")
	var log bytes.Buffer
	s, stop := runServer(t, Config{DataDir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})

	client := &http.Client{Transport: described.Transport(t, "http://"+s.RESTAddr().String(), http.DefaultTransport)}
	get := func(path string) (status int, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.RESTAddr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+stopToken)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	conn, err := grpc.NewClient(s.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	keys := apikeysv1.NewApiKeysServiceClient(conn)
	operator := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+stopToken)
	for range 3 {
		if status, body := get("/developers/api_keys"); status != http.StatusInternalServerError || strings.Contains(body, "apikeys.db") {
			t.Errorf("a list over REST: %d %s", status, body)
		}
		if _, err := keys.ListApiKeys(operator, &apikeysv1.ListApiKeysRequest{}); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "apikeys.db") {
			t.Errorf("a list over gRPC: %v", err)
		}
		if _, err := keys.CreateApiKey(operator, &apikeysv1.CreateApiKeyRequest{Label: "k"}); status.Code(err) != codes.Internal {
			t.Errorf("a create over gRPC: %v", err)
		}
	}
	if status, body := get("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "The database file apikeys.db is damaged.") || strings.Contains(body, dir) {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if status, body := get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d %s", status, body)
	}
	for _, service := range []string{"", "apikeys.v1.ApiKeysService", "apikeys.v1.EventsService", "apikeys.v1.WebhooksService"} {
		got, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || got.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("the health of %q: %v, %v", service, got.GetStatus(), err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	_ = conn.Close()
	_ = stop() // It may not store its counters.
	told := 0
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "storage of the database is at fault") && strings.Contains(line, "file="+filepath.Join(dir, "apikeys.db")) && strings.Contains(line, "backup") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the log is told %d times:\n%s", told, log.String())
	}
}
