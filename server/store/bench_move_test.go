package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
)

// BenchmarkMove moves keys, each with an event and a counter, from SQLite to PostgreSQL
// and back. There are 10,000, or as many as APIKEYS_TEST_MOVE_KEYS says:
//
//	APIKEYS_TEST_MOVE_KEYS=1000000 bash .ci/postgres go test ./server/store -run '^$' -bench Move -benchtime 1x
func BenchmarkMove(b *testing.B) {
	keys := 10_000
	if text := os.Getenv("APIKEYS_TEST_MOVE_KEYS"); text != "" {
		var err error
		if keys, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	server := postgresServer(b)
	file := store.Config{Path: filepath.Join(b.TempDir(), "apikeys.db"), Logger: quiet}
	s, err := store.Open(b.Context(), file)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Initialize(b.Context(), map[string]string{"database_id": "1"}, nil); err != nil {
		b.Fatal(err)
	}
	if _, err := s.CreateKey(b.Context(), operator, benchmarkKey); err != nil {
		b.Fatal(err)
	}
	for _, statement := range copiesOfKeys(b, s, keys) {
		if err := s.ExecOnWriter(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	took := make(map[string]time.Duration)
	rounds := 0
	for b.Loop() {
		rounds++
		middle := store.Config{Postgres: masked.New(server.create(b, "", nil)), Logger: quiet}
		back := store.Config{Path: filepath.Join(b.TempDir(), fmt.Sprintf("back_%d.db", rounds)), Logger: quiet}
		for name, pair := range []struct{ from, to store.Config }{{file, middle}, {middle, back}} {
			began := time.Now()
			moved, err := store.Move(b.Context(), store.MoveConfig{From: pair.from, To: pair.to})
			if err != nil {
				b.Fatal(err)
			}
			if moved.Rows["api_keys"] != int64(keys)+1 {
				b.Fatalf("moved %v", moved.Rows)
			}
			took[[]string{"to-postgres", "to-sqlite"}[name]] += time.Since(began)
		}
		file.Force = true // The next round moves the file once more.
		if err := opened(b, file); err != nil {
			b.Fatal(err)
		}
		file.Force = false
	}
	for name, d := range took {
		b.ReportMetric(float64(keys*rounds)/d.Seconds(), name+"-keys/s")
	}
}

// copiesOfKeys returns statements that copy the one key of s, with its event and a
// counter each.
func copiesOfKeys(b *testing.B, s *store.Store, n int) []string {
	b.Helper()
	var columns string
	err := s.Reader().QueryRowContext(b.Context(),
		"SELECT group_concat('k.\"' || name || '\"', ', ') FROM pragma_table_info('api_keys') WHERE name NOT IN ('id', 'secret_hash', 'edge_hash')").Scan(&columns)
	if err != nil {
		b.Fatal(err)
	}
	series := fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", n+1)
	return []string{
		series + "INSERT INTO api_keys (id, secret_hash, edge_hash, " + columnNames(columns) + ") SELECT printf('api_key_018f0000-0000-7000-8000-%012x', i), randomblob(32), randomblob(32), " + columns + " FROM n, (SELECT * FROM api_keys LIMIT 1) AS k",
		series + "INSERT INTO events (id, event_id, organization_id, type, resource_id, changes, actor_kind, actor_id, request_id, created_at, payload) " +
			"SELECT i, event_id, organization_id, type, printf('api_key_018f0000-0000-7000-8000-%012x', i), changes, actor_kind, actor_id, request_id, created_at, payload FROM n, (SELECT * FROM events LIMIT 1)",
		series + "INSERT INTO api_key_usage (id, total_requests, last_used_at) SELECT printf('api_key_018f0000-0000-7000-8000-%012x', i), i, 1700000000000000 FROM n",
		fmt.Sprintf("UPDATE revisions SET position = %d", n+1),
	}
}

// columnNames returns a list of columns without the name of their table.
func columnNames(columns string) string { return strings.ReplaceAll(columns, "k.", "") }
