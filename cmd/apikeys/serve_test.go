package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// serving is a running `apikeys serve`.
type serving struct {
	base string // of REST
	stop context.CancelFunc
	done chan error
}

// startServing runs serve with a new data directory and returns once its first
// notice is out.
func startServing(t *testing.T, args ...string) *serving {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	read, write := io.Pipe()
	s := &serving{stop: cancel, done: make(chan error, 1)}
	args = append([]string{"serve", "--rest-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0"}, args...)
	go func() {
		err := run(ctx, args, nil, streams{stdout: write, stderr: t.Output()})
		write.Close()
		s.done <- err
	}()
	lines := bufio.NewScanner(read)
	for lines.Scan() {
		if found := regexp.MustCompile(`REST at (http://[0-9.:]+)`).FindStringSubmatch(lines.Text()); found != nil {
			s.base = found[1]
			go io.Copy(io.Discard, read)
			return s
		}
	}
	t.Fatalf("it ended without a notice: %v", <-s.done)
	return nil
}

// get returns the status of a GET with a token, if there is one.
func (s *serving) get(t *testing.T, path, token string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

// failServing returns what is reported of a serve that cannot start.
func failServing(t *testing.T, args ...string) string {
	t.Helper()
	// It should fail at once; if it starts, it is asked to stop.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var stdout, reported bytes.Buffer
	err := run(ctx, append([]string{"serve"}, args...), nil, streams{stdout: &stdout, stderr: t.Output()})
	if err == nil {
		t.Fatal("it started")
	}
	if code := exitCode(err); code != 1 {
		t.Errorf("exit code %d", code)
	}
	report(&reported, err)
	if strings.Count(reported.String(), "\n") != 1 {
		t.Errorf("more than a line: %s", reported.String())
	}
	return reported.String()
}

func TestServe(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	s := startServing(t, "--data-dir", data)

	for _, path := range []string{"/healthz", "/readyz"} {
		if code := s.get(t, path, ""); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}
	token, err := os.ReadFile(filepath.Join(data, "root-token"))
	if err != nil {
		t.Fatal(err)
	}
	if code := s.get(t, "/developers/api_keys", strings.TrimSpace(string(token))); code != http.StatusOK {
		t.Errorf("with the root token: %d", code)
	}

	if got := failServing(t, "--data-dir", data, "--rest-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0"); !strings.Contains(got, "in use by another server") {
		t.Errorf("a second server on the same data: %s", got)
	}
	addr := strings.TrimPrefix(s.base, "http://")
	if got := failServing(t, "--data-dir", t.TempDir(), "--rest-addr", addr); !strings.Contains(got, addr+" is in use") || !strings.Contains(got, "--rest-addr") {
		t.Errorf("a second server on the same port: %s", got)
	}

	s.stop()
	if err := <-s.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}

func TestServeThatCannotStart(t *testing.T) {
	t.Parallel()
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "apikeys.db"), []byte("this is no database, however long it may be"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name string
		args []string
		want string
	}{
		{"a faulty setting", []string{"--env=prod"}, `apikeys: env: must be development or production, not "prod"`},
		{"production off loopback", []string{"--env=production", "--rest-addr=:0", "--grpc-addr=127.0.0.1:0"}, `production needs TLS`},
		{"no database", []string{"--data-dir", broken, "--rest-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0"}, `apikeys.db`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"--data-dir", t.TempDir()}, c.args...)
			if got := failServing(t, args...); !strings.Contains(got, c.want) {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestTokenReset(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	s := startServing(t, "--data-dir", data)
	s.stop()
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, "root-token")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	out := streams{stdout: &stdout, stderr: t.Output()}
	if err := run(t.Context(), []string{"token", "reset", "--data-dir", data}, nil, out); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(before, after) {
		t.Error("the file holds the old token")
	}
	if stdout.String() != path+"\n" {
		t.Errorf("told %q", stdout.String())
	}

	stdout.Reset()
	out.terminal = true
	if err := run(t.Context(), []string{"token", "reset", "--data-dir", data}, nil, out); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, after) {
		t.Errorf("on a terminal the file changed, %v", err)
	}
}
