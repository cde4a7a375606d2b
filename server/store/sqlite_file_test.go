package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/store"
)

// oddNames are names that mean something to a URI, to SQLite or to a shell.
var oddNames = []string{
	"apikeys.db", "a b.db", "a?mode=memory", "a#b", "100%", "a%20b", "a%3Fb", "a&b=c", "a+b", "é鍵", ":memory:", "file:x", "a;b'\"", "~", "*",
}

func TestOddPaths(t *testing.T) {
	for _, name := range oddNames {
		t.Run(name, func(t *testing.T) {
			for _, relative := range []bool{false, true} {
				root := t.TempDir()
				path := filepath.Join(root, "in a #folder? of 100%", name)
				if relative {
					t.Chdir(root)
					path = filepath.Join("in a #folder? of 100%", name)
				}
				s := openAndInitialize(t, store.Config{Path: path})
				if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
					t.Fatal(err)
				}
				keys, _, err := s.Keys(t.Context(), store.KeyFilter{}, "", 10)
				if err != nil || len(keys) != 1 {
					t.Errorf("%d keys, %v", len(keys), err)
				}
				// The file and its companions are where they were asked for, and
				// nothing is anywhere else.
				var found []string
				filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
					if err == nil && !d.IsDir() {
						found = append(found, filepath.Base(path))
					}
					return err
				})
				wantSame(t, "files", []string{name, name + "-shm", name + "-wal"}, found)
			}
		})
	}
	s := openAndInitialize(t, store.Config{Path: "//" + filepath.Join(t.TempDir(), "apikeys.db")})
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFileModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	path := filepath.Join(dir, "apikeys.db")
	s := openAndInitialize(t, store.Config{Path: path})
	if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{dir: 0o700, path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.db")
	if err := os.WriteFile(junk, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"no path": "", "a folder": dir, "below a file": filepath.Join(junk, "a.db"), "not a database": junk, "NUL": "a\x00b",
	} {
		if s, err := store.Open(t.Context(), store.Config{Path: path}); err == nil {
			s.Close()
			t.Errorf("%s was opened", name)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Open(cancelled, store.Config{Path: filepath.Join(dir, "late.db")}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestOpenAfterKill opens a file that a program left in the midst of a transaction that
// was made without a write-ahead log, as the first one of a new file is.
func TestOpenAfterKill(t *testing.T) {
	dir := t.TempDir()
	live, left := filepath.Join(dir, "live.db"), filepath.Join(dir, "left.db")
	db, err := sql.Open("sqlite3", "file:"+live+"?_journal_mode=DELETE&_cache_size=2")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	execAll := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := db.ExecContext(t.Context(), s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
	// More than the cache holds goes to the file before the end of the transaction.
	const many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT zeroblob(1000) FROM n"
	execAll("CREATE TABLE t (b)", many, "BEGIN", "DROP TABLE t", "CREATE TABLE t (b)", many)
	for _, end := range []string{"", "-journal"} {
		data, err := os.ReadFile(live + end)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(left+end, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What was committed is another program's, and what was not is gone.
	_, err = store.Open(t.Context(), store.Config{Path: left, Logger: quiet})
	if err == nil || !strings.Contains(err.Error(), "holds tables of another program") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(left + "-journal"); !os.IsNotExist(err) {
		t.Errorf("the journal is still there: %v", err)
	}
}

// TestOpenOthersFile leaves a database of another program as it is.
func TestOpenOthersFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "others.db")
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE users (id int)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{Path: path})
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), path+" holds tables of another program") {
		t.Errorf("opened: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the file has changed, %v", err)
	}
	if left, _ := filepath.Glob(path + "-*"); left != nil {
		t.Errorf("opening left %v", left)
	}
}

// TestSettingsOfConnections holds what the promises of durability rest on.
func TestSettingsOfConnections(t *testing.T) {
	s := openSQLite(t, store.Config{})
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "5000"} {
		var got string
		if err := s.Writer().QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v", pragma, got, err)
		}
	}
	if _, err := s.Reader().ExecContext(t.Context(), "DELETE FROM settings"); err == nil {
		t.Error("a reader wrote")
	}
	if n := s.Writer().Stats().MaxOpenConnections; n != 1 {
		t.Errorf("%d writers", n)
	}
}

