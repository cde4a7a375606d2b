package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// Config says where the store keeps its rows and what it takes from outside.
type Config struct {
	// Path is the SQLite file; it is made, readable by its owner alone, where it
	// does not exist. Required, unless Postgres is set.
	Path string
	// Postgres is the URL of a PostgreSQL database, postgres://... Defaults to none.
	Postgres masked.Text
	// PostgresDirect is the URL of the same database around PgBouncer, where
	// Postgres leads through it. Defaults to Postgres.
	PostgresDirect masked.Text
	// PostgresPasswordFile is a file that holds the password alone, for both URLs.
	// Defaults to none.
	PostgresPasswordFile string
	// Wait is how long Open waits for a PostgreSQL database that cannot be reached.
	// Defaults to not at all.
	Wait time.Duration
	// Exclusive refuses a PostgreSQL database that another exclusive store has open:
	// servers do not share one yet. An SQLite file has a lock file instead.
	Exclusive bool
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

	*backend
	sealer *keyring.Sealer

	writer *ent.Client
	reader *ent.Client
	loads  *loads
	// callerText is the query of the row of a caller that is a key, and tokenText that
	// of an operator's token.
	callerText, tokenText string

	group     group
	summing   chan struct{} // full while the usage of many keys is summed up
	listing   chan struct{} // full while as many pages are read as may be: see beginPage
	committed []func(Commit)
	hold      func(ctx context.Context, organization string) error
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
	// Organizations are those that the events are of; one may be named twice.
	Organizations []string
	// Subscribed are the organizations in which a term of a webhook began.
	Subscribed []string
	// Deleted are the ids of webhooks that were deleted.
	Deleted []string
}

// OnCommit calls f after each commit that left something to tell, and before
// anyone is told of it, in the order of commits. f must not block, and OnCommit is to be
// called before the first write.
func (s *Store) OnCommit(f func(Commit)) { s.committed = append(s.committed, f) }

// HoldWith has hold called before each change of a caller, with the organization that
// the caller acts in: it returns once the change may be made, or why it may not. What
// revokes or deletes a key, or deletes a webhook, is not held.
// HoldWith is to be called before the first write.
func (s *Store) HoldWith(hold func(ctx context.Context, organization string) error) { s.hold = hold }

// SealWith sets what encrypts the secrets of webhooks. It is to be called before
// the first webhook is read or written, and apart from Open, because which keys
// are good is decided by what the database says.
func (s *Store) SealWith(sealer *keyring.Sealer) { s.sealer = sealer }

// Open opens the database and brings its schema up to date. It starts nothing;
// Close releases it. A file that cannot be opened, and a database of a later
// version, are errors.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{now: c.Now, newID: c.NewID, log: c.Logger, summing: make(chan struct{}, 1)}
	if s.now == nil {
		s.now = time.Now
	}
	if s.newID == nil {
		s.newID = apikey.NewID
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	open := openSQLite
	if !c.Postgres.IsZero() {
		open = openPostgres
	}
	c.Logger = s.log
	backend, err := open(ctx, c)
	if err != nil {
		return nil, err
	}
	s.backend = backend
	s.writer = ent.NewClient(ent.Driver(entsql.OpenDB(s.dialect, s.writerDB)))
	s.reader = ent.NewClient(ent.Driver(entsql.OpenDB(s.dialect, s.readerDB)))
	s.callerText, s.tokenText = callerText(s.dialect), tokenText(s.dialect)
	s.listing = make(chan struct{}, s.readerDB.Stats().MaxOpenConnections-1)
	s.loads = newLoads(entsql.OpenDB(s.dialect, s.loadsDB))
	return s, nil
}

// backend is an open database, with what each dialect does in its own way. A
// dialect has a file of its own, which returns one; all else in this package is
// the same for every dialect, but for what locksRows tells.
type backend struct {
	dialect string
	// writerDB has one connection: whoever has it is the writer. loadsDB is for the
	// reads of verifications: these do not stand in the queue for readerDB, where a
	// few slow lists would hold up every verification of a key that is not in memory.
	writerDB, readerDB, loadsDB *sql.DB
	faults                      *faults
	file                        string // of SQLite, its absolute path
	// quickCheck looks for damage in the whole database until ctx ends, and has
	// faults observe what it finds. Its error is of the check itself.
	quickCheck func(ctx context.Context) error
	lock       *postgresLock // nil unless the store is exclusive, on PostgreSQL
}

// locksRows reports whether a transaction has to lock the rows that it reads and
// then changes. On SQLite a transaction holds the whole database.
func (b *backend) locksRows() bool { return b.dialect == dialect.Postgres }

func (b *backend) close() error {
	err := errors.Join(b.loadsDB.Close(), b.readerDB.Close(), b.writerDB.Close())
	if b.lock != nil {
		b.lock.release()
	}
	if b.dialect == dialect.Postgres {
		return nil // A connection that was lost cannot be closed in order, and holds nothing.
	}
	return err
}

// Hold keeps other servers off the database until ctx ends. It is an error where
// that has failed: another server has the database then, and this one must stop.
func (s *Store) Hold(ctx context.Context) error {
	if s.lock == nil {
		return nil
	}
	return s.lock.hold(ctx)
}

// Close closes the database. Calls under way fail.
func (s *Store) Close() error {
	return s.close()
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
func (s *Store) timestamp() time.Time { return apikey.StoredTime(s.now()) }

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
	// by is whoever makes the change, and rights what it holds in this transaction.
	by     *apikey.Caller
	rights apikey.Rights
}

// groupTx is what the members of one transaction leave for its commit.
type groupTx struct {
	position int64 // of the newest event, those not yet written included
	events   []*ent.EventCreate
	changed  []string // ids of keys
	// callers are the rows of the keys that made changes, nil for one that is gone, as
	// they are after the changes so far.
	callers map[string]*apikey.Key
	// tokens says of operators' tokens if they are stored.
	tokens map[string]bool
	due    []string
	// The rest is told as Commit has it.
	organizations, subscribed, deleted []string
}

// duration returns the duration of a column, which counts microseconds.
func duration(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
