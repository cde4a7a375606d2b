package store

import (
	"errors"
	"slices"
	"testing"

	"entgo.io/ent/dialect"
	"github.com/google/go-cmp/cmp"
)

func TestBulkText(t *testing.T) {
	b := bulk{head: "INSERT INTO t (a, b) VALUES ", columns: 2, tail: " ON CONFLICT (a) DO NOTHING"}
	for database, want := range map[string]string{
		dialect.SQLite:   "INSERT INTO t (a, b) VALUES (?,?),(?,?) ON CONFLICT (a) DO NOTHING",
		dialect.Postgres: "INSERT INTO t (a, b) VALUES ($1,$2),($3,$4) ON CONFLICT (a) DO NOTHING",
	} {
		if diff := cmp.Diff(want, b.text(database, 2)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", database, diff)
		}
	}
}

// TestBulkRun says that every row is in one statement, in order, and that all
// those statements have few different texts.
func TestBulkRun(t *testing.T) {
	b := bulk{columns: 2}
	texts := make(map[string]bool)
	for rows := range 1200 {
		args := make([]any, rows*b.columns)
		for i := range args {
			args[i] = i
		}
		var got []any
		err := b.run(dialect.SQLite, args, func(text string, part []any) error {
			texts[text] = true
			got = append(got, part...)
			return nil
		})
		if err != nil || !slices.Equal(got, args) {
			t.Fatalf("%d rows: %v, %v", rows, got, err)
		}
	}
	if len(texts) != len(bulkSizes) {
		t.Errorf("%d texts, want %d", len(texts), len(bulkSizes))
	}
	broken := errors.New("broken")
	calls := 0
	err := b.run(dialect.SQLite, make([]any, 18), func(string, []any) error { calls++; return broken })
	if !errors.Is(err, broken) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}
