package store

import (
	"database/sql"
	"slices"
	"testing"

	"entgo.io/ent/dialect"
	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/servertest/testenv"
)

var columnsTest = columnBulk{
	head: "INSERT INTO t (a, b) ", types: []string{"text", "bigint"}, tail: " ON CONFLICT (a) DO NOTHING",
}

// TestColumnBulk says that a statement for PostgreSQL is the same for any number of rows
// and has an argument a column, and that one for SQLite has an argument a value.
func TestColumnBulk(t *testing.T) {
	type statement struct {
		Text string
		Args []any
	}
	run := func(database string, columns ...columnValues) (all []statement) {
		err := columnsTest.run(database, columns, func(text string, args []any) error {
			all = append(all, statement{text, slices.Clone(args)})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	const inserts = "INSERT INTO t (a, b) SELECT * FROM unnest($1::text[],$2::bigint[]) ON CONFLICT (a) DO NOTHING"
	for _, c := range []struct {
		database string
		columns  []columnValues
		want     []statement
	}{
		{dialect.Postgres, []columnValues{texts{}, numbers{}}, nil},
		{dialect.Postgres, []columnValues{texts{"x"}, numbers{-1}}, []statement{{inserts, []any{`{"x"}`, "{-1}"}}}},
		{dialect.Postgres, []columnValues{texts{"x", ""}, numbers{1, 1 << 60}}, []statement{{inserts, []any{`{"x",""}`, "{1,1152921504606846976}"}}}},
		{dialect.SQLite, []columnValues{texts{}, numbers{}}, nil},
		{dialect.SQLite, []columnValues{texts{"x", "y"}, numbers{1, 2}}, []statement{
			{"INSERT INTO t (a, b) VALUES (?,?) ON CONFLICT (a) DO NOTHING", []any{"x", int64(1)}},
			{"INSERT INTO t (a, b) VALUES (?,?) ON CONFLICT (a) DO NOTHING", []any{"y", int64(2)}},
		}},
	} {
		if diff := cmp.Diff(c.want, run(c.database, c.columns...)); diff != "" {
			t.Errorf("%s, %d rows (-want +got):\n%s", c.database, c.columns[0].len(), diff)
		}
	}
}

// TestColumnArrays says that PostgreSQL reads of an array what was put into it.
func TestColumnArrays(t *testing.T) {
	db, err := sql.Open("pgx", testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	want := texts{"", "plain", `"`, `\`, `a"b\c\"`, `\\""`, "{}", "a,b", " ", "NULL", "null", "ü\n\t", "'", "$1"}
	numbered := make(numbers, len(want))
	for i := range numbered {
		numbered[i] = int64(i-3) << 40
	}
	var got texts
	var gotNumbers numbers
	err = queryRows(t.Context(), db, "SELECT * FROM unnest($1::text[],$2::bigint[])", []any{want.array(), numbered.array()}, func(rows *sql.Rows) error {
		var text string
		var n int64
		err := rows.Scan(&text, &n)
		got, gotNumbers = append(got, text), append(gotNumbers, n)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got) + cmp.Diff(numbered, gotNumbers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