// TestCloseUnderReads closes while connections are read from: one file is left, whole by
// itself.
func TestCloseUnderReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apikeys.db")
	for range 20 {
		s := openAndInitialize(t, store.Config{Path: path})
		if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
			t.Fatal(err)
		}
		conn, err := s.Reader().Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan error)
		go func() { closed <- s.Close() }()
		for s.Reader().PingContext(t.Context()) == nil { // It takes none any more once it is closed.
			runtime.Gosched()
		}
		if err := errors.Join(conn.Close(), <-closed); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(path + "-*"); left != nil {
			t.Fatalf("closing left %v", left)
		}
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apikeys.db")
	open := func() *store.Store { return openAndInitialize(t, store.Config{Path: path}) }
	s := open()
	k, err := s.CreateKey(t.Context(), operator, benchmarkKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(path + "-*"); left != nil {
		t.Errorf("closing left %v", left)
	}
	s = open()
	got, position, err := s.KeyBySecret(t.Context(), k.Hashes())
	if err != nil || position != 1 {
		t.Errorf("at %d, %v", position, err)
	}
	wantSame(t, "key", k, got)

	// A second process may look on and change tokens while the first is open.
	beside, err := store.Open(t.Context(), store.Config{Path: path, Existing: true})
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	if err := beside.ReplaceRootTokens(t.Context(), keyring.OperatorToken{ID: "operator_1", PepperID: "p_1"}); err != nil {
		t.Error(err)
	}
	if tokens, err := s.RootTokens(t.Context()); err != nil || len(tokens) != 1 {
		t.Errorf("%d tokens, %v", len(tokens), err)
	}
}

func TestOpenExisting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apikeys.db")
	existing := store.Config{Path: path, Existing: true}
	if _, err := store.Open(t.Context(), existing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing one: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), existing); err == nil || !strings.Contains(err.Error(), "earlier version") {
		t.Errorf("an empty one: %v", err)
	}
	openAndInitialize(t, store.Config{Path: path})
	s, err := store.Open(t.Context(), existing)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestOpenTogether opens one new database many times at once: one migrates, the
// others find it done.
func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apikeys.db")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := store.Open(t.Context(), store.Config{Path: path})
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	wg.Wait()
}

// TestUnknownSchemaIsRefused opens databases that other versions made: a later
// one, and one of before the first release.
func TestUnknownSchemaIsRefused(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"29990101000000": "the database was made by a later version of apikeys (schema 29990101000000), which this version cannot read; run that version or a later one",
		"20261121081408": "the database was made by a version of apikeys from before the first release (schema 20261121081408), " +
			"which this version cannot read; start with a new database and a new secrets file",
	} {
		path := filepath.Join(t.TempDir(), "apikeys.db")
		s := openAndInitialize(t, store.Config{Path: path})
		_, err := s.Writer().ExecContext(t.Context(),
			"DELETE FROM schema_revisions WHERE version > (SELECT min(version) FROM schema_revisions);"+
				"UPDATE schema_revisions SET version = ?, revision = replace(revision, version, ?)", version, version)
		if err != nil {
			t.Fatal(err)
		}
		for _, existing := range []bool{false, true} {
			_, err := store.Open(t.Context(), store.Config{Path: path, Existing: existing})
			if err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
	}
}

// TestMigrationIsWhole fails after the last statement of the migrations: nothing
// of them is left, and the next start makes all of it.
func TestMigrationIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apikeys.db")
	db, err := sql.Open("sqlite3", "file:"+path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := store.MigrateAndDie(t.Context(), db); err == nil || err.Error() != "died" {
		t.Fatal(err)
	}
	if left := readRows(t, db, "SELECT name FROM sqlite_schema"); len(left) != 0 {
		t.Errorf("a migration that died left %v", left)
	}
	s := openAndInitialize(t, store.Config{Path: path})
	if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
		t.Error(err)
	}
}

// TestDefaults opens a store with nothing but a path.
func TestDefaults(t *testing.T) {
	s := openSQLite(t, store.Config{})
	begin := time.Now().Add(-time.Second)
	k, err := s.CreateKey(t.Context(), operator, benchmarkKey)
	if err != nil || k.CreatedAt.Before(begin) || !apikey.IsID(apikey.IDPrefix, k.ID) {
		t.Errorf("created %+v, %v", k, err)
	}
}

func TestFileSizes(t *testing.T) {
	t.Parallel()
	s := openSQLite(t, store.Config{})
	database, wal, err := s.FileSizes()
	if err != nil || database <= 0 || wal < 0 {
		t.Errorf("got %d, %d, %v", database, wal, err)
	}
}
