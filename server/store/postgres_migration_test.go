package store_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/apikeys-dev/apikeys/server/store"
)

// TestMigrationWaitsForLock migrates while another program's transaction has read a
// table: the migration is tried again until that transaction is over, and whoever reads
// meanwhile does not wait behind it.
func TestMigrationWaitsForLock(t *testing.T) {
	c := databases["PostgreSQL"](t)
	versions, err := store.MigrationVersions(c)
	if err != nil {
		t.Fatal(err)
	}
	before, err := store.WithMigrationsUpTo(c, versions[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := opened(t, before); err != nil {
		t.Fatal(err)
	}
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), c.Postgres.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(t.Context()) })
		return conn
	}
	other, reader := connect(), connect()
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRow(t.Context(), "SELECT count(*) FROM api_keys").Scan(&n); err != nil {
		t.Fatal(err)
	}
	told := make(lineChannel, 16)
	c.Logger = slog.New(slog.NewTextHandler(told, nil))
	done := make(chan error, 1)
	go func() { done <- opened(t, c) }()
	for line := range told {
		if strings.Contains(line, "cannot be migrated yet") {
			break
		}
	}
	if err := reader.QueryRow(t.Context(), "SELECT count(*) FROM api_keys").Scan(&n); err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		t.Fatalf("migrated under another transaction's lock: %v", err)
	default:
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// lineChannel is a log whose lines are read as they come; those that nobody reads are
// dropped.
type lineChannel chan string

func (c lineChannel) Write(p []byte) (int, error) {
	select {
	case c <- string(p):
	default:
	}
	return len(p), nil
}
