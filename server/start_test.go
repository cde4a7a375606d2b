package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The log is warned at the start of each file and directory that other users of the
// machine can read or change, with the command that closes it.
func TestOpenFiles(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		name string // under the data directory
		mode os.FileMode
		open []string // those that are warned of
		want os.FileMode
	}{
		"all closed":                       {".", 0o700, nil, 0},
		"a directory that others read":     {".", 0o755, nil, 0},
		"a directory that a group changes": {".", 0o770, []string{"."}, 0o750},
		"a directory that all change":      {".", 0o777, []string{"."}, 0o755},
		// SQLite makes the files beside a database in its mode.
		"a database that a group reads": {"apikeys.db", 0o640, []string{"apikeys.db", "apikeys.db-wal", "apikeys.db-shm"}, 0o600},
		"a database that all read":      {"apikeys.db", 0o604, []string{"apikeys.db", "apikeys.db-wal", "apikeys.db-shm"}, 0o600},
		"a root token that all read":    {"root-token", 0o644, []string{"root-token"}, 0o600},
		"a token file that all read":    {"token", 0o604, []string{"token"}, 0o600},
		"a TLS key that a group reads":  {"key.pem", 0o440, []string{"key.pem"}, 0o400},
		"a certificate, for everybody":  {"cert.pem", 0o644, nil, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			config := Config{DataDir: dir, TLSCert: filepath.Join(dir, "cert.pem"), TLSKey: filepath.Join(dir, "key.pem")}
			cert, key, _ := certificate(t)
			for from, to := range map[string]string{cert: config.TLSCert, key: config.TLSKey} {
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"root-token", "token"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(stopToken), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, stop := runServer(t, config); stop() != nil { // which makes the database
				t.Fatal(stop())
			}
			if err := os.Chmod(filepath.Join(dir, c.name), c.mode); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			config.Logger = slog.New(slog.NewTextHandler(&log, nil))
			config.RootTokenFile = filepath.Join(dir, "token")
			_, stop := runServer(t, config)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(log.String(), "open to other users"); got != len(c.open) {
				t.Errorf("%d warnings, want %d:\n%s", got, len(c.open), log.String())
			}
			for _, file := range c.open {
				path := filepath.Join(dir, file)
				if want := fmt.Sprintf("path=%s mode=%04o remedy=\"chmod %04o %s\"", path, c.mode, c.want, path); !strings.Contains(log.String(), want) {
					t.Errorf("the log lacks %s:\n%s", want, log.String())
				}
			}
		})
	}
}
