package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/store"
)

// writeFixture, where it is set, makes TestUpgrade write the rows of a database of
// today's schema to testdata/upgrade, for the upgrades of tomorrow:
//
//	APIKEYS_TEST_WRITE_FIXTURE=1 bash .ci/postgres go test ./server/store -run TestUpgrade
//
// It is run once for each release, before the first migration after it. A file is
// never written again: its rows are as that release wrote them.
const writeFixture = "APIKEYS_TEST_WRITE_FIXTURE"

// TestUpgrade brings databases of every schema that there was up to date, with rows in
// them that the program of that time wrote, or one before it: keys verify, the log is
// whole, and deliveries go on.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, c store.Config) {
		versions, err := store.MigrationVersions(c)
		if err != nil {
			t.Fatal(err)
		}
		folder := filepath.Join("testdata", "upgrade", "sqlite3")
		if !c.Postgres.IsZero() {
			folder = filepath.Join("testdata", "upgrade", "postgres")
		}
		if os.Getenv(writeFixture) != "" {
			dumpFixture(t, c, filepath.Join(folder, versions[len(versions)-1]))
		}
		fixtures, err := filepath.Glob(filepath.Join(folder, "*.sql"))
		if err != nil || len(fixtures) == 0 {
			t.Fatalf("no rows to upgrade in %s: %v", folder, err)
		}
		for _, fixture := range fixtures {
			made := strings.TrimSuffix(filepath.Base(fixture), ".sql")
			if !slices.Contains(versions, made) {
				t.Fatalf("%s is of no migration", fixture)
			}
			for _, over := range versions[slices.Index(versions, made):] {
				t.Run(made+" over "+over, func(t *testing.T) {
					c := databases[map[bool]string{true: "SQLite", false: "PostgreSQL"}[c.Postgres.IsZero()]](t)
					upgrade(t, c, strings.TrimSuffix(fixture, ".sql"), made, over)
				})
			}
		}
	})
}

// upgrade fills a database of the schema made with the rows of a fixture, brings it to
// the schema over, and then up to date.
func upgrade(t *testing.T, c store.Config, fixture, made, over string) {
	rows, err := os.ReadFile(fixture + ".sql")
	if err != nil {
		t.Fatal(err)
	}
	var p population
	want, err := os.ReadFile(fixture + ".json")
	if err == nil {
		err = json.Unmarshal(want, &p)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, version := range []string{made, over} {
		before, err := store.WithMigrationsUpTo(c, version)
		if err != nil {
			t.Fatal(err)
		}
		if err := opened(t, before); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			executeAll(t, c, string(rows))
		}
	}
	f := openFixture(t, c, 1)
	defer f.closeFixture(t)
	checkPopulation(t, f, p)
	checkCounted(t, f, c)
	f.clock.Advance(2 * time.Minute) // over the leases of what was under way
	checkGoesOn(t, f, p)
}

// checkCounted holds the counts of deliveries that were made before these were counted
// against the rows, and when they begin to be whole.
func checkCounted(t *testing.T, f *fixture, c store.Config) {
	t.Helper()
	db := openRaw(t, c)
	for _, organization := range texts(t, db, "SELECT DISTINCT organization_id FROM deliveries") {
		want := f.recounted(t, organization)
		if len(want.Hours) == 0 {
			t.Error("there are no deliveries to count")
		}
		wantSame(t, "counts", want, f.deliveryCounts(t, organization))
	}
	oldest := texts(t, db, "SELECT min(ended_at) FROM deliveries")
	if from, err := f.DeliveryCountsFrom(t.Context()); err != nil || fmt.Sprint(from.UnixMicro()) != oldest[0] {
		t.Errorf("counts are whole from %v, %v, want %s", from, err, oldest[0])
	}
}

// openRaw opens the database of c beside the store.
func openRaw(t *testing.T, c store.Config) *sql.DB {
	t.Helper()
	driver, source := "sqlite3", "file:"+c.Path
	if !c.Postgres.IsZero() {
		driver, source = "pgx", c.Postgres.Reveal()
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// executeAll executes many statements.
func executeAll(t *testing.T, c store.Config, statements string) {
	t.Helper()
	if !c.Postgres.IsZero() {
		execIn(t, c.Postgres.Reveal(), statements)
		return
	}
	if _, err := openRaw(t, c).ExecContext(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
}

// dumpFixture fills the empty database of c, and writes its rows as statements, and
// what is to be found in them.
func dumpFixture(t *testing.T, c store.Config, fixture string) {
	t.Helper()
	if _, err := os.Stat(fixture + ".sql"); err == nil {
		t.Fatalf("%s.sql is there already", fixture)
	}
	f := openFixture(t, c, 0)
	p := populate(t, f)
	f.closeFixture(t)
	want, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	db := openRaw(t, c)
	tables, columns, quote := dumpQueries(!c.Postgres.IsZero())
	for _, table := range texts(t, db, tables) {
		names := texts(t, db, fmt.Sprintf(columns, table))
		quoted, values := make([]string, len(names)), make([]string, len(names))
		for i, name := range names {
			quoted[i], values[i] = `"`+name+`"`, fmt.Sprintf(quote, name)
		}
		fmt.Fprintf(&text, "DELETE FROM \"%s\";\n", table) // what triggers have written for rows of others
		query := fmt.Sprintf(`SELECT %s FROM "%s" ORDER BY %s`, strings.Join(values, " || ', ' || "), table, quoted[0])
		for _, row := range texts(t, db, query) {
			fmt.Fprintf(&text, "INSERT INTO \"%s\" (%s) VALUES (%s);\n", table, strings.Join(quoted, ", "), row)
		}
		if !c.Postgres.IsZero() {
			identity := "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND is_identity = 'YES' AND table_name = '" + table + "'"
			for _, column := range texts(t, db, identity) {
				fmt.Fprintf(&text, "SELECT setval(pg_get_serial_sequence('%s', '%s'), greatest(max(\"%s\"), 1)) FROM \"%s\";\n", table, column, column, table)
			}
		}
	}
	if err := os.MkdirAll(filepath.Dir(fixture), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{".sql": text.String(), ".json": string(want) + "\n"} {
		if err := os.WriteFile(fixture+name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// dumpQueries are what lists the tables, the columns of one, and what quotes a value.
func dumpQueries(postgres bool) (tables, columns, quote string) {
	if postgres {
		return "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_revisions' ORDER BY 1",
			"SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '%s' ORDER BY ordinal_position",
			`quote_nullable("%s"::text)`
	}
	return "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'schema_revisions' ORDER BY 1",
		"SELECT name FROM pragma_table_info('%s') ORDER BY cid", `quote("%s")`
}

// texts returns the one column of a query.
func texts(t *testing.T, db *sql.DB, query string) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(context.WithoutCancel(t.Context()), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
