package store_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/store/migrations"
)

// endSessions ends those that hold an advisory lock.
const endSessions = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"

// held runs Hold of a server's store on a database, whose log it returns.
func held(t *testing.T, database string) (log *lineBuffer, ended chan error) {
	t.Helper()
	log, ended = &lineBuffer{line: make(chan string, 100)}, make(chan error, 1)
	s, err := store.Open(t.Context(), store.Config{Postgres: masked.New(database), Serving: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- s.Hold(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return log, ended
}

// TestPresenceIsTakenAgain goes on after the session of a server's lock was lost.
func TestPresenceIsTakenAgain(t *testing.T) {
	database := postgresServer(t).copy(t, nil)
	log, _ := held(t, database)
	execIn(t, database, endSessions)
	for _, want := range []string{"is lost", "stands again"} {
		if line := <-log.line; !strings.Contains(line, want) {
			t.Errorf("logged %s, want %q in it", line, want)
		}
	}
	c := store.Config{Postgres: masked.New(database), Logger: quiet}
	_, err := store.Move(t.Context(), store.MoveConfig{From: c, To: databases["SQLite"](t)})
	wantRefused(t, err, "is in use by a server")
}

// TestServerEndsWhereItsDatabaseIsMoved ends a server whose session was lost while a
// move took the database, and one that finds it moved.
func TestServerEndsWhereItsDatabaseIsMoved(t *testing.T) {
	t.Parallel()
	t.Run("under way", func(t *testing.T) {
		database := postgresServer(t).copy(t, nil)
		_, ended := held(t, database)
		conn, err := pgx.Connect(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		// Whoever waits in the queue of the lock has it before one who only tries.
		const take = "SELECT pg_advisory_lock(l.classid::int, l.objid::int) FROM (SELECT classid, objid, pg_terminate_backend(pid) " +
			"FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS l"
		if _, err := conn.Exec(t.Context(), take); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, <-ended, "was lost, and meanwhile", "is being moved")
	})
	t.Run("ended", func(t *testing.T) {
		database := postgresServer(t).copy(t, nil)
		_, ended := held(t, database)
		execIn(t, database, `INSERT INTO settings (id, value) VALUES ('move', '{"state": "moved", "other": "SQLite database /x", "at": "2026-03-01T00:00:00Z"}')`)
		execIn(t, database, endSessions)
		wantRefused(t, <-ended, "was lost, and meanwhile", "was moved to the SQLite database /x")
	})
	t.Run("ended, which the first look cannot see", func(t *testing.T) {
		database := postgresServer(t).copy(t, nil)
		_, ended := held(t, database)
		conn, err := pgx.Connect(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		exec := func(statement string) (rows int64) {
			t.Helper()
			result, err := conn.Exec(t.Context(), statement)
			if err != nil {
				t.Fatal(err)
			}
			return result.RowsAffected()
		}
		exec("BEGIN; LOCK TABLE settings IN ACCESS EXCLUSIVE MODE")
		execIn(t, database, endSessions)
		// Ends the look while it waits for the table.
		const cancel = "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'settings'::regclass"
		for exec(cancel) == 0 {
			if t.Context().Err() != nil {
				t.Fatal("nobody looks")
			}
		}
		exec(`INSERT INTO settings (id, value) VALUES ('move', '{"state": "moved", "other": "SQLite database /x", "at": "2026-03-01T00:00:00Z"}'); COMMIT`)
		wantRefused(t, <-ended, "was lost, and meanwhile", "was moved to the SQLite database /x")
	})
}

// TestMoveBesideAnotherVersion refuses to move a database that a server of an earlier or a
// later version has, or to move another one there, and changes nothing of it.
func TestMoveBesideAnotherVersion(t *testing.T) {
	t.Parallel()
	const change = migrations.ExpandMark + "\nCREATE TABLE later (id text PRIMARY KEY);"
	for name, version := range map[string]func(t *testing.T, c store.Config) store.Config{
		"earlier": func(t *testing.T, c store.Config) store.Config {
			versions, err := store.MigrationVersions(c)
			if err != nil {
				t.Fatal(err)
			}
			if c, err = store.WithMigrationsUpTo(c, versions[0]); err != nil {
				t.Fatal(err)
			}
			return c
		},
		"later": func(t *testing.T, c store.Config) store.Config { return later(t, c, "29990101000000", change) },
	} {
		t.Run(name, func(t *testing.T) {
			c := databases["PostgreSQL"](t)
			serving := version(t, c)
			serving.Serving = true
			s, err := store.Open(t.Context(), serving)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			db := openRaw(t, c)
			schema := func() []string { return texts(t, db, "SELECT version FROM schema_revisions ORDER BY 1") }
			before := schema()
			other := databases["SQLite"](t)
			openAndInitialize(t, other)
			for from, to := range map[*store.Config]store.Config{&c: databases["SQLite"](t), &other: c} {
				_, err := store.Move(t.Context(), store.MoveConfig{From: *from, To: to})
				wantRefused(t, err, "is in use by a server; stop every server of it first")
			}
			wantSame(t, "the schema", before, schema())
		})
	}
}
