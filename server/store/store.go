package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// Config says where the store keeps its rows and what it takes from outside.
type Config struct {
	// Path is the SQLite file; it is made, readable by its owner alone, where it
	// does not exist. Required.
	Path string
	// Existing opens a database as it is: one that is missing, or whose schema is
	// not this version's, is an error. It is for commands beside a running server.
	Existing bool
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
	// NewID makes ids. Defaults to apikey.NewID. Ids must ascend.
	NewID func(prefix string) string
	// Logger hears of what no caller is told. Defaults to slog.Default.
	Logger *slog.Logger
	// OnFault is called once for each fault of the storage, when it first shows,
	// in the middle of the call that met it: it must not use the store. Defaults to
	// nothing.
	OnFault func(*Fault)
}

// Store is the open database. Its methods are safe for concurrent use.
type Store struct {
	now   func() time.Time
	newID func(prefix string) string
	log   *slog.Logger

	sealer *keyring.Sealer
	faults *faults

	writerDB, readerDB *sql.DB
	dialect            string
	writer             *ent.Client // one connection: whoever has it is the writer
	reader             *ent.Client
	loads              *loads // on connections of its own

	group     group
	summing   chan struct{} // full while the usage of many keys is summed up
	committed []func(Commit)
}

// Commit tells of a transaction that has been committed.
type Commit struct {
	// Position is the position of its last event.
	Position int64
	// ChangedKeys are the ids of the keys that changed: what a cache holds of them is
	// out of date.
	ChangedKeys []string
	// Due are the ids of webhooks that have something to deliver now.
	Due []string
}

// OnCommit calls f after each commit that left something to tell, and before
// anyone is told of it, in the order of commits. f must not block, and OnCommit is to be
// called before the first write.
func (s *Store) OnCommit(f func(Commit)) { s.committed = append(s.committed, f) }

// SealWith sets what encrypts the secrets of webhooks. It is to be called before
// the first webhook is read or written, and apart from Open, because which keys
// are good is decided by what the database says.
func (s *Store) SealWith(sealer *keyring.Sealer) { s.sealer = sealer }

// Open opens the database and brings its schema up to date. It starts nothing;
// Close releases it. A file that cannot be opened, and a database of a later
// version, are errors.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{now: c.Now, newID: c.NewID, log: c.Logger, dialect: dialect.SQLite, summing: make(chan struct{}, 1)}
	if s.now == nil {
		s.now = time.Now
	}
	if s.newID == nil {
		s.newID = apikey.NewID
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	path, err := filepath.Abs(c.Path) // the one form that SQLite reads as nothing but a file
	if err != nil {
		return nil, err
	}
	s.faults = &faults{file: path, tell: c.OnFault}
	prepare, bring := createPrivate, migrateDatabase
	if c.Existing {
		prepare, bring = checkExists, checkMigrated
	}
	if err := prepare(c.Path); err != nil {
		return nil, err
	}
	// IMMEDIATE, because a transaction that reads first and writes later fails
	// under load whatever its busy timeout is.
	s.writerDB = s.openSQLite(path, 1, url.Values{
		"_txlock": {"immediate"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"},
	})
	s.writer = ent.NewClient(ent.Driver(entsql.OpenDB(dialect.SQLite, s.writerDB)))
	if err := bring(ctx, s.writerDB, s.dialect); err != nil {
		if fault := faultOf(path, err); fault != nil {
			err = fault
		}
		return nil, errors.Join(err, s.writerDB.Close())
	}
	s.readerDB = s.openSQLite(path, max(4, runtime.NumCPU()), url.Values{
		"mode": {"ro"}, "_query_only": {"1"},
	})
	s.reader = ent.NewClient(ent.Driver(entsql.OpenDB(dialect.SQLite, s.readerDB)))
	// Loads do not stand in the queue for the readers, where a few slow lists would
	// hold up every verification of a key that is not in memory.
	loadsDB := s.openSQLite(path, LoadsTogether, url.Values{"mode": {"ro"}, "_query_only": {"1"}})
	s.loads = newLoads(entsql.OpenDB(dialect.SQLite, loadsDB))
	return s, nil
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

// openSQLite returns a pool of connections that are kept open.
func (s *Store) openSQLite(path string, connections int, options url.Values) *sql.DB {
	options.Set("_busy_timeout", "5000")
	options.Set("_cache_size", "-16000")  // KiB: 16 MB a connection
	options.Set("_stmt_cache_size", "64") // ent prepares nothing, and preparing took a fifth of a write
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: options.Encode()}
	db := sql.OpenDB(&connector{dsn.String(), s.faults.observe})
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db
}

// Close closes the database. Calls under way fail.
func (s *Store) Close() error {
	return errors.Join(s.loads.driver.Close(), s.readerDB.Close(), s.writerDB.Close())
}

// Ready reports whether the database answers.
func (s *Store) Ready(ctx context.Context) error {
	if _, err := s.reader.Revision.Query().Count(ctx); err != nil {
		return fmt.Errorf("read the revision: %w", err)
	}
	return nil
}

// Now returns the time by the store's clock, as it can be stored.
func (s *Store) Now() time.Time { return s.timestamp() }

// timestamp returns the clock's time as it can be stored: UTC, in microseconds.
func (s *Store) timestamp() time.Time { return s.now().UTC().Truncate(time.Microsecond) }

// micros and its companions turn times into columns and back; the zero time is
// NULL.
func micros(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	n := t.UnixMicro()
	return &n
}

func fromMicros(n *int64) time.Time {
	if n == nil {
		return time.Time{}
	}
	return time.UnixMicro(*n).UTC()
}

// tx is one member's view of a transaction of the writer.
type tx struct {
	*ent.Tx
	store *Store
	now   time.Time
	group *groupTx
}

// groupTx is what the members of one transaction leave for its commit.
type groupTx struct {
	position   int64 // of the newest event, those not yet written included
	events     []*ent.EventCreate
	deliveries []*ent.DeliveryCreate
	changed    []string // ids of keys
	due        []string
	// receivers are the enabled webhooks of the organizations that were looked at.
	receivers map[string][]webhook.Webhook
}

// duration returns the duration of a column, which counts microseconds.
func duration(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
