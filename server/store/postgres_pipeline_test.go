package store_test

import (
	"bytes"
	"database/sql"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
)

// TestPostgresGroupRoundTrips counts how often a group waits for PostgreSQL: once for each
// change, and some times for the transaction.
func TestPostgresGroupRoundTrips(t *testing.T) {
	const changes = 24
	p, through := newProxy(t, postgresServer(t).copy(t, nil))
	f := &fixture{clock: newClock(), log: new(bytes.Buffer)}
	f.Store = openAndInitialize(t, store.Config{
		Postgres: masked.New(through), Now: f.clock.Now, NewID: ascendingIDs(), Logger: slog.New(slog.NewTextHandler(f.log, nil)),
	})
	creates := make([]func() error, changes)
	for i := range creates {
		creates[i] = f.creating(t, label(i))
	}
	f.together(t, creates[:2]...) // From here on its statements are prepared.
	before := p.requests.Load()
	for i, err := range f.together(t, creates...) {
		if err != nil {
			t.Errorf("change %d: %v", i, err)
		}
	}
	if made := p.requests.Load() - before; made > changes+changes/2 {
		t.Errorf("%d round trips for %d changes", made, changes)
	}
}

// beginMember begins a transaction whose next statement travels with a savepoint.
func beginMember(t *testing.T, s *store.Store) *sql.Tx {
	t.Helper()
	tx, err := s.Writer().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	execMember(t, tx, "SAVEPOINT member")
	return tx
}

func execMember(t *testing.T, tx *sql.Tx, statement string, args ...any) {
	t.Helper()
	if _, err := tx.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// TestPostgresPipelineValues reads values of each kind behind a savepoint, as without one.
func TestPostgresPipelineValues(t *testing.T) {
	s := openPostgres(t, store.Config{Logger: quiet})
	const query = `SELECT n::int2, n::int4, n::int8, n = 1, n::float4 / 2, n::float8 / 2, 'text' || n, n::numeric,
		'\x00ff'::bytea, '{"a": 1}'::jsonb, timestamptz '2026-01-02 03:04:05.678+00', NULL::text, $1::text
		FROM generate_series(1, 2) n ORDER BY n.n`
	read := func(tx *sql.Tx) (names []string, values [][]any) {
		t.Helper()
		rows, err := tx.QueryContext(t.Context(), query, "argument")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		if names, err = rows.Columns(); err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			row, into := make([]any, len(names)), make([]any, len(names))
			for i := range row {
				into[i] = &row[i]
			}
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			for i, v := range row {
				if at, ok := v.(time.Time); ok {
					row[i] = at.UTC()
				}
			}
			values = append(values, row)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return names, values
	}
	tx := beginMember(t, s)
	names, values := read(tx)
	wantNames, wantValues := read(tx)
	if !reflect.DeepEqual(names, wantNames) || !reflect.DeepEqual(values, wantValues) || len(values) != 2 {
		t.Errorf("behind a savepoint\n%v %#v\nwant\n%v %#v", names, values, wantNames, wantValues)
	}
}

// TestPostgresPipelineFails has the statement behind a savepoint fail: what came before the
// savepoint is kept, and the connection goes on.
func TestPostgresPipelineFails(t *testing.T) {
	insert := func(id string) string { return "INSERT INTO settings (id, value) VALUES ('" + id + "', '')" }
	for name, fail := range map[string]func(*sql.Tx) error{
		"a statement": func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), "INSERT INTO settings (id, value) SELECT 'kept', $1", "")
			return err
		},
		"a query": func(tx *sql.Tx) error {
			return tx.QueryRowContext(t.Context(), "SELECT 1 / $1::int8", 0).Scan(new(int))
		},
		"a later row": func(tx *sql.Tx) error {
			rows, err := tx.QueryContext(t.Context(), "SELECT 1 / (2000 - n) FROM generate_series(1, $1::int8) n", 3000)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() { //nolint:revive // What they hold does not matter.
			}
			return rows.Err()
		},
		"a value that cannot be sent": func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), "INSERT INTO settings (id, value) SELECT 'x', $1::int8::text", "no number")
			return err
		},
		"nothing was sent": func(*sql.Tx) error { return errRefused },
	} {
		t.Run(name, func(t *testing.T) {
			s := openPostgres(t, store.Config{Logger: quiet})
			tx := beginMember(t, s)
			execMember(t, tx, insert("kept"))
			execMember(t, tx, "RELEASE SAVEPOINT member")
			execMember(t, tx, "SAVEPOINT member")
			if err := fail(tx); err == nil {
				t.Fatal("it did not fail")
			}
			execMember(t, tx, "ROLLBACK TO SAVEPOINT member")
			execMember(t, tx, "RELEASE SAVEPOINT member")
			execMember(t, tx, "SAVEPOINT member")
			execMember(t, tx, "INSERT INTO settings (id, value) SELECT $1, ''", "later")
			execMember(t, tx, "RELEASE SAVEPOINT member")
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			execMember(t, beginMember(t, s), "SELECT 1") // on the same connection
			settings, err := s.Settings(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for id, want := range map[string]bool{"kept": true, "later": true, "x": false} {
				if _, ok := settings[id]; ok != want {
					t.Errorf("%s is there: %v", id, ok)
				}
			}
		})
	}
}
