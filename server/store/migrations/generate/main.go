// Command generate compares ent/schema with what the migrations beside it build
// up, and writes the difference as one more migration of each dialect. Where there
// is none it writes nothing, so a second run is the check that no migration is
// missing.
//
// The migrations of PostgreSQL need a server to be replayed in, which
// APIKEYS_TEST_POSTGRES names. Without it they are left as they are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"

	"ariga.io/atlas/sql/migrate"
	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/schema"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mattn/go-sqlite3"

	stdsql "database/sql"

	entmigrate "github.com/apikeys-dev/apikeys/ent/migrate"
)

func main() {
	name := flag.String("name", "change", "what the change is called, as part of the file's name")
	flag.Parse()
	if err := generate(context.Background(), *name, os.Getenv("APIKEYS_TEST_POSTGRES")); err != nil {
		fmt.Fprintln(os.Stderr, "generate migrations:", err)
		os.Exit(1)
	}
}

// generate plans what is missing for each dialect.
func generate(ctx context.Context, name, postgres string) error {
	db, err := sql.Open(dialect.SQLite, "file:replay?mode=memory&cache=shared&_fk=1")
	if err != nil {
		return err
	}
	defer db.Close()
	if err := plan(ctx, name, db); err != nil {
		return err
	}
	if postgres == "" {
		fmt.Fprintln(os.Stderr, "generate migrations: those of PostgreSQL were left as they are; APIKEYS_TEST_POSTGRES names no server to replay them in")
		return nil
	}
	return inDatabase(ctx, postgres, func(db *stdsql.DB) error {
		return plan(ctx, name, sql.OpenDB(dialect.Postgres, db))
	})
}

// plan replays the migrations of a dialect in an empty database and writes what is
// missing.
func plan(ctx context.Context, name string, db *sql.Driver) error {
	folder, err := migrate.NewLocalDir(db.Dialect())
	if err != nil {
		return err
	}
	err = entmigrate.NewSchema(db).NamedDiff(ctx, name,
		schema.WithDir(folder),
		schema.WithMigrationMode(schema.ModeReplay),
		schema.WithDialect(db.Dialect()),
		schema.WithFormatter(migrate.DefaultFormatter),
		schema.WithDropColumn(true),
		schema.WithDropIndex(true),
	)
	if err != nil {
		return fmt.Errorf("%s: %w", db.Dialect(), err)
	}
	return nil
}

// inDatabase calls use with a new database of the server, which is dropped
// afterwards.
func inDatabase(ctx context.Context, server string, use func(*stdsql.DB) error) (err error) {
	admin, err := stdsql.Open("pgx", server)
	if err != nil {
		return err
	}
	defer admin.Close()
	name := fmt.Sprintf("replay_%d", os.Getpid())
	if _, err := admin.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return err
	}
	defer func() {
		_, dropped := admin.ExecContext(ctx, "DROP DATABASE "+name)
		err = errors.Join(err, dropped)
	}()
	u, err := url.Parse(server)
	if err != nil {
		return err
	}
	u.Path = "/" + name
	db, err := stdsql.Open("pgx", u.String())
	if err != nil {
		return err
	}
	defer db.Close()
	return use(db)
}
