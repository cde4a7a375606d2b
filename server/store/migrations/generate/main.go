// Command generate compares ent/schema with what the migrations beside it build
// up, and writes the difference as one more migration of each dialect. Where there
// is none it writes nothing, so a second run is the check that no migration is
// missing.
//
// What ent/schema cannot say, such as a trigger, is written into a migration by hand;
// -sum then only writes the sums of the files anew.
//
// The migrations of PostgreSQL need a server to be replayed in, which
// APIKEYS_TEST_POSTGRES names. Without it they are left as they are.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"ariga.io/atlas/sql/migrate"
	atlas "ariga.io/atlas/sql/schema"
	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/schema"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mattn/go-sqlite3"

	stdsql "database/sql"

	entmigrate "github.com/apikeys-dev/apikeys/ent/migrate"
	"github.com/apikeys-dev/apikeys/server/store/migrations"
)

func main() {
	name := flag.String("name", "change", "what the change is called, as part of the file's name")
	sum := flag.Bool("sum", false, "write the sums of the files anew, and no migration")
	flag.Parse()
	if *sum {
		if err := errors.Join(writeSum(dialect.SQLite), writeSum(dialect.Postgres)); err != nil {
			fmt.Fprintln(os.Stderr, "write the sums of migrations:", err)
			os.Exit(1)
		}
		return
	}
	if err := generate(context.Background(), *name, os.Getenv("APIKEYS_TEST_POSTGRES")); err != nil {
		fmt.Fprintln(os.Stderr, "generate migrations:", err)
		os.Exit(1)
	}
}

// writeSum writes the sums of the files of a dialect.
func writeSum(folder string) error {
	dir, err := migrate.NewLocalDir(folder)
	if err != nil {
		return err
	}
	sum, err := dir.Checksum()
	if err != nil {
		return err
	}
	return migrate.WriteSumFile(dir, sum)
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
		schema.WithFormatter(marking{migrate.DefaultFormatter, folder}),
		schema.WithDropColumn(true),
		schema.WithDropIndex(true),
	)
	if err != nil {
		return fmt.Errorf("%s: %w", db.Dialect(), err)
	}
	return nil
}

// marking formats a migration that only expands the schema with the mark that says
// so.
type marking struct {
	migrate.Formatter
	folder migrate.Dir // the migrations of before
}

// Format returns the files of a plan.
func (m marking) Format(p *migrate.Plan) ([]migrate.File, error) {
	files, err := m.Formatter.Format(p)
	if err != nil {
		return nil, err
	}
	earlier, err := m.folder.Files()
	if err != nil {
		return nil, err
	}
	if !expands(p, earlier) {
		return files, nil
	}
	for i, f := range files {
		files[i] = migrate.NewLocalFile(f.Name(), append([]byte(migrations.ExpandMark+"\n"), f.Bytes()...))
	}
	return files, nil
}

// expands reports whether a program that knows no more than the earlier migrations can
// work on after a plan.
func expands(p *migrate.Plan, earlier []migrate.File) bool {
	narrow := func(c atlas.Change) bool { return narrows(c, earlier) }
	for _, c := range p.Changes {
		switch source := c.Source.(type) {
		case nil: // SQLite turns checks off and on around the copying of a table.
			if !strings.HasPrefix(c.Cmd, "PRAGMA") {
				return false
			}
		case *atlas.ModifyTable:
			if slices.ContainsFunc(source.Changes, narrow) {
				return false
			}
		default:
			if narrow(source) {
				return false
			}
		}
	}
	return true
}

// narrows reports whether a change may refuse or hide what a program writes or reads
// that does not know it.
func narrows(c atlas.Change, earlier []migrate.File) bool {
	switch c := c.(type) {
	case *atlas.AddTable:
		return false
	case *atlas.AddColumn:
		return !c.C.Type.Null && c.C.Default == nil
	case *atlas.AddIndex:
		// Where SQLite copies a table, the indexes of before are made again.
		made := func(f migrate.File) bool { return bytes.Contains(f.Bytes(), []byte(" INDEX `"+c.I.Name+"` ")) }
		return c.I.Unique && !slices.ContainsFunc(earlier, made)
	}
	return true
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
