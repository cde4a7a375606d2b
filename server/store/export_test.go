package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"os"
	"slices"
	"time"

	"ariga.io/atlas/sql/migrate"
	"entgo.io/ent/dialect"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entevent "github.com/apikeys-dev/apikeys/ent/event"
	entrevision "github.com/apikeys-dev/apikeys/ent/revision"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// The bounds that tests reach.
const (
	MaxExamined = maxExamined
	MaxGroup    = maxGroup
	UsageChunk  = usageChunk
)

// Writer and Reader are the pools below the store.
func (s *Store) Writer() *sql.DB { return s.writerDB }
func (s *Store) Reader() *sql.DB { return s.readerDB }

// Dialect is the database's.
func (s *Store) Dialect() string { return s.dialect }

// EndTransaction is a statement that ends its transaction behind the store's back.
// On PostgreSQL its session ends too, and so the statement fails.
func (s *Store) EndTransaction() string {
	if s.dialect == dialect.Postgres {
		return "SELECT pg_terminate_backend(pg_backend_pid())"
	}
	return "ROLLBACK"
}

// Write makes one change of apply, which may run statements of its own.
func (s *Store) Write(ctx context.Context, apply func(exec func(statement string) error) error) error {
	return s.commitAtOnce(ctx, apikey.System("test"), func(ctx context.Context, t *tx) error {
		return apply(func(statement string) error {
			_, err := t.ExecContext(ctx, statement)
			return err
		})
	})
}

// Waiting returns how many changes wait for the group under way.
func (s *Store) Waiting() int {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	return s.group.waiting.len()
}

// Summing is full while the most used keys are read.
func (s *Store) Summing() chan struct{} { return s.summing }

// Listing is full while as many pages are read as may be.
func (s *Store) Listing() chan struct{} { return s.listing }

// Position returns the position that the revision tells.
func (s *Store) Position(ctx context.Context) (int64, error) {
	row, err := s.reader.Revision.Query().Where(entrevision.ID(revisionRow)).Only(ctx)
	if err != nil {
		return 0, err
	}
	return row.Position, nil
}

// Log returns all events in their order.
func (s *Store) Log(ctx context.Context) ([]apikey.Event, error) {
	rows, err := s.reader.Event.Query().Order(entevent.ByID()).All(ctx)
	events := make([]apikey.Event, len(rows))
	for i, row := range rows {
		events[i] = eventOf(row)
	}
	return events, err
}

// Counters returns how many keys have counters.
func (s *Store) Counters(ctx context.Context) (int, error) {
	return s.reader.ApiKeyUsage.Query().Count(ctx)
}

// MigrateAndDie applies every migration and fails before the end.
func MigrateAndDie(ctx context.Context, db *sql.DB) error {
	return withMigrations(ctx, db, sqliteSchema, Config{}, func(executor *migrate.Executor, _ Config) error {
		return errors.Join(executor.ExecuteN(ctx, 0), errors.New("died"))
	})
}

// MigratePostgresAndDie does the same in a PostgreSQL database.
func MigratePostgresAndDie(ctx context.Context, database string) error {
	d, err := parsePostgres(database, "")
	if err != nil {
		return err
	}
	db := d.pool(1)
	defer db.Close()
	return withMigrations(ctx, db, postgresSchema, Config{}, func(executor *migrate.Executor, _ Config) error {
		return errors.Join(executor.ExecuteN(ctx, 0), errors.New("died"))
	})
}

// LoadSizes are the numbers of secrets that loads have statements for.
var LoadSizes = loadSizes[:]

// LoadText returns the query of a load of n secrets.
func LoadText(dialect string, n int) string { return loadText(dialect, n) }

// CallerText returns the query of a caller's row.
func (s *Store) CallerText() string { return s.callerText }

// LoadedColumns returns the columns of a key's own table that a load reads, and
// those that there are.
func LoadedColumns() (loaded, all []string) {
	for _, c := range new(keyRow).columns() {
		if c.table == entkey.Table {
			loaded = append(loaded, c.name)
		}
	}
	return slices.Sorted(slices.Values(loaded)), slices.Sorted(slices.Values(entkey.Columns))
}

