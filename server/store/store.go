package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"ariga.io/atlas/sql/migrate"
	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5"

	"github.com/apikeys-dev/apikeys/ent"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/operator"
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
	// Unnotified keeps the store from telling other servers of its commits and from
	// hearing of theirs, so that all find them by looking. It is for tests.
	Unnotified bool
	// Existing opens a database as it is: one that is missing, or whose schema is
	// not this version's, is an error. It is for commands beside a running server.
	Existing bool
	// Serving says that the store is a server's: while it is open, no move takes a
	// PostgreSQL database, and it is refused while one has it. A file of SQLite is
	// locked by its caller.
	Serving bool
	// Force opens a database that was moved to another, which is an error else, and
	// takes the mark of that away.
	Force bool
	// moving opens a database to be moved, or the target of that.
	moving bool
	// migrations are those of this program. Defaults to the embedded ones of the
	// dialect.
	migrations migrate.Dir
	// Now is the clock. Defaults to time.Now; on PostgreSQL leases, and when a delivery
	// is due, are then by the database's clock, which all servers share.
	Now func() time.Time
	// SharedClock says that Now is no test's, so that what servers of a PostgreSQL
	// database share may go by its clock, in its statements.
	SharedClock bool
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
	// holder names this server in the rows of its leases.
	holder string

	*backend
	sealer *keyring.Sealer

	writer *ent.Client
	reader *ent.Client
	loads  *loads
	// loader reads what authentication waits for.
	loader *ent.Client
	// callerText is the query of the row of a caller that is a key, and tokenText that
	// of a root token.
	callerText, tokenText string

	// ownClock reports that the store was given no clock, and ahead is by how many
	// microseconds the clock of the queue is ahead of the store's.
	ownClock bool
	ahead    atomic.Int64
	opened   opened
	recent   recentEvents

	group     group
	summing   chan struct{} // full while the usage of many keys is summed up
	listing   chan struct{} // full while as many pages are read as may be: see beginPage
	committed []func(Commit)
	hold      func(ctx context.Context, organization string) error
	answers   AnswerLimits
	refusals  atomic.Uint64 // numbers those of one time
}

// Commit tells of a transaction that has been committed.
type Commit struct {
	// First and Position are the positions of its first event and its last. Where it
	// has none, Position is of the last before it, and First is after that.
	First, Position int64
	// Unknown says that the connection was lost during the commit, and nobody knows
	// whether it was made: its positions may become another server's.
	Unknown bool
	// ChangedKeys are the ids of the keys that changed, or that another server had
	// changed so already: what a cache holds of them from before Position is out of date.
	ChangedKeys []string
	// ChangedTokens are the ids of the tokens of operators that changed, likewise.
	ChangedTokens []string
	// Due are the ids of webhooks that have something to deliver now.
	Due []string
	// Organizations are those that the events are of; one may be named twice.
	Organizations []string
	// Subscribed are the organizations in which a term of a webhook began.
	Subscribed []string
	// Deleted are the ids of webhooks that were deleted.
	Deleted []string
	// Events are the types of its events, in their order.
	Events []apikey.EventType
	// Changes is how many changes of callers shared the transaction.
	Changes int
	// Began is when the transaction began, and Committing when it had done all but
	// become durable, both by the monotonic clock of this process.
	Began, Committing time.Time
}

// OnCommit calls f after each commit that left something to tell, and before
// anyone is told of it, in the order of commits. f must not block, and OnCommit is to be
// called before the first write.
func (s *Store) OnCommit(f func(Commit)) { s.committed = append(s.committed, f) }

