package server_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// rowTables are those whose rows grow with the keys, the changes and the deliveries.
var rowTables = []string{"api_keys", "events", "api_key_usage", "usage_buckets", "deliveries", "delivery_attempts"}

// BenchmarkDisk tells how many bytes a row of each table takes with its indexes, as the
// server has written it: of 500 keys, or as many as APIKEYS_BENCH_DISK says, each made
// and verified once, and of a tenth of them updated, with two webhooks that hear of it.
// Of PostgreSQL it tells the write-ahead log of a creation too.
func BenchmarkDisk(b *testing.B) {
	keys := 500
	if text := os.Getenv("APIKEYS_BENCH_DISK"); text != "" {
		var err error
		if keys, err = strconv.Atoi(text); err != nil || keys < 100 {
			b.Fatal("APIKEYS_BENCH_DISK must be a number of 100 at least")
		}
	}
	b.Run("sqlite", func(b *testing.B) {
		for b.Loop() {
			s := servertest.Start(b, quiet)
			storeRows(b, s, keys, func() {})
			s.Stop()
			report(b, sqliteRows(b, filepath.Join(s.Dir, "apikeys.db")))
		}
	})
	b.Run("postgres", func(b *testing.B) {
		for b.Loop() {
			s := servertest.Start(b, quiet, func(c *server.Config) { c.Database = servertest.NewPostgres(b) })
			db := s.OpenDatabase(b)
			before := scanFloat(b, db, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")
			storeRows(b, s, keys, func() {
				b.ReportMetric((scanFloat(b, db, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")-before)/float64(keys), "WAL-B/create")
			})
			s.Stop()
			report(b, postgresRows(b, db))
			b.ReportMetric(scanFloat(b, db, "SELECT pg_indexes_size('api_keys')::float8 / count(*) FROM api_keys"), "B/api_keys-indexes")
		}
	})
}

// storeRows makes keys, calls created, and makes all other rows.
func storeRows(b *testing.B, s *servertest.Server, keys int, created func()) {
	b.Helper()
	ctx := s.Context(b.Context())
	ids, secrets := make([]string, keys), make([]string, keys)
	run(b, keys, func(i int) error {
		resp, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{
			Label: fmt.Sprintf("Key %d", i), Scopes: []string{"invoices.read", "payments.read"},
			OwnerId: fmt.Sprintf("user_%d", i), Metadata: map[string]string{"team": "billing"},
		})
		ids[i-1], secrets[i-1] = resp.GetApiKey().GetId(), resp.GetApiKey().GetSecret()
		return err
	})
	created()
	const webhooks = 2
	var mu sync.Mutex
	received, all := 0, make(chan struct{})
	receiver := bareReceiver(b, func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if received++; received == webhooks*(keys/10) {
			close(all)
		}
	})
	for range webhooks {
		_, err := apikeysv1.NewWebhooksServiceClient(s.Conn).CreateWebhook(ctx, &apikeysv1.CreateWebhookRequest{
			Label: "Rows", Url: receiver + "/developers/hooks", Events: []string{"api_key.updated"},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	run(b, keys, func(i int) error {
		_, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secrets[i-1]})
		return err
	})
	run(b, keys/10, func(i int) error {
		_, err := s.Keys.UpdateApiKey(ctx, &apikeysv1.UpdateApiKeyRequest{
			Id: ids[i-1], ApiKey: &apikeysv1.ApiKey{Label: fmt.Sprintf("Changed %d", i)},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"label"}},
		})
		return err
	})
	select {
	case <-all:
	case <-time.After(2 * time.Minute):
		b.Fatalf("%d of %d deliveries came", received, webhooks*(keys/10))
	}
}

// report tells the bytes of a row of each table.
func report(b *testing.B, bytes map[string]float64) {
	b.Helper()
	for _, table := range rowTables {
		b.ReportMetric(bytes[table], "B/"+table)
	}
}

// sqliteRows returns the bytes of a row of each table of a database that nobody uses: the
// pages that are free after the table is dropped, and were not before. It empties the
// database.
func sqliteRows(b *testing.B, path string) map[string]float64 {
	b.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	used := func() float64 {
		return scanFloat(b, db, "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size")
	}
	bytes := make(map[string]float64)
	for _, table := range rowTables {
		rows, before := scanFloat(b, db, "SELECT count(*) FROM "+table), used()
		if _, err := db.ExecContext(b.Context(), "DROP TABLE "+table); err != nil {
			b.Fatal(err)
		}
		bytes[table] = (before - used()) / rows
	}
	return bytes
}

// postgresRows returns the bytes of a row of each table.
func postgresRows(b *testing.B, db *sql.DB) map[string]float64 {
	b.Helper()
	bytes := make(map[string]float64)
	for _, table := range rowTables {
		bytes[table] = scanFloat(b, db, "SELECT pg_total_relation_size('"+table+"')::float8 / count(*) FROM "+table)
	}
	return bytes
}

func scanFloat(b *testing.B, db *sql.DB, query string) (value float64) {
	b.Helper()
	if err := db.QueryRowContext(context.WithoutCancel(b.Context()), query).Scan(&value); err != nil {
		b.Fatal(err)
	}
	return value
}
