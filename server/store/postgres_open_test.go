package store_test

import (
	"context"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// opened opens a database and returns its error, and closes it.
func opened(tb testing.TB, c store.Config) error {
	tb.Helper()
	if c.Logger == nil {
		c.Logger = quiet
	}
	s, err := store.Open(tb.Context(), c)
	if err != nil {
		return err
	}
	return s.Close()
}

// wantRefused says that a database is refused in one line that holds all words and
// no password.
func wantRefused(tb testing.TB, err error, words ...string) {
	tb.Helper()
	if err == nil {
		tb.Errorf("opened, want an error with %q", words)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			tb.Errorf("got %s, want %q in it", err, word)
		}
	}
	if strings.ContainsAny(err.Error(), "\n") {
		tb.Errorf("of several lines: %s", err)
	}
	for _, secret := range []string{"hunter2", "%68unter2"} {
		if strings.Contains(err.Error(), secret) {
			tb.Errorf("shows a password: %s", err)
		}
	}
}

// TestURLsOfPostgres says what a URL must be, and that no refusal repeats its
// password, however malformed it is.
func TestURLsOfPostgres(t *testing.T) {
	t.Parallel()
	for text, word := range map[string]string{
		"postgres://u:hunter2@h:port/d":                           "must be postgres://",
		"postgres://u:hunter2@h:99999/d":                          "",
		"postgres://u:hunter2@[::1/d":                             "must be postgres://",
		"postgres://u:%zzhunter2@h/d":                             "must be postgres://",
		"postgres://u:hunter2 x@h/d":                              "must be postgres://",
		"mysql://u:hunter2@h/d":                                   "must be postgres://",
		"postgres://u:hunter2@h/d?sslmode=hunter2":                "",
		"postgres://u:hunter2@h/d?sslmode=sometimes":              "",
		"postgres://h/d?password=hunter2&sslmode=no":              "",
		"postgres://u:hunter2@h/d?sslrootcert=/none/f":            "",
		"postgres://u:hunter2@h/d?pgbouncer=maybe":                "pgbouncer=true",
		"postgres://u:hunter2@h/d?connect_timeout=never":          "",
		"postgres://u:hunter2@h/d?statement_cache_capacity=1":     "pgbouncer=true",
		"postgres://u:hunter2@h/d?default_query_exec_mode=simple": "pgbouncer=true",
	} {
		_, err := store.CheckPostgresURL(text)
		wantRefused(t, err, word)
	}
	for text, want := range map[string]bool{
		"postgres://u:hunter2@h/d":                                        false,
		"postgresql://u@h:5433,h2:5434/d?target_session_attrs=read-write": false,
		"postgres:///d?host=/run/postgresql":                              false,
		"postgres://u@h/d?sslmode=require&pgbouncer=true":                 true,
	} {
		if pooled, err := store.CheckPostgresURL(text); err != nil || pooled != want {
			t.Errorf("%s: %t, %v", text, pooled, err)
		}
	}
}

