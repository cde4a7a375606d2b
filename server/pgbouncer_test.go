package server_test

import (
	"net/http"
	"net/url"
	"os"
	"testing"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/testenv"
)

// TestServerBehindPgBouncer plays a key's life on two servers of one database through
// PgBouncer in transaction mode, which lends each transaction another session: what
// needs a session goes around it.
func TestServerBehindPgBouncer(t *testing.T) {
	pooler := os.Getenv("APIKEYS_TEST_PGBOUNCER")
	if pooler == "" {
		testenv.Missing(t, "APIKEYS_TEST_PGBOUNCER names no PgBouncer; run the test by: bash .ci/postgres bash .ci/pgbouncer go test ./server")
	}
	direct, dir := servertest.NewPostgres(t), t.TempDir()
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	u.Host, u.RawQuery = pooler, "sslmode=disable&pgbouncer=true"
	pooled := func(c *server.Config) { c.DataDir, c.Database, c.DatabaseDirect = dir, u.String(), direct }
	one, two := servertest.Start(t, pooled), servertest.Start(t, pooled)
	for range 10 { // more than the pool has sessions
		var made struct{ ID, Secret string }
		one.Call(t, http.MethodPost, "/developers/api_keys", `{"label": "A key", "scopes": ["api_keys.read"], "quota": {"limit": 5}}`).Into(t, &made)
		check := func(want string) {
			t.Helper()
			var answer struct{ Code string }
			two.Call(t, http.MethodPost, "/developers/api_keys/verify", `{"key": "`+made.Secret+`"}`).Into(t, &answer)
			if answer.Code != want {
				t.Errorf("verified as %s, want %s", answer.Code, want)
			}
		}
		check("valid")
		two.Call(t, http.MethodPost, "/developers/api_keys/"+made.ID+"/revoke", `{}`)
		check("revoked")
	}
	var events []struct{ Type string }
	two.Call(t, http.MethodGet, "/developers/events?after=start", "").Into(t, &events)
	if len(events) != 20 {
		t.Errorf("%d events", len(events))
	}
	_, err = server.Move(t.Context(), server.MoveConfig{From: direct, To: "sqlite:" + dir + "/target.db"})
	wantOneLine(t, err, "is in use by a server")
}
