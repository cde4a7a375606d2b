package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/servertest/testenv"
	"github.com/apikeys-dev/apikeys/server/store"
)

func TestPostgres(t *testing.T) {
	t.Parallel()
	suite(t, openPostgres)
}

// TestPostgresPooled runs the suite behind PgBouncer, where APIKEYS_TEST_PGBOUNCER
// names one, else as behind it.
func TestPostgresPooled(t *testing.T) {
	t.Parallel()
	suite(t, openPooled)
}

// openPostgres opens a new, initialized database.
func openPostgres(tb testing.TB, c store.Config) *store.Store {
	tb.Helper()
	c.Postgres = masked.New(postgresServer(tb).lend(tb, nil))
	return openAndInitialize(tb, c)
}

func openPooled(tb testing.TB, c store.Config) *store.Store {
	tb.Helper()
	direct := postgresServer(tb).lend(tb, nil)
	c.Postgres, c.PostgresDirect = masked.New(pooled(tb, direct)), masked.New(direct)
	return openAndInitialize(tb, c)
}

// pooled returns the URL of a database through the PgBouncer of the tests.
func pooled(tb testing.TB, database string) string {
	tb.Helper()
	u, err := url.Parse(database)
	if err != nil {
		tb.Fatal(err)
	}
	query := u.Query()
	if pooler := os.Getenv("APIKEYS_TEST_PGBOUNCER"); pooler != "" {
		u.Host = pooler
		query.Set("sslmode", "disable")
		query.Del("sslrootcert")
	}
	query.Set("pgbouncer", "true")
	u.RawQuery = query.Encode()
	return u.String()
}

// server is the PostgreSQL server of the tests, with a database that new ones are
// copies of: migrating each would take most of the time.
type server struct {
	url      *url.URL
	admin    *sql.DB
	template string
	copies   atomic.Int64

	mu   sync.Mutex
	idle []string // databases that can be lent
}

// tested is the server of all tests of this process, once one of them asks for it.
var tested struct {
	opening sync.Mutex // Tests that run side by side may be the first.
	*server
	err error
}

// postgresServer returns the server that APIKEYS_TEST_POSTGRES names, by the URL of
// a superuser. A test is skipped where there is none, but fails in CI.
func postgresServer(tb testing.TB) *server {
	tb.Helper()
	text := testenv.Postgres(tb)
	if testing.Short() {
		tb.Skip("not in short mode")
	}
	tested.opening.Lock()
	defer tested.opening.Unlock()
	if tested.server == nil && tested.err == nil {
		tested.server, tested.err = newServer(text)
	}
	if tested.err != nil {
		tb.Fatal(tested.err)
	}
	return tested.server
}

func newServer(text string) (*server, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	s := &server{url: u, template: fmt.Sprintf("test_%d", os.Getpid())}
	if s.admin, err = sql.Open("pgx", text); err != nil {
		return nil, err
	}
	if _, err := s.admin.Exec("CREATE DATABASE " + s.template); err != nil {
		return nil, err
	}
	migrated, err := store.Open(context.Background(), store.Config{Postgres: masked.New(s.of(s.template, nil))})
	if err != nil {
		return nil, err
	}
	return s, migrated.Close()
}

// of returns the URL of a database of the server.
func (s *server) of(database string, options url.Values) string {
	u := *s.url
	u.Path = "/" + database
	query := u.Query()
	for name := range options {
		query.Set(name, options.Get(name))
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// copy makes a migrated database for one test and returns its URL.
func (s *server) copy(tb testing.TB, options url.Values) string {
	tb.Helper()
	return s.create(tb, "TEMPLATE "+s.template, options)
}

// create makes a database for one test and returns its URL.
func (s *server) create(tb testing.TB, how string, options url.Values) string {
	tb.Helper()
	name := s.newDatabase(tb, how)
	tb.Cleanup(func() { s.exec(tb, "DROP DATABASE "+name+" WITH (FORCE)") })
	return s.of(name, options)
}

func (s *server) newDatabase(tb testing.TB, how string) string {
	tb.Helper()
	name := fmt.Sprintf("%s_%d", s.template, s.copies.Add(1))
	s.exec(tb, "CREATE DATABASE "+name+" "+how)
	return name
}

// lend returns the URL of a migrated database for one test that leaves the schema
// as it is, which is emptied and lent again: making one takes longer than most
// tests.
func (s *server) lend(tb testing.TB, options url.Values) string {
	tb.Helper()
	s.mu.Lock()
	var name string
	if n := len(s.idle); n > 0 {
		name, s.idle = s.idle[n-1], s.idle[:n-1]
	}
	s.mu.Unlock()
	if name == "" {
		name = s.newDatabase(tb, "TEMPLATE "+s.template)
	}
	tb.Cleanup(func() {
		execIn(tb, s.of(name, nil), "DO $$ BEGIN EXECUTE (SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') || ' RESTART IDENTITY' "+
			"FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_revisions'); END $$")
		s.mu.Lock()
		defer s.mu.Unlock()
		s.idle = append(s.idle, name)
	})
	return s.of(name, options)
}

func (s *server) exec(tb testing.TB, statement string) {
	tb.Helper()
	if _, err := s.admin.ExecContext(context.WithoutCancel(tb.Context()), statement); err != nil {
		tb.Fatal(err)
	}
}

// close drops the template.
func (s *server) close() {
	if s == nil {
		return
	}
	for _, name := range append(s.idle, s.template) {
		_, _ = s.admin.Exec("DROP DATABASE " + name + " WITH (FORCE)")
	}
	_ = s.admin.Close()
}

// execIn executes statements in the database of a URL.
func execIn(tb testing.TB, database, statements string) {
	tb.Helper()
	ctx := context.WithoutCancel(tb.Context())
	conn, err := pgx.Connect(ctx, strings.ReplaceAll(database, "pgbouncer=true", ""))
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statements); err != nil {
		tb.Fatal(err)
	}
}

// tablesIn returns how many tables there are in the schema of a database.
func tablesIn(tb testing.TB, database string) (n int) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), database)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(tb.Context()))
	if err := conn.QueryRow(tb.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()").Scan(&n); err != nil {
		tb.Fatal(err)
	}
	return n
}
