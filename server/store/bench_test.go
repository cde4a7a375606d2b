package store_test

import (
	"database/sql"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// BenchmarkCreateKeyConcurrent measures keys created by 64 callers at once
// against a floor of the same rows inserted 64 a transaction.
func BenchmarkCreateKeyConcurrent(b *testing.B) {
	const callers, each = 64, 24
	benchmarkCreate(b, callers, func(b *testing.B, s *store.Store) int {
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range each {
					if _, err := s.CreateKey(b.Context(), operator, benchmarkKey); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		return callers * each
	})
}

// BenchmarkCreateKeyByKeys is BenchmarkCreateKeyConcurrent by callers that are keys,
// each another: the row of each is read in each transaction that it has a part in.
func BenchmarkCreateKeyByKeys(b *testing.B) {
	const callers, each = 64, 24
	benchmarkCreate(b, callers, func(b *testing.B, s *store.Store) int {
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				caller, err := s.CreateKey(b.Context(), operator, func(now time.Time) (apikey.Key, error) {
					k, err := benchmarkKey(now)
					k.Scopes, k.ExpiresAt = apikey.Scopes{apikey.AllScopes}, time.Time{}
					return k, err
				})
				if err != nil {
					b.Error(err)
					return
				}
				by := calling(&caller, "api_keys.create")
				for range each - 1 {
					if _, err := s.CreateKey(b.Context(), by, benchmarkKey); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		return callers * each
	})
}

// BenchmarkCreateKey measures one key created after another against a floor of
// one durable transaction with the same rows each.
func BenchmarkCreateKey(b *testing.B) {
	benchmarkCreate(b, 1, func(b *testing.B, s *store.Store) int {
		const each = 500
		for range each {
			if _, err := s.CreateKey(b.Context(), operator, benchmarkKey); err != nil {
				b.Fatal(err)
			}
		}
		return each
	})
}

// BenchmarkCreateKeyIdempotent is BenchmarkCreateKey by calls that name an idempotency
// key, whose answers are kept. Its floor keeps none.
func BenchmarkCreateKeyIdempotent(b *testing.B) {
	made := 0
	benchmarkCreate(b, 1, func(b *testing.B, s *store.Store) int {
		const each = 500
		for range each {
			made++
			call := named(strconv.Itoa(made), "a request of a usual size")
			call.Answer = func(any) ([]byte, error) { return make([]byte, 600), nil }
			if _, err := s.CreateKey(store.WithCall(b.Context(), call), operator, benchmarkKey); err != nil {
				b.Fatal(err)
			}
		}
		return each
	})
}

// benchmarkCreate alternates rounds of create and of its floor, so that both
// meet the same machine.
func benchmarkCreate(b *testing.B, together int, create func(*testing.B, *store.Store) int) {
	s := openSQLite(b, store.Config{})
	raw := newFloor(b)
	var created int
	var spent, floor time.Duration
	for b.Loop() {
		begin := time.Now()
		n := create(b, s)
		spent += time.Since(begin)
		b.StopTimer()
		raw.load(b, s.Reader(), n)
		begin = time.Now()
		raw.insert(b, together)
		floor += time.Since(begin)
		created += n
		b.StartTimer()
	}
	b.ReportMetric(float64(created)/spent.Seconds(), "creates/s")
	b.ReportMetric(float64(floor)/float64(spent), "x-of-floor")
}

// benchmarkKey is a rule that makes a usual key.
func benchmarkKey(now time.Time) (apikey.Key, error) {
	secret, err := apikey.NewSecret("sk_live_", nil)
	if err != nil {
		return apikey.Key{}, err
	}
	return rules.Create(apikey.Key{
		OrganizationID: org, Label: "Benchmark", Enabled: true, OwnerID: "user_1",
		Scopes: apikey.Scopes{"invoices.read", "payments.read"}, ExpiresAt: now.Add(90 * 24 * time.Hour),
		Metadata: map[string]string{"team": "billing"}, Secret: peppers.Stored(secret),
	}, now)
}

// floor is a database of the same schema and settings that plain database/sql
// writes, with statements that are prepared once.
type floor struct {
	db                    *sql.DB
	key, event            *sql.Stmt
	keys, events          [][]any
	lastKey               string
	lastEvent, atPosition int64
}

func newFloor(b *testing.B) *floor {
	path := filepath.Join(b.TempDir(), "floor.db")
	openAndInitialize(b, store.Config{Path: path})
	f := &floor{}
	var err error
	f.db, err = sql.Open("sqlite3", "file:"+path+"?_txlock=immediate&_journal_mode=WAL&_synchronous=FULL&_cache_size=-16000")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.db.Close() })
	f.db.SetMaxOpenConns(1)
	f.key, f.event = f.prepare(b, "api_keys"), f.prepare(b, "events")
	return f
}

// prepare returns an insert of whole rows of table.
func (f *floor) prepare(b *testing.B, table string) *sql.Stmt {
	var columns int
	err := f.db.QueryRowContext(b.Context(), "SELECT count(*) FROM pragma_table_info(?)", table).Scan(&columns)
	if err != nil {
		b.Fatal(err)
	}
	stmt, err := f.db.PrepareContext(b.Context(),
		"INSERT INTO "+table+" VALUES (?"+strings.Repeat(", ?", columns-1)+")")
	if err != nil {
		b.Fatal(err)
	}
	return stmt
}

// load reads the n newest keys and events of db.
func (f *floor) load(b *testing.B, db *sql.DB, n int) {
	f.keys = readRows(b, db, "SELECT * FROM api_keys WHERE id > ? ORDER BY id", f.lastKey)
	f.events = readRows(b, db, "SELECT * FROM events WHERE id > ? ORDER BY id", f.lastEvent)
	if len(f.keys) != n || len(f.events) != n {
		b.Fatalf("%d keys and %d events of %d", len(f.keys), len(f.events), n)
	}
	f.lastKey, f.lastEvent = f.keys[n-1][0].(string), f.events[n-1][0].(int64)
}

func readRows(tb testing.TB, db *sql.DB, query string, args ...any) (all [][]any) {
	rows, err := db.QueryContext(tb.Context(), query, args...)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		tb.Fatal(err)
	}
	for rows.Next() {
		row := make([]any, len(columns))
		into := make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			tb.Fatal(err)
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		tb.Fatal(err)
	}
	return all
}

