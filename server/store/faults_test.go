package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// A fault of the storage is told once, stands, and ends when writing works again.
func TestFaultsThatEnd(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name       string
		begin, end string
		want       store.FaultKind
	}{
		{"the disk is full", "PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000", store.FaultFull},
		{"the file is read-only", "PRAGMA query_only = 1", "PRAGMA query_only = 0", store.FaultReadOnly},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			told := 0
			s := openSQLite(t, store.Config{OnFault: func(*store.Fault) { told++ }})
			if err := s.ExecOnWriter(t.Context(), c.begin); err != nil {
				t.Fatal(err)
			}
			failed := 0
			for failed < 3 {
				if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
					failed++
				}
			}
			if f := s.Fault(); f == nil || f.Kind != c.want || told != 1 {
				t.Fatalf("the fault %v, told %d times", f, told)
			}
			// A full disk may still have room for a page that is there.
			if f := s.Retry(t.Context()); f == nil && c.want != store.FaultFull {
				t.Error("the fault has ended by itself")
			}
			if err := s.ExecOnWriter(t.Context(), c.end); err != nil {
				t.Fatal(err)
			}
			if f := s.Retry(t.Context()); f != nil {
				t.Errorf("it stands: %v", f)
			}
			if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
				t.Error(err)
			}
		})
	}
}

// damagedFile returns the path of a database all of whose pages but the first are
// overwritten.
func damagedFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "apikeys.db")
	s, err := store.Open(t.Context(), store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	copy(file[page:], bytes.Repeat([]byte{0xA5}, len(file)-page))
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Damage is found by the check at the start, or else by the first call that meets
// it; it stands until a restart.
func TestDamage(t *testing.T) {
	t.Parallel()
	for name, meet := range map[string]func(*store.Store){
		"by the check": func(s *store.Store) { s.QuickCheck(t.Context()) },
		"by a list":    func(s *store.Store) { _, _, _ = s.Keys(t.Context(), store.KeyFilter{}, "", 10) },
		"by a load":    func(s *store.Store) { _, _, _ = s.KeysBySecret(t.Context(), []apikey.Hash{{}}) },
		"by a change":  func(s *store.Store) { _, _ = s.CreateKey(t.Context(), operator, benchmarkKey) },
	} {
		t.Run(name, func(t *testing.T) {
			told := 0
			s, path := openDamaged(t, &told)
			meet(s)
			meet(s)
			f := s.Fault()
			if f == nil || f.Kind != store.FaultDamaged || told != 1 {
				t.Fatalf("the fault %v, told %d times", f, told)
			}
			if s.Retry(t.Context()) != f {
				t.Error("it has ended")
			}
			if text := f.Error(); !strings.HasPrefix(text, path+" is damaged") || strings.Contains(text, "\n") || !strings.Contains(text, "backup") {
				t.Errorf("for the operator: %s", text)
			}
			if text := f.Public(); text != "The database file apikeys.db is damaged." {
				t.Errorf("for everybody: %s", text)
			}
		})
	}
}

// openDamaged opens a database of which only the revisions can be read, which is
// what opening reads.
func openDamaged(t *testing.T, told *int) (*store.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "apikeys.db")
	s := openAndInitialize(t, store.Config{Path: path, OnFault: func(*store.Fault) { *told++ }})
	for range 50 {
		if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DamageTables(t.Context(), "api_keys"); err != nil {
		t.Fatal(err)
	}
	again, err := store.Open(t.Context(), store.Config{Path: path, OnFault: func(*store.Fault) { *told++ }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	return again, path
}

// A file that is no database, and one that is beyond reading, is one line.
func TestOpenWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "apikeys.db")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"no database": garbage, "damaged": damagedFile(t)} {
		t.Run(name, func(t *testing.T) {
			_, err := store.Open(t.Context(), store.Config{Path: path})
			fault, ok := errors.AsType[*store.Fault](err)
			if !ok || fault.Kind != store.FaultDamaged || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
		})
	}
}
