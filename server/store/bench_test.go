package store_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
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

// benchmarkCreate alternates rounds of create and of its floor, so that both
// meet the same machine.
func benchmarkCreate(b *testing.B, together int, create func(*testing.B, *store.Store) int) {
	s := openSQLite(b)
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
	secret, err := apikey.NewSecret(apikey.ModeLive, nil)
	if err != nil {
		return apikey.Key{}, err
	}
	return apikey.Rules{Catalogue: apikey.DefaultScopes(), ExpiringNotice: 7 * 24 * time.Hour}.Create(apikey.Key{
		OrganizationID: "org_default", Label: "Benchmark", Enabled: true, OwnerID: "user_1",
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
	s, err := store.Open(b.Context(), store.Config{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Initialize(b.Context(), nil, nil); err != nil {
		b.Fatal(err)
	}
	s.Close()
	f := &floor{}
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

func readRows(b *testing.B, db *sql.DB, query string, args ...any) (all [][]any) {
	rows, err := db.QueryContext(b.Context(), query, args...)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		b.Fatal(err)
	}
	for rows.Next() {
		row := make([]any, len(columns))
		into := make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			b.Fatal(err)
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
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
		key, event := tx.StmtContext(ctx, f.key), tx.StmtContext(ctx, f.event)
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
	s := openSQLite(b)
	template, err := s.CreateKey(b.Context(), operator, benchmarkKey)
	if err != nil {
		b.Fatal(err)
	}
	copyKeys(b, s, template, depth+200)
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

// BenchmarkKeyBySecret measures what the verification cache does on a miss
// against a prepared read of the row by the same index.
func BenchmarkKeyBySecret(b *testing.B) {
	s := openSQLite(b)
	k, err := s.CreateKey(b.Context(), operator, benchmarkKey)
	if err != nil {
		b.Fatal(err)
	}
	raw, err := s.Reader().PrepareContext(b.Context(), "SELECT *, (SELECT position FROM revisions) FROM api_keys WHERE secret_hash = ?")
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	var spent, floor time.Duration
	for b.Loop() {
		begin := time.Now()
		if _, _, err := s.KeyBySecret(b.Context(), k.Hashes()); err != nil {
			b.Fatal(err)
		}
		spent += time.Since(begin)
		begin = time.Now()
		rows, err := raw.QueryContext(b.Context(), k.Secret.Hash[:])
		if err != nil || !rows.Next() {
			b.Fatal(err)
		}
		rows.Close()
		floor += time.Since(begin)
	}
	b.ReportMetric(float64(floor)/float64(spent), "x-of-floor")
}

// BenchmarkAddUsage measures a flush of 10,000 counters, which a second must
// hold with room to spare.
func BenchmarkAddUsage(b *testing.B) {
	const keys = 10_000
	s := openSQLite(b)
	template, err := s.CreateKey(b.Context(), operator, benchmarkKey)
	if err != nil {
		b.Fatal(err)
	}
	copyKeys(b, s, template, keys)
	counts := make([]apikey.UsageCount, keys)
	for i := range counts {
		counts[i] = apikey.UsageCount{KeyID: copyID(i), Count: 1, LastUsedAt: time.Now()}
	}
	for b.Loop() {
		if n, err := s.AddUsage(b.Context(), counts); n != keys || err != nil {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/(keys/store.UsageChunk)*1e3, "ms/chunk")
}

// copyID is the id of one of copyKeys.
func copyID(i int) string { return fmt.Sprintf("api_key_%08d", i) }

// copyKeys adds n copies of template with ids before its own, without events.
func copyKeys(tb testing.TB, s *store.Store, template apikey.Key, n int) {
	tb.Helper()
	columns := readRowsOf(tb, s)
	columns = strings.Replace(columns, "id,", "printf('api_key_%08d', i),", 1)
	columns = strings.Replace(columns, "secret_hash,", "randomblob(32),", 1)
	_, err := s.Writer().ExecContext(tb.Context(), `
		WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
		INSERT INTO api_keys SELECT `+columns+` FROM n, api_keys WHERE api_keys.id = ?`, n, template.ID)
	if err != nil {
		tb.Fatal(err)
	}
}

// readRowsOf returns the columns of keys, separated by commas.
func readRowsOf(tb testing.TB, s *store.Store) string {
	tb.Helper()
	var columns string
	err := s.Reader().QueryRowContext(tb.Context(), "SELECT group_concat(name) FROM pragma_table_info('api_keys')").Scan(&columns)
	if err != nil {
		tb.Fatal(err)
	}
	return columns
}
