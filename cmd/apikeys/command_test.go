package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// A harness runs commands against a server, as one person does.
type harness struct {
	t   *testing.T
	s   *servertest.Server
	dir string
	env []string
	// streams are those of the commands, but for what they write to.
	streams
}

func newHarness(t *testing.T, change ...func(*server.Config)) *harness {
	s := servertest.Start(t, change...)
	dir := t.TempDir()
	return &harness{t: t, s: s, dir: dir, env: []string{
		"APIKEYS_ADDRESS=" + s.Conn.Target(), "APIKEYS_TOKEN=" + servertest.RootToken,
		"XDG_CONFIG_HOME=" + filepath.Join(dir, "config"), "XDG_STATE_HOME=" + filepath.Join(dir, "state"),
	}}
}

// with returns a harness with further variables, which win.
func (h *harness) with(env ...string) *harness {
	again := *h
	again.env = append(append([]string(nil), h.env...), env...)
	return &again
}

// try runs a command.
func (h *harness) try(args ...string) (stdout, stderr string, err error) {
	h.t.Helper()
	var out, notes bytes.Buffer
	streams := h.streams
	streams.stdout, streams.stderr = &out, &notes
	err = run(h.t.Context(), args, h.env, streams)
	if err != nil {
		report(&notes, err)
	}
	return out.String(), notes.String(), err
}

// run runs a command that goes well, and returns its output.
func (h *harness) run(args ...string) string {
	h.t.Helper()
	stdout, stderr, err := h.try(args...)
	if err != nil {
		h.t.Fatalf("apikeys %s: %s", strings.Join(args, " "), stderr)
	}
	return stdout
}

// fail runs a command that ends with a code, and returns what it complains of.
func (h *harness) fail(code int, args ...string) string {
	h.t.Helper()
	stdout, stderr, err := h.try(args...)
	if got := exitCode(err); got != code {
		h.t.Fatalf("apikeys %s ended with %d, want %d: %s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stderr
}

// stdin returns a harness whose commands read a text.
func (h *harness) stdin(text string) *harness {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), "stdin")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { f.Close() })
	again := *h
	again.streams.stdin = f
	return &again
}

// rest returns what REST has in data, to the byte.
func (h *harness) rest(method, path, body string, headers ...string) string {
	h.t.Helper()
	answer := h.s.Call(h.t, method, path, body, headers...)
	if answer.Status != 200 {
		h.t.Fatalf("%s %s: %s", method, path, answer.Body)
	}
	return string(answer.Envelope.Data) + "\n"
}
