package store_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/store/migrations"
)

// onBoth runs a test on an empty database of each dialect.
func onBoth(t *testing.T, test func(t *testing.T, c store.Config)) {
	t.Run("SQLite", func(t *testing.T) {
		test(t, store.Config{Path: filepath.Join(t.TempDir(), "apikeys.db"), Logger: quiet})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		test(t, store.Config{Postgres: masked.New(postgresServer(t).create(t, "", nil)), Logger: quiet})
	})
}

// later returns c for a version of the program that has one migration more.
func later(tb testing.TB, c store.Config, version, text string) store.Config {
	tb.Helper()
	c, err := store.WithMigration(c, version, text)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// TestLaterSchemaThatExpands replaces one server after another by a later version: the
// one of before goes on, and starts again.
func TestLaterSchemaThatExpands(t *testing.T) {
	onBoth(t, func(t *testing.T, c store.Config) {
		const expand = migrations.ExpandMark + "\nALTER TABLE settings ADD COLUMN note text NOT NULL DEFAULT 'none';\n" +
			"CREATE TABLE later (id text PRIMARY KEY);"
		before := openAndInitialize(t, c)
		first, err := before.CreateKey(t.Context(), operator, benchmarkKey)
		if err != nil {
			t.Fatal(err)
		}
		after := openAndInitialize(t, later(t, c, "29990101000000", expand))
		for name, s := range map[string]*store.Store{"the one of before": before, "the later one": after} {
			if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := s.Key(t.Context(), first.OrganizationID, first.ID); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		var log bytes.Buffer
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		again := openAndInitialize(t, c)
		if _, err := again.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "schema=29990101000000") {
			t.Errorf("the log says %s", log.String())
		}
		c.Existing = true
		if err := opened(t, c); err != nil {
			t.Error(err)
		}
	})
}

// TestLaterSchemaThatDoesNotExpand refuses a database whose rows this version would
// misread, and one on which the migrations of this version would come out of order.
func TestLaterSchemaThatDoesNotExpand(t *testing.T) {
	onBoth(t, func(t *testing.T, c store.Config) {
		const change = "ALTER TABLE settings ADD COLUMN note text NOT NULL DEFAULT 'none';"
		if err := opened(t, later(t, c, "29990101000000", change)); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, opened(t, c), "made by a later version of apikeys (schema 29990101000000)", "run that version")
		for _, ours := range []string{"20991231000000", "29991231000000"} {
			wantRefused(t, opened(t, later(t, c, ours, change)), "apikeys")
		}
	})
	onBoth(t, func(t *testing.T, c store.Config) {
		const expand = migrations.ExpandMark + "\nCREATE TABLE later (id text PRIMARY KEY);"
		if err := opened(t, later(t, c, "29990101000000", expand)); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, opened(t, later(t, c, "20991231000000", "CREATE TABLE sideways (id text PRIMARY KEY);")), "lacks migrations of this one")
	})
}
