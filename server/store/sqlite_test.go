package store_test

import (
	"path/filepath"
	"testing"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var (
	operator = apikey.Origin{Actor: apikey.Actor{Kind: apikey.ActorOperator, ID: "operator_1"}, RequestID: "request_1"}
	peppers  = apikey.NewPeppers([]apikey.NamedKey{{ID: "p_1", Key: []byte("pepper")}})
)

func openSQLite(tb testing.TB) *store.Store {
	tb.Helper()
	s, err := store.Open(tb.Context(), store.Config{Path: filepath.Join(tb.TempDir(), "apikeys.db")})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	if err := s.Initialize(tb.Context(), map[string]string{"database_id": "1"}, nil); err != nil {
		tb.Fatal(err)
	}
	return s
}
