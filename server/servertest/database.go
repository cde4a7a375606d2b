package servertest

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // pgx
	_ "github.com/mattn/go-sqlite3"    // sqlite3

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest/testenv"
)

// databases are the PostgreSQL databases of the servers of this process, by their
// data directories, so that a server that is started again has its database.
var databases sync.Map

var databasesMade atomic.Int64

// onPostgres returns a change that gives a server without a database of its own
// one of PostgreSQL, where APIKEYS_TEST_DATABASE is postgres.
func onPostgres(t testing.TB) func(*server.Config) {
	return func(c *server.Config) {
		if os.Getenv("APIKEYS_TEST_DATABASE") != "postgres" || c.Database != "" {
			return
		}
		if known, ok := databases.Load(c.DataDir); ok {
			c.Database = known.(string)
			return
		}
		c.Database = NewPostgres(t)
		databases.Store(c.DataDir, c.Database)
	}
}

// NewPostgres makes an empty database until the test ends and returns its URL. It
// is made in the server that APIKEYS_TEST_POSTGRES names by the URL of a superuser;
// without one the test is skipped, but fails in CI.
func NewPostgres(t testing.TB) string {
	t.Helper()
	admin := testenv.Postgres(t)
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatal("APIKEYS_TEST_POSTGRES is no URL")
	}
	name := fmt.Sprintf("servertest_%d_%d", os.Getpid(), databasesMade.Add(1))
	ExecPostgres(t, admin, "CREATE DATABASE "+name)
	t.Cleanup(func() { ExecPostgres(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

// ExecPostgres executes a statement in the database of a URL.
func ExecPostgres(t testing.TB, database, statement string) {
	t.Helper()
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(context.WithoutCancel(t.Context()), statement); err != nil {
		t.Fatal(err)
	}
}

// OnPostgres reports whether the server's database is one of PostgreSQL.
func (s *Server) OnPostgres() bool { return strings.HasPrefix(s.database, "postgres") }

// OpenDatabase opens the database of the server beside it, to be read, until the
// test ends.
func (s *Server) OpenDatabase(t testing.TB) *sql.DB {
	t.Helper()
	driver, source := "sqlite3", "file:"+filepath.Join(s.Dir, "apikeys.db")+"?mode=ro"
	if s.OnPostgres() {
		driver, source = "pgx", s.database
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
