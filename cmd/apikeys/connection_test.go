package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/masked"
)

func secretOf(text string) secretText { return secretText{masked.New(text)} }

// parseClient returns what `apikeys events list` is told of its connection, and the
// places that it is from.
func parseClient(t *testing.T, args, env []string) (clientSettings, *sources, error) {
	t.Helper()
	var commands commandLine
	parsed, err := commands.parse(t.Context(), append([]string{"events", "list"}, args...), env, streams{})
	if err != nil {
		return clientSettings{}, nil, err
	}
	var from *sources
	if _, err := parsed.Call(func(s *sources) { from = s }); err != nil {
		t.Fatal(err)
	}
	return commands.Events.List.clientSettings, from, err
}

// writeContexts returns the environment of a user with these contexts.
func writeContexts(t *testing.T, text string, mode os.FileMode) []string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "apikeys"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "apikeys", "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return []string{"XDG_CONFIG_HOME=" + dir}
}

func TestWhereAConnectionIsSet(t *testing.T) {
	t.Parallel()
	const file = `
current: local
contexts:
  local: {address: "10.0.0.1:1", token_file: /run/local, organization: org_a}
  production: {address: "grpcs://keys.example.com", token_file: /run/token, ca_file: /run/ca, tls: true}
  empty:
  stored: {address: "10.0.0.2:1", credential: file}
`
	with := func(change func(*clientSettings)) clientSettings {
		s := clientSettings{Address: "127.0.0.1:9090"}
		change(&s)
		return s
	}
	cases := []struct {
		name string
		args []string
		env  []string
		want clientSettings
	}{
		{"the current context", nil, nil, with(func(s *clientSettings) {
			s.Address, s.TokenFile, s.Organization = "10.0.0.1:1", "/run/local", "org_a"
		})},
		{"a context by flag", []string{"--context=production"}, nil, with(func(s *clientSettings) {
			s.Context, s.Address, s.TokenFile, s.CAFile, s.TLS = "production", "grpcs://keys.example.com", "/run/token", "/run/ca", true
		})},
		{"a context by environment", nil, []string{"APIKEYS_CONTEXT=empty"}, with(func(s *clientSettings) { s.Context = "empty" })},
		{"the names of before", []string{"--server=b:1"}, []string{"APIKEYS_PROFILE=empty"}, with(func(s *clientSettings) { s.Context, s.Address = "empty", "b:1" })},
		{"a context by flag over one by environment", []string{"--context=empty"}, []string{"APIKEYS_CONTEXT=production"}, with(func(s *clientSettings) { s.Context = "empty" })},
		{"environment over context", nil, []string{"APIKEYS_ORGANIZATION=*"}, with(func(s *clientSettings) {
			s.Address, s.TokenFile, s.Organization = "10.0.0.1:1", "/run/local", "*"
		})},
		{"no token for another server", nil, []string{"APIKEYS_SERVER=a:1"}, with(func(s *clientSettings) {
			s.Address, s.Organization = "a:1", "org_a"
		})},
		{"flag over all", []string{"--address=b:1"}, []string{"APIKEYS_ADDRESS=a:1", "APIKEYS_CONTEXT=empty"}, with(func(s *clientSettings) {
			s.Context, s.Address = "empty", "b:1"
		})},
		{"a token file hides the context's", []string{"--token-file=/f"}, nil, with(func(s *clientSettings) {
			s.Address, s.TokenFile, s.Organization = "10.0.0.1:1", "/f", "org_a"
		})},
		{"a token of the environment hides the context's file", nil, []string{"APIKEYS_TOKEN=t", "APIKEYS_CONTEXT=production"}, with(func(s *clientSettings) {
			s.Context, s.Address, s.Token, s.CAFile, s.TLS = "production", "grpcs://keys.example.com", secretOf("t"), "/run/ca", true
		})},
		{"a context by flag hides the environment", []string{"--context=production"}, []string{"APIKEYS_TOKEN=t", "APIKEYS_ADDRESS=a:1", "APIKEYS_ORGANIZATION=b"}, with(func(s *clientSettings) {
			s.Context, s.Address, s.TokenFile, s.CAFile, s.TLS, s.Organization = "production", "grpcs://keys.example.com", "/run/token", "/run/ca", true, "b"
		})},
		{"so does its stored token", []string{"--context=stored"}, []string{"APIKEYS_TOKEN=t", "APIKEYS_TOKEN_FILE=/f"}, with(func(s *clientSettings) {
			s.Context, s.Address = "stored", "10.0.0.2:1"
		})},
		{"a context without a token leaves the environment's", []string{"--context=empty"}, []string{"APIKEYS_TOKEN=t"}, with(func(s *clientSettings) {
			s.Context, s.Token = "empty", secretOf("t")
		})},
		{"no setting but an argument", []string{"--context=empty"}, []string{"APIKEYS_AFTER=x", "APIKEYS_OUTPUT=x"}, with(func(s *clientSettings) { s.Context = "empty" })},
	}
	env := writeContexts(t, file, 0o600)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := parseClient(t, c.args, append(c.env, env...))
			if err != nil {
				t.Fatal(err)
			}
			if got.Token.Reveal() != c.want.Token.Reveal() {
				t.Errorf("got the token %q, want %q", got.Token.Reveal(), c.want.Token.Reveal())
			}
			got.Token, c.want.Token = secretText{}, secretText{}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	for elsewhere, args := range map[bool][]string{true: {"--context=stored", "--address=x:1"}, false: {"--context=stored", "--address=10.0.0.2:1"}} {
		if _, from, err := parseClient(t, args, env); err != nil || from.elsewhere != elsewhere {
			t.Errorf("%v: %v, elsewhere is %v", args, err, !elsewhere)
		}
	}
}

