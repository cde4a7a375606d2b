package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/schema"
	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/server/store/migrations"
)

// schemaDialect is what migrations need of a dialect.
type schemaDialect struct {
	name   string // of the folder of its migrations
	begin  func(context.Context, *sql.DB) (*sql.Tx, error)
	driver func(schema.ExecQuerier) (migrate.Driver, error)
}

// migrateDatabase applies the migrations that the database lacks, all in one
// transaction, so that a server that dies leaves the old schema or the new one.
func migrateDatabase(ctx context.Context, db *sql.DB, d schemaDialect) error {
	return withMigrations(ctx, db, d, func(executor *migrate.Executor) error {
		if err := executor.ExecuteN(ctx, 0); err != nil && !errors.Is(err, migrate.ErrNoPendingFiles) {
			return fmt.Errorf("migrate the database: %w", err)
		}
		return nil
	})
}

// checkMigrated is an error where the database lacks a migration.
func checkMigrated(ctx context.Context, db *sql.DB, d schemaDialect) error {
	return withMigrations(ctx, db, d, func(executor *migrate.Executor) error {
		pending, err := executor.Pending(ctx)
		if err != nil && !errors.Is(err, migrate.ErrNoPendingFiles) {
			return fmt.Errorf("read the schema's revisions: %w", err)
		}
		if len(pending) > 0 {
			return errors.New("the database was made by an earlier version of apikeys; start the server once to bring it up to date")
		}
		return nil
	})
}

// withMigrations calls use with the migrations of a dialect in one transaction.
func withMigrations(ctx context.Context, db *sql.DB, d schemaDialect, use func(*migrate.Executor) error) error {
	dir, err := migrationDir(d.name)
	if err != nil {
		return err
	}
	dbtx, err := d.begin(ctx, db)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer dbtx.Rollback() //nolint:errcheck // After the commit it has nothing to do.
	r := revisions{dbtx, d.name}
	if err := r.create(ctx); err != nil {
		return err
	}
	if err := r.refuseUnknown(ctx, dir); err != nil {
		return err
	}
	driver, err := d.driver(dbtx)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	executor, err := migrate.NewExecutor(driver, dir, r, migrate.WithAllowDirty(true))
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	if err := use(executor); err != nil {
		return err
	}
	if err := dbtx.Commit(); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}

// migrationDir returns the embedded migrations of a dialect, checked against
// their sums.
func migrationDir(dialect string) (migrate.Dir, error) {
	files, err := fs.Sub(migrations.Files, dialect)
	if err != nil {
		return nil, err
	}
	dir := &migrate.MemDir{}
	names, err := fs.Glob(files, "*")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		if err := dir.WriteFile(name, content); err != nil {
			return nil, err
		}
	}
	return dir, nil
}

// revisions is the table of the migrations that were applied, a row each.
type revisions struct {
	db      *sql.Tx
	dialect string
}

var _ migrate.RevisionReadWriter = revisions{}

const revisionTable = "schema_revisions"

// storedRevision is a revision in JSON. Atlas writes the type as a word that it
// does not read, and leaves the hashes out.
type storedRevision struct {
	migrate.Revision
	Type          uint
	Hash          string
	PartialHashes []string `json:",omitempty"`
}

func (r revisions) create(ctx context.Context) error {
	if r.dialect == dialect.Postgres {
		// Asking first: IF NOT EXISTS asks for the right to create tables even where
		// the table is there.
		var there bool
		err := r.db.QueryRowContext(ctx, "SELECT to_regclass('"+revisionTable+"') IS NOT NULL").Scan(&there)
		if err != nil || there {
			return err
		}
	}
	_, err := r.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+revisionTable+" (version text PRIMARY KEY, revision text NOT NULL)")
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	return nil
}

// refuseUnknown is an error where the database has a migration that this program
// does not know. One that is later than all known ones is a later program's, which
// would misread the rows that this one writes. An earlier one is of a schema from
// before the first release, which has no way to this version's.
func (r revisions) refuseUnknown(ctx context.Context, dir migrate.Dir) error {
	files, err := dir.Files()
	if err != nil {
		return err
	}
	known := make([]string, len(files)) // ascending, as files are
	for i, f := range files {
		known[i] = f.Version()
	}
	applied, err := r.ReadRevisions(ctx)
	if err != nil {
		return err
	}
	for _, a := range applied {
		switch {
		case slices.Contains(known, a.Version):
		case a.Version > known[len(known)-1]:
			return fmt.Errorf("the database was made by a later version of apikeys (schema %s)", a.Version)
		default:
			return fmt.Errorf("the database was made by a version of apikeys from before the first release (schema %s), which this version cannot read; start with a new database and a new secrets file", a.Version)
		}
	}
	return nil
}

// Ident names the table.
func (r revisions) Ident() *migrate.TableIdent { return &migrate.TableIdent{Name: revisionTable} }

// ReadRevisions returns all revisions.
func (r revisions) ReadRevisions(ctx context.Context) ([]*migrate.Revision, error) {
	query, args := entsql.Dialect(r.dialect).Select("revision").From(entsql.Table(revisionTable)).OrderBy("version").Query()
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read the schema's revisions: %w", err)
	}
	defer rows.Close()
	var all []*migrate.Revision
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("read the schema's revisions: %w", err)
		}
		var stored storedRevision
		if err := json.Unmarshal([]byte(text), &stored); err != nil {
			return nil, fmt.Errorf("read the schema's revisions: %w", err)
		}
		revision := stored.Revision
		revision.Type, revision.Hash, revision.PartialHashes = migrate.RevisionType(stored.Type), stored.Hash, stored.PartialHashes
		all = append(all, &revision)
	}
	return all, rows.Err()
}

// ReadRevision returns one revision, or migrate.ErrRevisionNotExist.
func (r revisions) ReadRevision(ctx context.Context, version string) (*migrate.Revision, error) {
	all, err := r.ReadRevisions(ctx)
	if err != nil {
		return nil, err
	}
	for _, revision := range all {
		if revision.Version == version {
			return revision, nil
		}
	}
	return nil, migrate.ErrRevisionNotExist
}

// WriteRevision adds the revision or replaces it.
func (r revisions) WriteRevision(ctx context.Context, revision *migrate.Revision) error {
	text, err := json.Marshal(storedRevision{*revision, uint(revision.Type), revision.Hash, revision.PartialHashes})
	if err != nil {
		return err
	}
	query, args := entsql.Dialect(r.dialect).Insert(revisionTable).
		Columns("version", "revision").Values(revision.Version, string(text)).
		OnConflict(entsql.ConflictColumns("version"), entsql.ResolveWithNewValues()).Query()
	_, err = r.db.ExecContext(ctx, query, args...)
	return err
}

// DeleteRevision forgets a revision.
func (r revisions) DeleteRevision(ctx context.Context, version string) error {
	query, args := entsql.Dialect(r.dialect).Delete(revisionTable).Where(entsql.EQ("version", version)).Query()
	_, err := r.db.ExecContext(ctx, query, args...)
	return err
}
