package main

import (
	"bytes"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestMigrateProgress tells of a move in one line that is written anew on a terminal,
// and in a line every few seconds elsewhere.
func TestMigrateProgress(t *testing.T) {
	t.Parallel()
	for terminal, want := range map[bool]string{
		false: "copied 50 of 100 rows (50 %), events, 5s\ncopied 100 of 100 rows (100 %), events, 10s\ncompared 100 of 100 rows (100 %), events, 10s\n",
		true: "\r\x1b[Kcopied 10 of 100 rows (10 %), events, 1s\r\x1b[Kcopied 20 of 100 rows (20 %), events, 2s\r\x1b[Kcopied 30 of 100 rows (30 %), events, 3s" +
			"\r\x1b[Kcopied 40 of 100 rows (40 %), events, 4s\r\x1b[Kcopied 50 of 100 rows (50 %), events, 5s\r\x1b[Kcopied 60 of 100 rows (60 %), events, 6s" +
			"\r\x1b[Kcopied 70 of 100 rows (70 %), events, 7s\r\x1b[Kcopied 80 of 100 rows (80 %), events, 8s\r\x1b[Kcopied 90 of 100 rows (90 %), events, 9s" +
			"\r\x1b[Kcopied 100 of 100 rows (100 %), events, 10s\r\x1b[Kcompared 100 of 100 rows (100 %), events, 10s\n",
	} {
		var out bytes.Buffer
		now := time.Unix(0, 0)
		l := &progressLine{out: &out, terminal: terminal, now: func() time.Time { return now }}
		for rows := range 11 {
			now = time.Unix(int64(rows), 0)
			l.show(server.MoveProgress{Table: "events", Rows: int64(10 * rows), Total: 100})
			l.show(server.MoveProgress{Table: "events", Rows: int64(10*rows - 1), Total: 100}) // too soon after it
		}
		l.show(server.MoveProgress{Comparing: true, Table: "events", Rows: 100, Total: 100})
		l.end()
		if out.String() != want {
			t.Errorf("on a terminal %t:\n%q, want\n%q", terminal, out.String(), want)
		}
	}
}

// TestMigrateRefusesPasswords keeps passwords out of the arguments of the process.
func TestMigrateRefusesPasswords(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--from", "postgres://u:hunter2@h/d", "--to", "sqlite:a.db"},
		{"--from", "sqlite:a.db", "--to", "postgres://h/d?password=hunter2"},
	} {
		var stdout, stderr bytes.Buffer
		err := run(t.Context(), append([]string{"migrate"}, args...), nil, streams{stdout: &stdout, stderr: &stderr})
		if exitCode(err) != 2 || !strings.Contains(err.Error(), "password-file") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// TestKillMigrate kills a move again and again, each time a little later, until it ends
// before that: the keys of the source verify in the target.
func TestKillMigrate(t *testing.T) {
	targets := map[string]func(t *testing.T, dir string) string{
		"SQLite":     func(_ *testing.T, dir string) string { return "sqlite:" + filepath.Join(dir, "target.db") },
		"PostgreSQL": func(t *testing.T, _ string) string { return servertest.NewPostgres(t) },
	}
	for name, target := range targets {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			from, to := "sqlite:"+filepath.Join(dir, "apikeys.db"), target(t, dir)
			ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+crashToken)
			p := startProcess(t, dir)
			secrets := make([]string, 300)
			for i := range secrets {
				made, err := p.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "A key"})
				if err != nil {
					t.Fatal(err)
				}
				secrets[i] = made.GetApiKey().GetSecret()
			}
			p.kill(t)

			args := []string{"migrate", "--from", from, "--to", withoutPassword(t, dir, to)}
			if strings.HasPrefix(to, "postgres") {
				args = append(args, "--to-password-file", filepath.Join(dir, "password"))
			}
			kills := 0
			for delay := 5 * time.Millisecond; ; delay += delay / 4 {
				cmd := exec.Command(os.Args[0], args...)
				cmd.Env = append(os.Environ(), runMain+"=1")
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
				err := cmd.Wait()
				timer.Stop()
				if err == nil {
					break
				}
				if cmd.ProcessState.ExitCode() >= 0 { // It ended by itself.
					t.Fatalf("%v: %s", err, stderr.String())
				}
				kills++
			}
			t.Logf("killed %d times", kills)
			s := servertest.Start(t, func(c *server.Config) { c.DataDir, c.Database = dir, to })
			for _, secret := range secrets {
				answer, err := s.Keys.VerifyApiKey(s.Context(t.Context()), &apikeysv1.VerifyApiKeyRequest{Key: secret})
				if err != nil || !answer.GetValid() {
					t.Fatalf("a key of the source: %v, %v", answer.GetCode(), err)
				}
			}
		})
	}
}

// withoutPassword returns the URL of a database without its password, which it writes
// to a file.
func withoutPassword(t *testing.T, dir, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	password, ok := u.User.Password()
	if !ok {
		return database
	}
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	u.User = url.User(u.User.Username())
	return u.String()
}
