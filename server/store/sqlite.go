package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"ariga.io/atlas/sql/sqlite"
	"entgo.io/ent/dialect"
	"github.com/mattn/go-sqlite3"
)

// sqliteSchema is how migrations are applied to SQLite.
var sqliteSchema = schemaDialect{dialect.SQLite, beginFirst, sqlite.Open}

// openSQLite opens the file of c and brings its schema up to date.
func openSQLite(ctx context.Context, c Config) (*backend, error) {
	path, err := filepath.Abs(c.Path) // the one form that SQLite reads as nothing but a file
	if err != nil {
		return nil, err
	}
	prepare := createPrivate
	if c.Existing {
		prepare = checkExists
	}
	if err := prepare(c.Path); err != nil {
		return nil, err
	}
	faultOf := func(err error) *Fault { return sqliteFault(path, err) }
	f := &faults{of: faultOf, tell: c.OnFault}
	readOnly := url.Values{"mode": {"ro"}, "_query_only": {"1"}}
	b := &backend{
		dialect: dialect.SQLite,
		file:    path,
		faults:  f,
		// IMMEDIATE, because a transaction that reads first and writes later fails
		// under load whatever its busy timeout is.
		writerDB: sqlitePool(path, 1, url.Values{"_txlock": {"immediate"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"}}, f),
		readerDB: sqlitePool(path, max(4, runtime.NumCPU()), readOnly, f),
		loadsDB:  sqlitePool(path, LoadsTogether, readOnly, f),
	}
	// The lock file of the server keeps every other one off.
	b.setUp = func(ctx context.Context, setUp func(context.Context) error) error { return setUp(ctx) }
	b.quickCheck = func(ctx context.Context) error { return quickCheckSQLite(ctx, b.readerDB, f) }
	err = checkOwnFile(ctx, path)
	if err == nil {
		err = bringUpToDate(ctx, b.writerDB, sqliteSchema, c)
	}
	if err != nil {
		if fault := faultOf(err); fault != nil {
			err = fault
		}
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// createPrivate makes the file before SQLite would, which makes it readable by
// everybody; its companions (-wal, -shm) take over its mode.
func createPrivate(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// checkExists is an error where there is no file: SQLite would make one.
func checkExists(path string) error {
	_, err := os.Stat(path)
	return err
}

// checkOwnFile refuses a file that holds another program's tables. It writes nothing,
// but for what a transaction left half written whose program was killed: SQLite reads no
// such file before that is rolled back.
func checkOwnFile(ctx context.Context, path string) error {
	ours, others, err := countTables(ctx, path, "ro")
	if known, ok := errors.AsType[sqlite3.Error](err); ok && (known.ExtendedCode == sqlite3.ErrReadonlyRollback || known.ExtendedCode == sqlite3.ErrReadonlyRecovery) {
		ours, others, err = countTables(ctx, path, "rw")
	}
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	if ours == 0 && others > 0 {
		return fmt.Errorf("the database %s holds tables of another program; give apikeys a file of its own", path)
	}
	return nil
}

// countTables returns how many tables of a file are ours and others', by one table of
// ours that each of our files has.
func countTables(ctx context.Context, path, mode string) (ours, others int, err error) {
	db := sqlitePool(path, 1, url.Values{"mode": {mode}, "_query_only": {"1"}}, &faults{of: func(error) *Fault { return nil }})
	defer db.Close()
	err = db.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE name = ?), count(*) FILTER (WHERE name <> ?)
		FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`, revisionTable, revisionTable).Scan(&ours, &others)
	return ours, others, err
}

// sqlitePool returns a pool of connections that are kept open. It opens none yet.
func sqlitePool(path string, connections int, options url.Values, f *faults) *sql.DB {
	options.Set("_busy_timeout", "5000")
	options.Set("_cache_size", "-16000")  // KiB: 16 MB a connection
	options.Set("_stmt_cache_size", "96") // ent prepares nothing, and preparing took a fifth of a write
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: options.Encode()}
	db := sql.OpenDB(&connector{dsn.String(), f.observe})
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db
}

// beginFirst begins the first transaction of a connection. Making the connection
// may switch the file to write-ahead logging, for which SQLite does not wait as it
// does for everything else while another program has the file open.
func beginFirst(ctx context.Context, db *sql.DB) (*sql.Tx, error) {
	for wait := 5 * time.Millisecond; ; wait *= 2 {
		dbtx, err := db.BeginTx(ctx, nil)
		var busy sqlite3.Error
		if err == nil || !errors.As(err, &busy) || busy.Code != sqlite3.ErrBusy || wait > 3*time.Second {
			return dbtx, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// sqliteFaults are the answers of SQLite that are faults of its storage.
var sqliteFaults = map[sqlite3.ErrNo]FaultKind{
	sqlite3.ErrCorrupt:  FaultDamaged,
	sqlite3.ErrNotADB:   FaultDamaged,
	sqlite3.ErrReadonly: FaultReadOnly,
	sqlite3.ErrFull:     FaultFull,
	sqlite3.ErrIoErr:    FaultIO,
	sqlite3.ErrCantOpen: FaultUnopenable,
}

// sqliteFault returns err as a fault of the file's storage, or nil where it is none.
func sqliteFault(file string, err error) *Fault {
	known, ok := errors.AsType[sqlite3.Error](err)
	if !ok {
		return nil
	}
	kind, ok := sqliteFaults[known.Code]
	if !ok {
		return nil
	}
	return &Fault{Kind: kind, File: file, Err: known}
}

// quickCheckSQLite is the quickCheck of a backend.
func quickCheckSQLite(ctx context.Context, db *sql.DB, f *faults) error {
	rows, err := db.QueryContext(ctx, "PRAGMA quick_check(1)")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var found string
		if err := rows.Scan(&found); err == nil && found != "ok" {
			f.observe(sqlite3.Error{Code: sqlite3.ErrCorrupt})
		}
	}
	return rows.Err()
}

// connector opens connections that show all their errors to observe: a fault of
// the storage is noticed wherever it shows first.
type connector struct {
	dsn     string
	observe func(error)
}

var _ driver.Connector = (*connector)(nil)

// Connect opens a connection.
func (c *connector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.Driver().Open(c.dsn)
	if err != nil {
		c.observe(err)
		return nil, err
	}
	return &observedConn{conn.(*sqlite3.SQLiteConn), c.observe}, nil
}

// Driver returns the driver of SQLite.
func (c *connector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

type observedConn struct {
	*sqlite3.SQLiteConn
	observe func(error)
}

// ExecContext executes a statement.
func (c *observedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.SQLiteConn.ExecContext(ctx, query, args)
	if err != nil {
		c.observe(err)
	}
	return result, err
}

// QueryContext begins a query.
func (c *observedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.SQLiteConn.QueryContext(ctx, query, args)
	if err != nil {
		c.observe(err)
		return nil, err
	}
	return &observedRows{rows.(*sqlite3.SQLiteRows), c.observe}, nil
}

// BeginTx begins a transaction.
func (c *observedConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	dbtx, err := c.SQLiteConn.BeginTx(ctx, options)
	if err != nil {
		c.observe(err)
		return nil, err
	}
	return &observedTx{dbtx, c.observe}, nil
}

type observedRows struct {
	*sqlite3.SQLiteRows
	observe func(error)
}

// Next reads the next row; the end of the rows is an error of no interest.
func (r *observedRows) Next(dest []driver.Value) error {
	err := r.SQLiteRows.Next(dest)
	if err != nil {
		r.observe(err)
	}
	return err
}

type observedTx struct {
	driver.Tx
	observe func(error)
}

// Commit commits the transaction.
func (t *observedTx) Commit() error {
	err := t.Tx.Commit()
	if err != nil {
		t.observe(err)
	}
	return err
}
