package store_test

import (
	"path/filepath"
	"testing"

	"github.com/apikeys-dev/apikeys/server/store"
)

func TestSQLite(t *testing.T) {
	t.Parallel()
	suite(t, openSQLite)
}

// openSQLite opens a new, initialized database.
func openSQLite(tb testing.TB, c store.Config) *store.Store {
	tb.Helper()
	c.Path = filepath.Join(tb.TempDir(), "apikeys.db")
	return openAndInitialize(tb, c)
}
