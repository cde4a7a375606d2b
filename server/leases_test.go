package server_test

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// replica returns the change that makes a server one of those that share a database and
// a secrets file.
func replica(t testing.TB, database, secrets string) func(*server.Config) {
	return func(c *server.Config) {
		c.Database, c.SecretsFile, c.DataDir = database, secrets, t.TempDir()
	}
}

// TestReplicas makes a key over one server and uses it over another.
func TestReplicas(t *testing.T) {
	database, secrets := servertest.NewPostgres(t), filepath.Join(t.TempDir(), "secrets")
	one, two := servertest.Start(t, replica(t, database, secrets)), servertest.Start(t, replica(t, database, secrets))
	var made struct{ ID, Secret string }
	one.Call(t, http.MethodPost, "/developers/api_keys", `{"label": "A key", "scopes": ["api_keys.read"]}`).Into(t, &made)
	var answer struct{ Code string }
	two.Call(t, http.MethodPost, "/developers/api_keys/verify", `{"key": "`+made.Secret+`"}`).Into(t, &answer)
	if answer.Code != "valid" {
		t.Errorf("verified as %s", answer.Code)
	}
	two.Call(t, http.MethodPost, "/developers/api_keys/"+made.ID+"/revoke", `{}`)
	var found struct{ State string }
	one.Call(t, http.MethodGet, "/developers/api_keys/"+made.ID, "").Into(t, &found)
	if found.State != "revoked" {
		t.Errorf("state %s after the revoke of another server", found.State)
	}
}

// holderOf returns the one server that has the lease, by the log of each.
func holderOf(t *testing.T, lease string, servers ...*servertest.Server) (holder *servertest.Server) {
	t.Helper()
	eventually(t, func() bool {
		holder = nil
		for _, s := range servers {
			taken, ended := 0, 0
			for _, line := range s.Log.Lines("lease=" + lease) {
				switch {
				case strings.Contains(line, "has taken a lease"):
					taken++
				case strings.Contains(line, "has lost a lease"), strings.Contains(line, "has given up a lease"):
					ended++
				}
			}
			if taken > ended {
				if holder != nil {
					t.Errorf("two servers hold the lease %s", lease)
				}
				holder = s
			}
		}
		return holder != nil
	}, func() string { return "nobody holds the lease " + lease })
	return holder
}