// CopyKeys adds n keys like template, with the ids that id makes, without events.
func (s *Store) CopyKeys(ctx context.Context, template apikey.Key, n int, id func(i int) string) error {
	return s.transact(ctx, "copy keys", func(ctx context.Context, etx *ent.Tx) error {
		for first := 0; first < n; first += 500 {
			creates := make([]*ent.ApiKeyCreate, min(500, n-first))
			for i := range creates {
				k := template
				k.ID = id(first + i)
				if _, err := rand.Read(k.Secret.Hash[:]); err != nil {
					return err
				}
				creates[i] = createKey(etx.ApiKey, &k)
			}
			if err := etx.ApiKey.CreateBulk(creates...).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// KeyBySecret returns the key that has one of hashes, or apikey.ErrNotFound.
func (s *Store) KeyBySecret(ctx context.Context, hashes []apikey.Hash) (apikey.Key, int64, error) {
	keys, position, err := s.KeysBySecret(ctx, hashes)
	if err != nil || len(keys) == 0 {
		return apikey.Key{}, 0, cmp.Or(err, error(apikey.ErrNotFound))
	}
	return keys[0], position, nil
}

// CopyDeliveries adds n deliveries like the first one, of events that are not
// there, each with an id of its own.
func (s *Store) CopyDeliveries(ctx context.Context, n int) error {
	row, err := s.reader.Delivery.Query().Order(entdelivery.ByID()).First(ctx)
	if err != nil {
		return err
	}
	d := deliveryOf(row)
	oldest, err := s.reader.Delivery.Query().Order(entdelivery.ByEventPosition()).First(ctx)
	if err != nil {
		return err
	}
	below := min(oldest.EventPosition, 0)
	return s.transact(ctx, "copy deliveries", func(ctx context.Context, etx *ent.Tx) error {
		for first := 0; first < n; first += eventChunk {
			creates := make([]*ent.DeliveryCreate, min(eventChunk, n-first))
			for i := range creates {
				creates[i] = etx.Delivery.Create().SetID(s.newID(webhook.DeliveryIDPrefix)).SetWebhookID(d.WebhookID).
					SetOrganizationID(d.OrganizationID).SetEventPosition(below - int64(first+i) - 1).SetEventID(d.EventID).
					SetEvent(string(d.Event)).SetResourceID(d.ResourceID).SetURL(d.URL).SetFormat(string(d.Format)).
					SetCreatedAt(row.CreatedAt).SetNillableDueAt(row.DueAt).SetState(row.State).SetNillableNextAttemptAt(row.NextAttemptAt)
			}
			if err := etx.Delivery.CreateBulk(creates...).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// CrashFanOut is a turn of the fan-out that dies before its commit, when it has written
// its rows.
func (s *Store) CrashFanOut(ctx context.Context, organization string) error {
	p, err := s.planFanOut(ctx, organization)
	if err != nil || len(p.events) == 0 {
		return err
	}
	died := errors.New("died")
	err = s.transact(ctx, "fan out", func(ctx context.Context, etx *ent.Tx) error {
		n, err := p.write(ctx, s, etx, time.Second)
		p.after(n)
		return cmp.Or(err, p.advance(ctx, etx), died)
	})
	if errors.Is(err, died) {
		return nil
	}
	return err
}

// ExecOnWriter executes a statement on the connection that writes.
func (s *Store) ExecOnWriter(ctx context.Context, statement string) error {
	_, err := s.writerDB.ExecContext(ctx, statement)
	return err
}

// DamageTables closes the store and overwrites the first page of tables and of their
// indexes.
func (s *Store) DamageTables(ctx context.Context, tables ...string) error {
	var pages []int64
	for _, table := range tables {
		err := queryRows(ctx, s.writerDB, "SELECT rootpage FROM sqlite_master WHERE rootpage > 0 AND tbl_name = ?", []any{table}, func(rows *sql.Rows) error {
			var page int64
			err := rows.Scan(&page)
			pages = append(pages, page)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	f, err := os.OpenFile(s.file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for _, page := range pages {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xA5}, 4096), (page-1)*4096); err != nil {
			return err
		}
	}
	return f.Close()
}

// CountRefusals returns how many refusals there are of all keys.
func (s *Store) CountRefusals(ctx context.Context) (int, error) {
	return s.reader.ApiKeyRefusal.Query().Count(ctx)
}

// CopyEvents appends n copies of the newest event.
func (s *Store) CopyEvents(ctx context.Context, n int) error {
	return s.transact(ctx, "copy events", func(ctx context.Context, etx *ent.Tx) error {
		newest, err := etx.Event.Query().Order(ent.Desc(entevent.FieldID)).First(ctx)
		if err != nil {
			return err
		}
		at, end := newest.ID, newest.ID+int64(n)
		for at < end {
			creates := make([]*ent.EventCreate, 0, eventChunk)
			for at < end && len(creates) < eventChunk {
				at++
				creates = append(creates, etx.Event.Create().SetID(at).SetEventID(newest.EventID).
					SetOrganizationID(newest.OrganizationID).SetType(newest.Type).SetResourceID(newest.ResourceID).
					SetActorKind(newest.ActorKind).SetActorID(newest.ActorID).SetRequestID(newest.RequestID).
					SetCreatedAt(newest.CreatedAt).SetPayload(newest.Payload))
			}
			if err := etx.Event.CreateBulk(creates...).Exec(ctx); err != nil {
				return err
			}
		}
		return etx.Revision.Update().SetPosition(end).Exec(ctx)
	})
}

// WithMigration returns c for a later version of this program, which has one migration
// more.
func WithMigration(c Config, version, text string) (Config, error) {
	name := dialect.SQLite
	if !c.Postgres.IsZero() {
		name = dialect.Postgres
	}
	dir, err := migrationDir(name)
	if err != nil {
		return c, err
	}
	if err := dir.WriteFile(version+"_later.sql", []byte(text)); err != nil {
		return c, err
	}
	sum, err := dir.Checksum()
	if err != nil {
		return c, err
	}
	c.migrations = dir
	return c, migrate.WriteSumFile(dir, sum)
}

// OnPostgres reports whether the store's database is one of PostgreSQL.
func (s *Store) OnPostgres() bool { return s.locksRows() }

// CountRateLimits returns how many keys have something spent of an exact rate limit.
func (s *Store) CountRateLimits(ctx context.Context) (int, error) {
	return s.reader.ApiKeyRateLimit.Query().Count(ctx)
}

// Take tries to take the lease once, and returns its token or 0.
func (l *Lease) Take(ctx context.Context) (token int64, err error) { return l.take(ctx) }

// Renew renews the lease of a token once.
func (l *Lease) Renew(ctx context.Context, token int64) (held bool, err error) {
	return l.renew(ctx, token, leaseStatement)
}

// GiveUp gives the lease of a token up.
func (l *Lease) GiveUp(ctx context.Context, token int64) { l.giveUp(ctx, token) }

// Under returns a context of work under the lease of a token.
func (l *Lease) Under(ctx context.Context, token int64) context.Context {
	ctx, lost := context.WithCancelCause(ctx)
	return context.WithValue(ctx, fenceKey{}, &fence{l.name, token, lost})
}

// ErrLeaseLost says that a lease is no longer held.
var ErrLeaseLost = errLeaseLost

// CloseLeases closes the connections of leases.
func (s *Store) CloseLeases() error { return s.leasesDB.Close() }

// SetClock gives a store another clock of its own, as a machine has whose clock went
// wrong.
func (s *Store) SetClock(ctx context.Context, now func() time.Time) error {
	s.now = now
	return s.measureClock(ctx)
}

// SetNewID has ids made by another function.
func (s *Store) SetNewID(newID func(prefix string) string) { s.newID = newID }
