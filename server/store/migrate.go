package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

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

// bringUpToDate applies the migrations that the database lacks, all in one
// transaction, so that a server that dies leaves the old schema or the new one. Where
// c.Existing is set, a database that lacks one is an error instead.
func bringUpToDate(ctx context.Context, db *sql.DB, d schemaDialect, c Config) error {
	return withMigrations(ctx, db, d, c, func(executor *migrate.Executor, c Config) error {
		if c.Existing {
			return checkMigrated(ctx, executor)
		}
		if err := executor.ExecuteN(ctx, 0); err != nil && !errors.Is(err, migrate.ErrNoPendingFiles) {
			return fmt.Errorf("migrate the database: %w", err)
		}
		return nil
	})
}

// checkMigrated is an error where the database lacks a migration.
func checkMigrated(ctx context.Context, executor *migrate.Executor) error {
	pending, err := executor.Pending(ctx)
	if err != nil && !errors.Is(err, migrate.ErrNoPendingFiles) {
		return fmt.Errorf("read the schema's revisions: %w", err)
	}
	if len(pending) > 0 {
		return errors.New("the database was made by an earlier version of apikeys; start the server once to bring it up to date")
	}
	return nil
}

// withMigrations calls use with the migrations of a dialect in one transaction, and
// with c as it is for this database: a move migrates an empty target alone.
func withMigrations(ctx context.Context, db *sql.DB, d schemaDialect, c Config, use func(*migrate.Executor, Config) error) error {
	dir := c.migrations
	if dir == nil {
		var err error
		if dir, err = migrationDir(d.name); err != nil {
			return err
		}
	}
	files, err := dir.Files()
	if err != nil {
		return err
	}
	dbtx, err := d.begin(ctx, db)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer dbtx.Rollback() //nolint:errcheck // After the commit it has nothing to do.
	r := revisions{dbtx, d.name, files}
	if err := r.create(ctx); err != nil {
		return err
	}
	known, later, err := r.checkApplied(ctx)
	if err != nil {
		return err
	}
	if c.moving && later != "" {
		return fmt.Errorf("the schema of the database is that of a later version of apikeys (schema %s); move it with that version or a later one", later)
	}
	if known > 0 {
		mark, err := checkMark(ctx, dbtx, c)
		if err != nil {
			return err
		}
		c.Existing = c.Existing || c.moving && mark.State != stateArriving
	}
	driver, err := d.driver(dbtx)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	executor, err := migrate.NewExecutor(driver, dir, r, migrate.WithAllowDirty(true))
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	if err := use(executor, c); err != nil {
		return err
	}
	if err := dbtx.Commit(); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	if later != "" {
		c.Logger.Info("The schema of the database is that of a later version of apikeys, which this version can work with.", "schema", later)
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
	files   []migrate.File // the migrations of this program, ascending by version
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
	// Expands says that the migration has the mark migrations.Expands, so that a
	// program which does not know it can work on.
	Expands bool `json:",omitempty"`
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

// checkApplied is an error where the database has a migration that this program does
// not know and cannot work with. Later migrations that only expand the schema leave
// all that this program reads and writes, so that servers of two releases can work
// on one database while they are replaced one after another; checkApplied returns the
// last of these. Any other later one is of a program whose rows this one would
// misread. An earlier one is of a schema from before the first release, which has no
// way to this version's. It returns too how many are known.
func (r revisions) checkApplied(ctx context.Context) (known int, later string, _ error) {
	applied, err := r.all(ctx)
	if err != nil {
		return 0, "", err
	}
	for _, a := range applied {
		switch {
		case r.file(a.Version) != nil:
			known++
		case a.Version < r.files[len(r.files)-1].Version():
			return 0, "", fmt.Errorf("the database was made by a version of apikeys from before the first release (schema %s), which this version cannot read; start with a new database and a new secrets file", a.Version)
		case !a.Expands:
			return 0, "", fmt.Errorf("the database was made by a later version of apikeys (schema %s), which this version cannot read; run that version or a later one", a.Version)
		default:
			later = a.Version
		}
	}
	if later != "" && known < len(r.files) {
		return 0, "", fmt.Errorf("the database was made by another version of apikeys (schema %s), which lacks migrations of this one; run that version or a later one", later)
	}
	return known, later, nil
}

// file returns the migration of a version, or nil where this program has none.
func (r revisions) file(version string) migrate.File {
	for _, f := range r.files {
		if f.Version() == version {
			return f
		}
	}
	return nil
}

// Ident names the table.
func (r revisions) Ident() *migrate.TableIdent { return &migrate.TableIdent{Name: revisionTable} }

// all returns all revisions, ascending by version.
func (r revisions) all(ctx context.Context) ([]storedRevision, error) {
	query, args := entsql.Dialect(r.dialect).Select("revision").From(entsql.Table(revisionTable)).OrderBy("version").Query()
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read the schema's revisions: %w", err)
	}
	defer rows.Close()
	var all []storedRevision
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("read the schema's revisions: %w", err)
		}
		var stored storedRevision
		if err := json.Unmarshal([]byte(text), &stored); err != nil {
			return nil, fmt.Errorf("read the schema's revisions: %w", err)
		}
		all = append(all, stored)
	}
	return all, rows.Err()
}

// ReadRevisions returns the revisions of the migrations that this program knows.
func (r revisions) ReadRevisions(ctx context.Context) ([]*migrate.Revision, error) {
	all, err := r.all(ctx)
	if err != nil {
		return nil, err
	}
	var known []*migrate.Revision
	for _, stored := range all {
		if r.file(stored.Version) == nil {
			continue
		}
		revision := stored.Revision
		revision.Type, revision.Hash, revision.PartialHashes = migrate.RevisionType(stored.Type), stored.Hash, stored.PartialHashes
		known = append(known, &revision)
	}
	return known, nil
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
	stored := storedRevision{Revision: *revision, Type: uint(revision.Type), Hash: revision.Hash, PartialHashes: revision.PartialHashes}
	if f := r.file(revision.Version); f != nil {
		stored.Expands = migrations.Expands(f.Bytes())
	}
	text, err := json.Marshal(stored)
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