// TestPostgresRefused opens databases that cannot be used: each is one line, and
// nothing is written.
func TestPostgresRefused(t *testing.T) {
	s := postgresServer(t)
	role := s.template + "_role"
	s.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'hunter2'")
	t.Cleanup(func() { s.exec(t, "DROP ROLE "+role) })
	as := func(database, password string) string {
		u, err := url.Parse(database)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(role, password)
		return u.String()
	}
	migrated, empty := s.copy(t, nil), s.create(t, "", nil)
	others := s.create(t, "", nil)
	execIn(t, others, "CREATE TABLE users (id int)")
	schemaless := s.create(t, "", nil)
	execIn(t, schemaless, "DROP SCHEMA public")
	latin := s.create(t, "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'", nil)
	later, earlier := s.copy(t, nil), s.copy(t, nil)
	const oneLeft = "DELETE FROM schema_revisions WHERE version > (SELECT min(version) FROM schema_revisions);"
	execIn(t, later, oneLeft+"UPDATE schema_revisions SET version = '29990101000000', revision = replace(revision, version, '29990101000000')")
	execIn(t, earlier, oneLeft+"UPDATE schema_revisions SET version = '20261121081408', revision = replace(revision, version, '20261121081408')")
	readOnly := s.copy(t, url.Values{"default_transaction_read_only": {"on"}})
	reading, half := s.copy(t, nil), s.copy(t, nil)
	execIn(t, reading, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+role)
	execIn(t, half, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "+role+"; REVOKE INSERT ON settings FROM "+role)
	plain := noTLS(t)

	for _, c := range []struct {
		name, database string
		existing       bool
		words          []string
	}{
		{"no such database", s.of("none_of_that_name", nil), false, []string{"does not exist", "createdb"}},
		{"a wrong password", as(migrated, "hunter22"), false, []string{"does not let the role " + role + " in"}},
		{"no right to create tables", as(empty, "hunter2"), false, []string{"the rights it needs", role}},
		{"no right to read", as(migrated, "hunter2"), false, []string{"the rights it needs", role}},
		{"a right to read alone", as(reading, "hunter2"), false, []string{"the rights it needs", "lacks DELETE on access_token_uses", "UPDATE on webhooks"}},
		{"no right to insert", as(half, "hunter2"), false, []string{"the rights it needs", "(lacks INSERT on settings)"}},
		{"no TLS", "postgres://u:hunter2@" + plain + "/d?sslmode=require", false, []string{"does not offer TLS", "ssl = on"}},
		{"another program's", others, false, []string{"tables of another program in schema public"}},
		{"no schema", schemaless, false, []string{"none of the schemas"}},
		{"another encoding", latin, false, []string{"encoding LATIN1"}},
		{"a later version's", later, false, []string{"made by a later version of apikeys (schema 29990101000000)"}},
		{"an earlier version's", earlier, false, []string{"from before the first release (schema 20261121081408)"}},
		{"a standby", readOnly, false, []string{"is read-only", "primary"}},
		{"an empty one that must exist", empty, true, []string{"earlier version"}},
		{"an unknown parameter", s.of("postgres", url.Values{"no_such": {"1"}}), false, []string{"no_such"}},
	} {
		wantRefused(t, opened(t, store.Config{Postgres: masked.New(c.database), Existing: c.existing, Wait: time.Hour}), append(c.words, "PostgreSQL database")...)
	}
	for _, database := range []string{empty, others} {
		if n := tablesIn(t, database); n > 1 || database == empty && n > 0 {
			t.Errorf("%d tables", n)
		}
	}
}

// TestPostgresUnreachable waits for a database as long as it is told to.
func TestPostgresUnreachable(t *testing.T) {
	t.Parallel()
	const nobody = "postgres://u:hunter2@127.0.0.1:1/d"
	wantRefused(t, opened(t, store.Config{Postgres: masked.New(nobody)}), "PostgreSQL database d at 127.0.0.1:1 cannot be reached", "refused")
	ctx, cancel := context.WithCancel(t.Context())
	log := &lineBuffer{line: make(chan string, 10)}
	done := make(chan error, 1)
	go func() {
		_, err := store.Open(ctx, store.Config{Postgres: masked.New(nobody), Wait: time.Hour, Logger: slog.New(slog.NewTextHandler(log, nil))})
		done <- err
	}()
	line := <-log.line
	for _, word := range []string{"does not answer", "127.0.0.1:1", "wait=1h0m0s"} {
		if !strings.Contains(line, word) || strings.Contains(line, "hunter2") {
			t.Errorf("logged %s, want %q in it", line, word)
		}
	}
	cancel()
	wantRefused(t, <-done, "d at 127.0.0.1:1")
}

// TestPostgresReadOnly tells once of a database that becomes read-only, as a
// primary does that is a standby from then on, until it can be written to again.
func TestPostgresReadOnly(t *testing.T) {
	told := 0
	database := postgresServer(t).copy(t, nil)
	s := openAndInitialize(t, store.Config{Postgres: masked.New(database), OnFault: func(*store.Fault) { told++ }, Logger: quiet})
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	alter := "ALTER DATABASE " + strings.TrimPrefix(u.Path, "/") + " SET default_transaction_read_only = "
	postgresServer(t).exec(t, alter+"on")
	execIn(t, database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	for range 2 {
		_, err := s.CreateKey(t.Context(), operator, benchmarkKey)
		wantUnavailable(t, err)
	}
	f := s.Retry(t.Context())
	if f == nil || f.Kind != store.FaultReadOnly || told != 1 {
		t.Fatalf("the fault %v, told %d times", f, told)
	}
	for _, words := range []string{f.Error(), f.Public()} {
		if !strings.Contains(words, "read-only") {
			t.Errorf("says %s", words)
		}
	}
	if strings.Contains(f.Public(), "127.0.0.1") {
		t.Errorf("says %s to everybody", f.Public())
	}
	// Its connections are to a standby; those that are made anew are not.
	postgresServer(t).exec(t, alter+"off")
	if f := s.Retry(t.Context()); f != nil {
		t.Errorf("it stands: %v", f)
	}
	if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
		t.Error(err)
	}
}

// TestPostgresRestarts loses every connection, as a restart of PostgreSQL does:
// reads and changes go on over new ones.
func TestPostgresRestarts(t *testing.T) {
	database := postgresServer(t).copy(t, nil)
	s := openAndInitialize(t, store.Config{Postgres: masked.New(database), Logger: quiet})
	k, err := s.CreateKey(t.Context(), operator, benchmarkKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"a change": func() error { _, err := s.CreateKey(t.Context(), operator, benchmarkKey); return err },
		"a read":   func() error { _, err := s.Key(t.Context(), k.OrganizationID, k.ID); return err },
		"a list":   func() error { _, _, err := s.Keys(t.Context(), store.KeyFilter{}, "", 10); return err },
		"a load":   func() error { _, _, err := s.KeyBySecret(t.Context(), k.Hashes()); return err },
		"the log":  func() error { _, err := s.Events(t.Context(), apikey.EventFilter{}, 0, 10); return err },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		execIn(t, database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		if err := call(); err != nil {
			t.Errorf("%s after a restart: %v", name, err)
		}
	}
}

// TestPostgresPasswordFile takes the password from a file at each connection.
func TestPostgresPasswordFile(t *testing.T) {
	s := postgresServer(t)
	database := s.copy(t, nil)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	file := filepath.Join(t.TempDir(), "password")
	c := store.Config{Postgres: masked.New(u.String()), PostgresPasswordFile: file}
	wantRefused(t, opened(t, c), "database_password_file", file)
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := opened(t, c); err != nil {
		t.Error(err)
	}
}

// TestPostgresOpenTogether opens one new database many times at once: one migrates,
// the others find it done.
func TestPostgresOpenTogether(t *testing.T) {
	database := masked.New(postgresServer(t).create(t, "", nil))
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := opened(t, store.Config{Postgres: database}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestPostgresMigrationIsWhole fails after the last statement of the migrations:
// nothing of them is left, and the next start makes all of it.
func TestPostgresMigrationIsWhole(t *testing.T) {
	database := postgresServer(t).create(t, "", nil)
	if err := store.MigratePostgresAndDie(t.Context(), database); err == nil || err.Error() != "died" {
		t.Fatal(err)
	}
	if n := tablesIn(t, database); n != 0 {
		t.Errorf("a migration that died left %d tables", n)
	}
	s := openAndInitialize(t, store.Config{Postgres: masked.New(database)})
	if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
		t.Error(err)
	}
}

// TestPostgresSetUp sets one database up from many stores: one at a time, and none of
// those through PgBouncer, which knows no session.
func TestPostgresSetUp(t *testing.T) {
	server := postgresServer(t)
	database := masked.New(server.copy(t, nil))
	var wg sync.WaitGroup
	var busy, times atomic.Int64
	for range 5 {
		s, err := store.Open(t.Context(), store.Config{Postgres: database, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		wg.Go(func() {
			err := s.SetUp(t.Context(), func(ctx context.Context) error {
				defer busy.Add(-1)
				times.Add(1)
				if n := busy.Add(1); n != 1 {
					t.Errorf("%d set the database up at a time", n)
				}
				return s.Initialize(ctx, map[string]string{"database_id": "1"}, nil)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if times.Load() != 5 {
		t.Errorf("set up %d times", times.Load())
	}

	c := store.Config{Postgres: masked.New(server.copy(t, url.Values{"pgbouncer": {"true"}})), Logger: quiet}
	nothing := func(context.Context) error { return nil }
	for direct, words := range map[string][]string{
		"": {"database_direct"},
		strings.ReplaceAll(c.Postgres.Reveal(), "pgbouncer=true", ""): nil,
	} {
		if c.PostgresDirect = masked.New(direct); direct == "" {
			c.PostgresDirect = masked.Text{}
		}
		s, err := store.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.SetUp(t.Context(), nothing); words != nil {
			wantRefused(t, err, words...)
		} else if err != nil {
			t.Error(err)
		}
	}
}

// lineBuffer is a log whose lines can be waited for.
type lineBuffer struct{ line chan string }

func (b *lineBuffer) Write(p []byte) (int, error) {
	b.line <- string(p)
	return len(p), nil
}