// TestReplicasShareTheWork has webhooks hear of the changes of two servers, once each,
// while the work passes from the one to the other.
func TestReplicasShareTheWork(t *testing.T) {
	database, secrets := servertest.NewPostgres(t), filepath.Join(t.TempDir(), "secrets")
	r := newReceiver(t)
	servers := []*servertest.Server{servertest.Start(t, replica(t, database, secrets)), servertest.Start(t, replica(t, database, secrets))}
	made := 0
	create := func(over ...*servertest.Server) {
		t.Helper()
		for range 5 {
			for _, s := range over {
				s.Call(t, http.MethodPost, keysPath, `{"label": "A key"}`).Into(t, new(struct{}))
				made++
			}
		}
	}
	arrived := func() {
		t.Helper()
		ids := func() map[string]int {
			ids := make(map[string]int)
			for _, got := range r.at("/a") {
				ids[got.header.Get("Webhook-Id")]++
			}
			return ids
		}
		eventually(t, func() bool { return len(ids()) >= made }, func() string { return fmt.Sprintf("%d of %d", len(ids()), made) })
		for id, n := range ids() {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
		if n := len(ids()); n != made {
			t.Errorf("%d deliveries of %d changes", n, made)
		}
	}
	holder := holderOf(t, "fan_out", servers...)
	other := servers[0]
	if holder == other {
		other = servers[1]
	}
	holderOf(t, "jobs", servers...)
	// The first subscription of its organization, made over the server that does not fan
	// out.
	other.Call(t, http.MethodPost, hooksPath, fmt.Sprintf(`{"label": "x", "url": %q, "events": ["api_key.created"]}`, r.url+"/a")).Into(t, new(struct{}))
	create(servers...)
	arrived()
	holder.Stop()
	create(other)
	arrived()
	if got := holderOf(t, "jobs", other); got != other {
		t.Error("the jobs have nobody")
	}
	for _, s := range servers {
		if lines := s.Log.Lines("level=ERROR"); len(lines) > 0 {
			t.Errorf("logged %s", lines)
		}
	}
}

// TestReplicasHoldChanges has the fan-out of an organization stand still in another
// server: its changes wait, and are refused after a time.
func TestReplicasHoldChanges(t *testing.T) {
	database := servertest.NewPostgres(t)
	s := servertest.Start(t, replica(t, database, filepath.Join(t.TempDir(), "secrets")), func(c *server.Config) { c.WebhooksMaxBehind = time.Second })
	holderOf(t, "fan_out", s)
	// Another server has taken the lease, and has died since.
	servertest.ExecPostgres(t, database, "UPDATE leases SET token = token + 1, until = clock_timestamp() + interval '1 hour'")
	eventually(t, func() bool { return len(s.Log.Lines("has lost a lease")) == 2 }, s.Log.String)
	s.Call(t, http.MethodPost, hooksPath, `{"label": "x", "url": "https://example.com", "events": ["*"]}`).Into(t, new(struct{}))
	var refused servertest.Answer
	eventually(t, func() bool {
		refused = s.Call(t, http.MethodPost, keysPath, `{"label": "A key"}`)
		return refused.Status != http.StatusOK
	}, func() string { return "no change was held" })
	if refused.Status != http.StatusServiceUnavailable || refused.Envelope.Log["reason"] != "FAN_OUT_BEHIND" || refused.Header.Get("Retry-After") == "" {
		t.Errorf("refused with %s", refused)
	}
	if other := s.Call(t, http.MethodPost, keysPath, `{"label": "A key"}`, "X-Organization-Id: org_other"); other.Status != http.StatusOK {
		t.Errorf("another organization: %s", other)
	}
	servertest.ExecPostgres(t, database, "UPDATE leases SET until = clock_timestamp()")
	eventually(t, func() bool {
		return s.Call(t, http.MethodPost, keysPath, `{"label": "A key"}`).Status == http.StatusOK
	}, func() string { return "changes are still held" })
}

// TestReplicasStartTogether starts many servers at once on an empty database: with one
// secrets file all serve, and with a file each, one does.
func TestReplicasStartTogether(t *testing.T) {
	const replicas = 10
	for _, c := range []struct {
		name    string
		secrets func(*testing.T) func() string // for each server
		serve   int
	}{
		{"one secrets file", func(t *testing.T) func() string {
			path := filepath.Join(t.TempDir(), "secrets")
			return func() string { return path }
		}, replicas},
		{"a secrets file each", func(t *testing.T) func() string {
			return func() string { return filepath.Join(t.TempDir(), "secrets") }
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			database, secrets := servertest.NewPostgres(t), c.secrets(t)
			var servers sync.Map
			var refused []error
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range replicas {
				config := server.Config{
					RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", DataDir: t.TempDir(), SecretsFile: secrets(),
					RootToken: masked.New(servertest.RootToken), Database: database, Logger: slog.New(slog.DiscardHandler),
				}
				wg.Go(func() {
					s, err := server.New(t.Context(), config)
					if err == nil {
						servers.Store(s, nil)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					refused = append(refused, err)
				})
			}
			wg.Wait()
			serve := 0
			servers.Range(func(s, _ any) bool {
				serve++
				if err := s.(*server.Server).Close(); err != nil {
					t.Error(err)
				}
				return true
			})
			if serve != c.serve {
				t.Errorf("%d servers started, want %d: %v", serve, c.serve, errors.Join(refused...))
			}
			for _, err := range refused {
				if !strings.Contains(err.Error(), "secrets_file: ") || !strings.Contains(err.Error(), "copy it from another server") || strings.Contains(err.Error(), "\n") {
					t.Errorf("refused with %v", err)
				}
			}
			if got := checkValues(t, database); got != 1 {
				t.Errorf("%d check values of peppers and %d servers", got, serve)
			}
		})
	}
}

// checkValues returns how many peppers a database has a check value of.
func checkValues(t *testing.T, database string) (n int) {
	t.Helper()
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM settings WHERE id LIKE 'check/pepper/%'").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
