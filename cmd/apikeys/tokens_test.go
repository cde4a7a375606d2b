package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestTokenCommands makes, lists, rotates and ends a token beside a running server.
func TestTokenCommands(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(servertest.RootToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	apikeys := func(args ...string) (stdout, stderr string, err error) {
		var out, notes bytes.Buffer
		err = run(t.Context(), append(append([]string{"token"}, args...), "--server", s.Conn.Target(), "--token-file", file), nil, streams{stdout: &out, stderr: &notes})
		return out.String(), notes.String(), err
	}
	secret, notes, err := apikeys("create", "--role", "verifier", "--organizations", "*", "--name", "gateway")
	if err != nil || !apikey.IsToken(strings.TrimSuffix(secret, "\n")) || !strings.Contains(notes, "gateway") || strings.Contains(notes, secret[:20]) {
		t.Fatalf("create: %q %q %v", secret, notes, err)
	}
	list, _, err := apikeys("list")
	head, row, _ := strings.Cut(list, "\n")
	id, rest, _ := strings.Cut(row, " ")
	if err != nil || !strings.HasPrefix(head, "ID ") || len(strings.Fields(rest)) != 7 || !strings.Contains(rest, "gateway") || !strings.Contains(rest, "verifier") {
		t.Fatalf("list: %q %v", list, err)
	}
	rotated, _, err := apikeys("rotate", id)
	if err != nil || rotated == secret || !apikey.IsToken(strings.TrimSuffix(rotated, "\n")) {
		t.Fatalf("rotate: %q %v", rotated, err)
	}
	if out, _, err := apikeys("delete", id); err != nil || out != id+"\n" {
		t.Errorf("delete: %q %v", out, err)
	}
	if list, _, err := apikeys("list"); err != nil || list != "ID  NAME  RIGHTS  ORGANIZATIONS  CREATED  LAST USED  EXPIRES\n" {
		t.Errorf("after the end: %q %v", list, err)
	}
	if out, _, err := apikeys("create", "--scope", "api_keys.read", "--scope", "events.read", "--organizations", "a,b", "--name", "x", "--expires-in", "1d", "-o", "json"); err != nil || !strings.Contains(out, `"organizations":["a","b"]`) {
		t.Errorf("as JSON: %q %v", out, err)
	}
	for want, args := range map[string][]string{
		"--role: must be":                 {"create", "--role", "root", "--organizations", "*"},
		"--organizations is needed":       {"create", "--role", "verifier"},
		"OPERATOR_TOKEN_NOT_FOUND":        {"delete", id},
		"role must not be given together": {"create", "--role", "viewer", "--scope", "events.read", "--organizations", "*"},
	} {
		if _, _, err := apikeys(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", args, err, want)
		}
	}
}

// TestTokenCommandsOfThisMachine has the root token of a first start go to a server on
// this machine, and to no other.
func TestTokenCommandsOfThisMachine(t *testing.T) {
	s := servertest.Start(t)
	t.Chdir(t.TempDir())
	if err := os.Mkdir("data", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("data", "root-token"), []byte(servertest.RootToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		s.Conn.Target(): "", "keys.example.com:9090": "a token is needed", "grpc://192.0.2.1:9090": "a token is needed",
	} {
		err := run(t.Context(), []string{"token", "list", "--server", address}, nil, streams{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}
