package server_test

import (
	"database/sql"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestServerOnPostgres plays a key's life on PostgreSQL over REST, starts again,
// and looks for the database's password in the log.
func TestServerOnPostgres(t *testing.T) {
	database, dir := servertest.NewPostgres(t), t.TempDir()
	onDatabase := func(c *server.Config) { c.Database, c.DataDir = database, dir }
	s := servertest.Start(t, onDatabase)
	var made, rotated struct{ ID, Secret string }
	s.Call(t, http.MethodPost, "/developers/api_keys", `{"label": "A key", "scopes": ["api_keys.read"], "metadata": {"a": "b"}, "quota": {"limit": 10}}`).Into(t, &made)
	s.Call(t, http.MethodPost, "/developers/api_keys/"+made.ID+"/rotate", `{"overlap_seconds": 3600}`).Into(t, &rotated)
	s.Call(t, http.MethodPost, "/developers/webhooks", `{"label": "A webhook", "url": "https://example.com", "events": ["api_key.*"]}`)
	check := func(secret, want string) {
		t.Helper()
		var answer struct{ Code string }
		s.Call(t, http.MethodPost, "/developers/api_keys/verify", `{"key": "`+secret+`"}`).Into(t, &answer)
		if answer.Code != want {
			t.Errorf("verified as %s, want %s", answer.Code, want)
		}
	}
	check(made.Secret, "valid")
	check(rotated.Secret, "valid")

	// A second server with the same secrets is refused, in one line.
	second := server.Config{
		RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", DataDir: t.TempDir(), SecretsFile: filepath.Join(dir, "secrets"),
		RootToken: masked.New(servertest.RootToken), Database: database,
	}
	_, err := server.New(t.Context(), second)
	if err == nil || !strings.Contains(err.Error(), "is in use by another server") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a second server: %v", err)
	}
	s.Stop()

	// Without the secrets of the first one no server starts.
	second.SecretsFile = ""
	if _, err = server.New(t.Context(), second); err == nil || !strings.Contains(err.Error(), "secrets_file: ") {
		t.Errorf("a server without the secrets: %v", err)
	}

	first := s.Log.String()
	s = servertest.Start(t, onDatabase)
	check(rotated.Secret, "valid")
	s.Call(t, http.MethodPost, "/developers/api_keys/"+made.ID+"/revoke", `{}`)
	check(rotated.Secret, "revoked")
	var found struct {
		Metrics struct {
			TotalRequests int64 `json:"total_requests"`
		}
		Quota struct{ Remaining int64 }
	}
	s.Call(t, http.MethodGet, "/developers/api_keys/"+made.ID, "").Into(t, &found)
	if found.Metrics.TotalRequests < 2 || found.Quota.Remaining != 7 {
		t.Errorf("found %+v", found)
	}
	s.Stop()

	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	if password == "" {
		t.Fatal("the test's database has no password")
	}
	if strings.Contains(first+s.Log.String(), password) {
		t.Error("the log shows the password of the database")
	}
}

// TestPostgresTakenOver ends a server whose database another one has taken while
// the connection was lost.
func TestPostgresTakenOver(t *testing.T) {
	database := servertest.NewPostgres(t)
	c := server.Config{
		RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", DataDir: t.TempDir(), RootToken: masked.New(servertest.RootToken), Database: database,
	}
	s, err := server.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	// Whoever waits in the queue of the lock has it before one who only tries.
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	other, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const take = `SELECT pg_advisory_lock(l.classid::int, l.objid::int) FROM
		(SELECT classid, objid, pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS l`
	if _, err := other.ExecContext(t.Context(), take); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "is in use by another server") {
		t.Errorf("ended with %v", err)
	}
}
