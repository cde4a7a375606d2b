package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestServerOnPostgres plays a key's life on PostgreSQL over REST, starts again,
// and looks for the database's password in the log.
func TestServerOnPostgres(t *testing.T) {
	database, dir := servertest.NewPostgres(t), t.TempDir()
	onDatabase := func(c *server.Config) { c.Database, c.DataDir = database, dir }
	s := servertest.Start(t, onDatabase)
	var made, rotated struct{ ID, Secret string }
	s.Call(t, http.MethodPost, "/developers/api_keys", `{"label": "A key", "scopes": ["api_keys.read"], "metadata": {"a": "b"}, "quota": {"limit": 10}}`).Into(t, &made)
	s.Call(t, http.MethodPost, "/developers/api_keys/"+made.ID+"/rotate", `{"overlap_seconds": 3600}`).Into(t, &rotated)
	s.Call(t, http.MethodPost, "/developers/webhooks", `{"label": "A webhook", "url": "https://example.com", "events": ["api_key.*"]}`)
	check := func(secret, want string) {
		t.Helper()
		var answer struct{ Code string }
		s.Call(t, http.MethodPost, "/developers/api_keys/verify", `{"key": "`+secret+`"}`).Into(t, &answer)
		if answer.Code != want {
			t.Errorf("verified as %s, want %s", answer.Code, want)
		}
	}
	check(made.Secret, "valid")
	check(rotated.Secret, "valid")

	second := server.Config{
		RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", DataDir: t.TempDir(),
		RootToken: masked.New(servertest.RootToken), Database: database,
	}
	// Without the secrets of the first one no server starts.
	if _, err := server.New(t.Context(), second); err == nil || !strings.Contains(err.Error(), "secrets_file: ") {
		t.Errorf("a server without the secrets: %v", err)
	}
	s.Stop()

	first := s.Log.String()
	s = servertest.Start(t, onDatabase)
	check(rotated.Secret, "valid")
	s.Call(t, http.MethodPost, "/developers/api_keys/"+made.ID+"/revoke", `{}`)
	check(rotated.Secret, "revoked")
	var found struct {
		Metrics struct {
			TotalRequests int64 `json:"total_requests"`
		}
		Quota struct{ Remaining int64 }
	}
	s.Call(t, http.MethodGet, "/developers/api_keys/"+made.ID, "").Into(t, &found)
	if found.Metrics.TotalRequests < 2 || found.Quota.Remaining != 7 {
		t.Errorf("found %+v", found)
	}
	s.Stop()

	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	if password == "" {
		t.Fatal("the test's database has no password")
	}
	if strings.Contains(first+s.Log.String(), password) {
		t.Error("the log shows the password of the database")
	}
}