// HoldWith has hold called before each change of a caller, with the organization that
// the caller acts in: it returns once the change may be made, or why it may not. What
// revokes, disables or deletes a key, disables or deletes a webhook, or retries or
// cancels one delivery, is not held.
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
	s := &Store{now: c.Now, newID: c.NewID, log: c.Logger, holder: newHolder(), summing: make(chan struct{}, 1)}
	if s.now == nil {
		s.now, s.ownClock = time.Now, true
	}
	s.ownClock = s.ownClock || c.SharedClock
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
	s.reader = ent.NewClient(ent.Driver(boundReads(entsql.OpenDB(s.dialect, s.readerDB))))
	s.callerText, s.tokenText = callerText(s.dialect), tokenText(s.dialect)
	s.listing = make(chan struct{}, s.readerDB.Stats().MaxOpenConnections-1)
	s.loads = newLoads(boundReads(entsql.OpenDB(s.dialect, s.loadsDB)))
	s.loader = ent.NewClient(ent.Driver(boundReads(entsql.OpenDB(s.dialect, s.loadsDB))))
	if err := s.measureClock(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("read the database's clock: %w", err), s.close())
	}
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
	// leasesDB has one connection, on PostgreSQL alone: leases are renewed whatever the
	// other pools wait for.
	leasesDB *sql.DB
	faults   *faults
	file     string // of SQLite, its absolute path
	// quickCheck looks for damage in the whole database until ctx ends, and has
	// faults observe what it finds. Its error is of the check itself.
	quickCheck func(ctx context.Context) error
	presence   *presence // nil unless the store is a server's or a move's, on PostgreSQL
	// connect opens a connection outside the pools, on PostgreSQL.
	connect func(context.Context) (*pgx.Conn, error)
	// setUp calls its function while no other server sets the database up.
	setUp func(context.Context, func(context.Context) error) error
	// logDB is the one connection of NextEvents, on PostgreSQL.
	logDB   *sql.DB
	notices *notices // nil where no other server can share the database
}

// locksRows reports whether a transaction has to lock the rows that it reads and
// then changes. On SQLite a transaction holds the whole database.
func (b *backend) locksRows() bool { return b.dialect == dialect.Postgres }

func (b *backend) close() error {
	// SQLite moves its write-ahead log into the file where the last to close may write.
	err := errors.Join(closePool(b.loadsDB), closePool(b.readerDB), b.writerDB.Close())
	b.notices.close()
	if b.logDB != nil {
		_ = b.logDB.Close() // It holds nothing.
	}
	if b.presence != nil {
		b.presence.release()
	}
	if b.leasesDB != nil {
		err = errors.Join(err, b.leasesDB.Close())
	}
	if b.dialect == dialect.Postgres {
		return nil // A connection that was lost cannot be closed in order, and holds nothing.
	}
	return err
}

// closePool closes a pool and waits for its connections: one whose query was cancelled a
// moment ago is closed beside the call.
func closePool(db *sql.DB) error {
	err := db.Close()
	most := time.After(time.Second)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for db.Stats().OpenConnections > 0 {
		select {
		case <-most:
			return err
		case <-look.C:
		}
	}
	return err
}

// Shared reports whether other servers may have the database open too. An SQLite file
// belongs to one server.
func (s *Store) Shared() bool { return s.dialect == dialect.Postgres }

// Hold keeps moves off the database until ctx ends. It is an error where the database
// was moved while the connection to it was lost: this server must stop then.
func (s *Store) Hold(ctx context.Context) error {
	if s.presence == nil {
		return nil
	}
	return s.presence.hold(ctx, func(ctx context.Context) error {
		return inTx(ctx, s.readerDB, func(dbtx *sql.Tx) error {
			_, err := checkMark(ctx, dbtx, Config{Logger: s.log})
			return err
		})
	})
}

// SetUp calls setUp while no other server of this database does the same, and while
// none migrates it. It is for what a database gets once: of many servers that start
// together on an empty one, the first gives it that, and the others find it there.
func (s *Store) SetUp(ctx context.Context, setUp func(context.Context) error) error {
	return s.backend.setUp(ctx, setUp)
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
	// result points to what the change came to, of which the answer of an idempotent
	// call is made.
	result any
}

// groupTx is what the members of one transaction leave for its commit.
type groupTx struct {
	position int64 // of the newest event, those not yet written included
	events   []*ent.EventCreate
	types    []apikey.EventType // of events
	changed  []string           // ids of keys
	// callers are the rows of the keys that made changes, nil for one that is gone, as
	// they are after the changes so far.
	callers map[string]*apikey.Key
	// tokens are the rows of operators' tokens, likewise, and changedTokens the ids of
	// those that changed.
	tokens        map[string]*operator.Token
	changedTokens []string
	// rootTokens says of root tokens if they are stored.
	rootTokens map[string]bool
	due        []string
	// The rest is told as Commit has it.
	organizations, subscribed, deleted []string
}

// duration returns the duration of a column, which counts microseconds.
func duration(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