func TestNoContexts(t *testing.T) {
	t.Parallel()
	for _, env := range [][]string{nil, {"HOME=/nowhere"}, {"XDG_CONFIG_HOME=relative", "HOME=/nowhere"}} {
		if got, _, err := parseClient(t, nil, env); err != nil || got.Address != "127.0.0.1:9090" {
			t.Errorf("%v: %+v, %v", env, got, err)
		}
	}
}

func TestFaultyContexts(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, text string
		mode       os.FileMode
		args       []string
		want       string // FILE stands for the file's path
	}{
		{"others can read it", "contexts: {}", 0o640, nil, "FILE: has mode 0640: others can read or change it; run chmod 600 on it"},
		{"unknown context", "contexts: {a: {}, b: {}}", 0o600, []string{"--context=c"}, "--context: there is no context c; there are a, b"},
		{"an unknown current one", "current: d\ncontexts: {a: {}}", 0o600, nil, "FILE: current: there is no context d; there are a"},
		{"no context at all", "", 0o600, []string{"--context=c"}, "--context: there is no context c; make it with apikeys login --context NAME --address HOST:PORT"},
		{"unknown setting", "contexts:\n  a: {addr: secret}", 0o600, nil, "FILE: must hold current and contexts, each a name and address, organization, tls, ca_file, token_file, credential: what stands on line 2 is none of these"},
		{"a faulty value", "contexts:\n  a: {tls: maybe}", 0o600, nil, "FILE: must hold current and contexts, each a name and address, organization, tls, ca_file, token_file, credential: what stands on line 2 is none of these"},
		{"a faulty name", "contexts: {a b: {}}", 0o600, nil, "FILE: the name of a context must be 1 to 64 of a-z, A-Z, 0-9, - _ and ., such as production"},
		{"no YAML", "a: b: c", 0o600, nil, "FILE: must hold current and contexts, each a name and address, organization, tls, ca_file, token_file, credential: not YAML"},
		{"a token in a flag", "", 0o600, []string{"--token=secret-token"}, "--token: every user of this machine could read it; run apikeys login, or set APIKEYS_TOKEN or --token-file"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			env := writeContexts(t, c.text, c.mode)
			_, _, err := parseClient(t, c.args, env)
			if err == nil {
				t.Fatal("no error")
			}
			path := strings.TrimPrefix(env[0], "XDG_CONFIG_HOME=") + "/apikeys/config.yaml"
			if diff := cmp.Diff(strings.ReplaceAll(c.want, "FILE", path), err.Error()); diff != "" {
				t.Error(diff)
			}
			if code := exitCode(err); code != 2 {
				t.Errorf("exit code %d", code)
			}
		})
	}
	if _, _, err := parseClient(t, []string{"--context=x"}, nil); err == nil || !strings.Contains(err.Error(), "HOME") {
		t.Errorf("without a home: %v", err)
	}
}

// Whatever is wrong with a connection is one line, and none holds the token.
func TestFaultyConnections(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty, two := write("empty", " \n"), write("two", "secret-token another")
	cases := []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "a token is needed: run apikeys login, or set APIKEYS_TOKEN or APIKEYS_TOKEN_FILE"},
		{[]string{"APIKEYS_TOKEN=secret-token", "APIKEYS_TOKEN_FILE=" + two}, 2, "token and token_file: set one of them"},
		{[]string{"APIKEYS_TOKEN=secret-token\nx"}, 2, "token must be one word of printable ASCII"},
		{[]string{"--token-file", two}, 2, "token_file: the token in " + two + " must be one word of printable ASCII"},
		{[]string{"--token-file", empty}, 2, "is empty"},
		{[]string{"--token-file", dir + "/none"}, 1, "token_file: open " + dir + "/none: no such file or directory"},
		{[]string{"APIKEYS_TOKEN=secret-token", "--server=ftp://a"}, 2, `address: must be host:port or a URL such as grpcs://keys.example.com, not "ftp://a"`},
		{[]string{"APIKEYS_TOKEN=secret-token", "--ca-file", empty}, 2, "ca_file: is for TLS, which this connection does not use"},
		{[]string{"APIKEYS_TOKEN=secret-token", "--tls", "--ca-file", empty}, 1, "ca_file: " + empty + " holds no certificate in PEM"},
		{[]string{"APIKEYS_TOKEN=secret-token", "--tls", "--ca-file", dir + "/none"}, 1, "ca_file: open " + dir + "/none: no such file"},
		{[]string{"APIKEYS_TOKEN=secret-token", "--limit=-1"}, 2, "--limit: must be 0 or more"},
		{[]string{"APIKEYS_TOKEN=secret-token", "-o", "xml"}, 2, `must be table, json, jsonl, yaml, id, secret or jsonpath=PATH, not "xml"`},
	}
	for _, c := range cases {
		var stdout, reported bytes.Buffer
		args, env := []string{"events", "list"}, []string(nil)
		for _, arg := range c.args {
			if strings.HasPrefix(arg, "APIKEYS_") {
				env = append(env, arg)
			} else {
				args = append(args, arg)
			}
		}
		err := run(t.Context(), args, env, streams{stdout: &stdout, stderr: &reported})
		if err == nil {
			t.Errorf("%v: no error", c.args)
			continue
		}
		report(&reported, err)
		if got := reported.String(); exitCode(err) != c.code || !strings.Contains(got, c.want) || strings.Count(got, "\n") != 1 || strings.Contains(got, "secret-token") {
			t.Errorf("%v: %d, %s", c.args, exitCode(err), got)
		}
	}
}
