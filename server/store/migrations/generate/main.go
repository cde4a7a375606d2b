// Command generate compares ent/schema with what the migrations beside it build
// up, and writes the difference as one more migration. Where there is none it
// writes nothing, so a second run is the check that no migration is missing.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"ariga.io/atlas/sql/migrate"
	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/schema"
	_ "github.com/mattn/go-sqlite3"

	entmigrate "github.com/apikeys-dev/apikeys/ent/migrate"
)

func main() {
	name := flag.String("name", "change", "what the change is called, as part of the file's name")
	flag.Parse()
	if err := generate(context.Background(), *name); err != nil {
		fmt.Fprintln(os.Stderr, "generate migrations:", err)
		os.Exit(1)
	}
}

// generate replays the migrations of a dialect in an empty database and plans
// what is missing.
func generate(ctx context.Context, name string) error {
	folder, err := migrate.NewLocalDir(dialect.SQLite)
	if err != nil {
		return err
	}
	db, err := sql.Open(dialect.SQLite, "file:replay?mode=memory&cache=shared&_fk=1")
	if err != nil {
		return err
	}
	defer db.Close()
	return entmigrate.NewSchema(db).NamedDiff(ctx, name,
		schema.WithDir(folder),
		schema.WithMigrationMode(schema.ModeReplay),
		schema.WithDialect(dialect.SQLite),
		schema.WithFormatter(migrate.DefaultFormatter),
		schema.WithDropColumn(true),
		schema.WithDropIndex(true),
	)
}
