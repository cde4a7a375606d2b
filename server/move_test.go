package server_test

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestMove moves a server from SQLite to PostgreSQL and back: its secrets verify, a
// cursor that a client holds goes on, and no server starts on what was left.
func TestMove(t *testing.T) {
	dir, postgres := t.TempDir(), servertest.NewPostgres(t)
	file, back := "sqlite:"+filepath.Join(dir, "apikeys.db"), "sqlite:"+filepath.Join(dir, "back.db")
	start := func(database string) *servertest.Server {
		return servertest.Start(t, func(c *server.Config) { c.DataDir, c.Database = dir, database })
	}
	move := func(from, to string) error {
		_, err := server.Move(t.Context(), server.MoveConfig{From: from, To: to})
		return err
	}
	s := start(file)
	var made struct{ ID, Secret string }
	s.Call(t, http.MethodPost, "/developers/api_keys", `{"label": "A key", "scopes": ["api_keys.read"]}`).Into(t, &made)
	var events []struct{ ID, Cursor string }
	s.Call(t, http.MethodGet, "/developers/events?after=start", "").Into(t, &events)
	cursor, last := events[len(events)-1].Cursor, ""
	wantOneLine(t, move(file, postgres), "from: ", "is in use by another server")
	s.Stop()

	for _, step := range [][2]string{{file, postgres}, {postgres, back}} {
		if err := move(step[0], step[1]); err != nil {
			t.Fatal(err)
		}
		_, err := server.New(t.Context(), server.Config{
			RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", DataDir: dir, RootToken: masked.New(servertest.RootToken), Database: step[0],
		})
		wantOneLine(t, err, "was moved to the", "--force")
		s := start(step[1])
		var answer struct{ Code string }
		s.Call(t, http.MethodPost, "/developers/api_keys/verify", `{"key": "`+made.Secret+`"}`).Into(t, &answer)
		if answer.Code != "valid" {
			t.Errorf("verified as %s after the move to %s", answer.Code, step[1])
		}
		s.Call(t, http.MethodPatch, "/developers/api_keys/"+made.ID, `{"label": "after a move to `+step[1][:6]+`"}`)
		s.Call(t, http.MethodGet, "/developers/events?after="+url.QueryEscape(cursor), "").Into(t, &events)
		if len(events) != 1 || events[0].ID == last {
			t.Fatalf("after the cursor: %+v", events)
		}
		cursor, last = events[0].Cursor, events[0].ID
		if step[1] == postgres {
			wantOneLine(t, move(postgres, back), "from: ", "is in use by a server")
		}
		s.Stop()
	}
	forced := servertest.Start(t, func(c *server.Config) { c.DataDir, c.Database, c.Force = dir, file, true })
	if !strings.Contains(forced.Log.String(), "was moved") {
		t.Error("the log does not tell that the start was forced")
	}
}

// TestMoveRefused says what is wrong with the databases of a move, in one line and
// without a password.
func TestMoveRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := "sqlite:" + filepath.Join(dir, "apikeys.db")
	for name, c := range map[string]struct {
		config server.MoveConfig
		words  []string
	}{
		"no database":         {server.MoveConfig{To: file}, []string{"from: must be sqlite:<path>"}},
		"a malformed one":     {server.MoveConfig{From: file, To: "postgres://u:hunter2@h:port/d"}, []string{"to: must be postgres://"}},
		"PgBouncer":           {server.MoveConfig{From: file, To: "postgres://u:hunter2@h/d?pgbouncer=true"}, []string{"to: must not lead through PgBouncer"}},
		"a file and password": {server.MoveConfig{From: file, To: file, ToPasswordFile: "x"}, []string{"to_password_file: "}},
		"itself":              {server.MoveConfig{From: file, To: file}, []string{"to: must be another database"}},
		"itself by a detour":  {server.MoveConfig{From: file, To: "sqlite:" + dir + "/./apikeys.db"}, []string{"to: must be another database"}},
		"none there":          {server.MoveConfig{From: file, To: "sqlite:" + dir + "/b.db"}, []string{"from: there is no database at"}},
		"unreachable": {server.MoveConfig{From: "postgres://u:hunter2@127.0.0.1:1/d", To: file},
			[]string{"from: the PostgreSQL database d at 127.0.0.1:1 cannot be reached"}},
	} {
		_, err := server.Move(t.Context(), c.config)
		if err == nil {
			t.Errorf("%s: moved", name)
			continue
		}
		wantOneLine(t, err, c.words...)
	}
}

// wantOneLine says that an error is one line with all words and no password.
func wantOneLine(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", words)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got %v, want %q in it", err, word)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("of several lines, or with a password: %v", err)
	}
}