// insert writes what load has read, so many keys with their events a
// transaction, and moves the revision in each.
func (f *floor) insert(b *testing.B, together int) {
	ctx := b.Context()
	for i := 0; i < len(f.keys); i += together {
		tx, err := f.db.BeginTx(ctx, nil)
		if err != nil {
			b.Fatal(err)
		}
		key, event := tx.StmtContext(ctx, f.key), tx.StmtContext(ctx, f.event) //nolint:sqlclosecheck // The end of tx closes them.
		for j := i; j < min(i+together, len(f.keys)); j++ {
			if _, err := key.ExecContext(ctx, f.keys[j]...); err != nil {
				b.Fatal(err)
			}
			if _, err := event.ExecContext(ctx, f.events[j]...); err != nil {
				b.Fatal(err)
			}
			f.atPosition++
		}
		if _, err := tx.ExecContext(ctx, "UPDATE revisions SET position = ?", f.atPosition); err != nil {
			b.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkListPage measures a page of 100 keys behind 100,000 others against the
// first page.
func BenchmarkListPage(b *testing.B) {
	const depth = 100_000
	s := openSQLite(b, store.Config{})
	template, err := s.CreateKey(b.Context(), operator, benchmarkKey)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.CopyKeys(b.Context(), template, depth+200, copyID); err != nil {
		b.Fatal(err)
	}
	for name, filter := range map[string]store.KeyFilter{
		"organization":      {Organization: template.OrganizationID},
		"owner":             {Organization: template.OrganizationID, OwnerID: template.OwnerID},
		"state":             {Organization: template.OrganizationID, State: apikey.StateActive},
		"all_organizations": {},
	} {
		b.Run(name, func(b *testing.B) {
			page := func(after string) time.Duration {
				begin := time.Now()
				keys, next, err := s.Keys(b.Context(), filter, after, 100)
				if err != nil || len(keys) != 100 || next == "" {
					b.Fatal(len(keys), next, err)
				}
				return time.Since(begin)
			}
			var first, deep time.Duration
			for b.Loop() {
				first += page("")
				deep += page(copyID(depth))
			}
			b.ReportMetric(float64(first)/float64(deep), "x-of-floor")
		})
	}
}

// BenchmarkAddUsage measures a flush of 10,000 keys that are used again and again, which
// a second must hold with room to spare, on both databases: how long its transactions
// hold the writer, and what it costs this process for each key.
func BenchmarkAddUsage(b *testing.B) {
	const keys = 10_000
	for database, open := range map[string]func(testing.TB, store.Config) *store.Store{"SQLite": openSQLite, "PostgreSQL": openPostgres} {
		b.Run(database, func(b *testing.B) {
			s := open(b, store.Config{})
			template, err := s.CreateKey(b.Context(), operator, benchmarkKey)
			if err != nil {
				b.Fatal(err)
			}
			if err := s.CopyKeys(b.Context(), template, keys, benchmarkID); err != nil {
				b.Fatal(err)
			}
			now := time.Now()
			hour := apikey.Hourly.Start(now)
			counts := make([]apikey.UsageCount, keys)
			for i := range counts {
				counts[i] = apikey.UsageCount{
					KeyID: benchmarkID(i), OrganizationID: org, Count: 2, LastUsedAt: now,
					IP: "192.0.2.1", UserAgent: "Mozilla/5.0 (X11; Linux x86_64)",
					Outcomes: []apikey.OutcomeCount{{Hour: hour, Code: apikey.CodeValid, Count: 2}},
					Units:    []apikey.UnitCount{{Hour: hour, Owner: "user_1", Calls: 2, Units: 2}},
				}
			}
			flush := func() {
				if n, err := s.AddUsage(b.Context(), counts); n != keys || err != nil {
					b.Fatal(n, err)
				}
			}
			flush() // The rows are there.
			before := processorTime(b)
			for b.Loop() {
				flush()
			}
			b.ReportMetric((processorTime(b)-before).Seconds()/float64(b.N*keys)*1e6, "cpu-µs/key")
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/(keys/store.UsageChunk)*1e3, "ms/chunk")
		})
	}
}

// processorTime returns how long this process has had a processor.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
