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

func TestParseServer(t *testing.T) {
	t.Parallel()
	cases := []struct {
		text    string
		tls     bool
		address string
		secure  bool
	}{
		{"127.0.0.1:9090", false, "127.0.0.1:9090", false},
		{"127.0.0.1", true, "127.0.0.1:443", true},
		{"127.9.9.9", false, "127.9.9.9:9090", false},
		{"[::ffff:127.0.0.1]:1", false, "[::ffff:127.0.0.1]:1", false},
		{"LocalHost:1", false, "LocalHost:1", false},
		{"localhost.:1", false, "localhost.:1", false},
		// Whatever another machine may answer to is reached with TLS.
		{"vm:9090", false, "vm:9090", true},
		{"10.0.0.1:1", false, "10.0.0.1:1", true},
		{"0.0.0.0:1", false, "0.0.0.0:1", true},
		{"[fd00::1]:1", false, "[fd00::1]:1", true},
		{"localhost.example.com:1", false, "localhost.example.com:1", true},
		{"127.0.0.1.example.com:1", false, "127.0.0.1.example.com:1", true},
		{"grpc://vm:9090", false, "vm:9090", false},
		{"GRPC://vm", false, "vm:9090", false},
		{"keys.example.com", false, "keys.example.com:443", true},
		{"keys.example.com", true, "keys.example.com:443", true},
		{"keys.example.com:8443", true, "keys.example.com:8443", true},
		{"::1", false, "[::1]:9090", false},
		{"[::1]", false, "[::1]:9090", false},
		{"[::1]:1", false, "[::1]:1", false},
		{"grpc://localhost", false, "localhost:9090", false},
		{"grpcs://localhost", false, "localhost:443", true},
		{"HTTPS://localhost:9090/", false, "localhost:9090", true},
		{"https://[::1]", true, "[::1]:443", true},
		{"http://localhost", false, "localhost:80", false},
	}
	for _, c := range cases {
		address, secure, err := parseServer(c.text, c.tls)
		if address != c.address || secure != c.secure || err != nil {
			t.Errorf("%s: got %s, %v, %v", c.text, address, secure, err)
		}
	}
	for _, text := range []string{"", ":9090", "a b", "a:b", "a:0", "a:99999", "a:1:2", "ftp://a", "http://a", "http://10.0.0.1:9090", "grpcs://", "grpcs://a/b", "https://a?b", "https://a#b", "https://a:x", "//a"} {
		if address, _, err := parseServer(text, false); err == nil {
			t.Errorf("%q was taken as %s", text, address)
		}
	}
	for text, want := range map[string]string{"grpc://a": "says that there is no TLS", "grpcs://user:secret@a": "must not hold a credential"} {
		if _, _, err := parseServer(text, true); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func secretOf(text string) secretText { return secretText{masked.New(text)} }

// parseClient returns what `apikeys events list` is told of its connection.
func parseClient(t *testing.T, args, env []string) (clientSettings, error) {
	t.Helper()
	var commands commandLine
	_, err := commands.parse(t.Context(), append([]string{"events", "list"}, args...), env, streams{})
	return commands.Events.List.clientSettings, err
}

// writeProfiles returns the environment of a user with these profiles.
func writeProfiles(t *testing.T, text string, mode os.FileMode) []string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "apikeys"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "apikeys", "profiles.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return []string{"XDG_CONFIG_HOME=" + dir}
}

func TestFlagBeatsEnvironmentBeatsProfile(t *testing.T) {
	t.Parallel()
	const profiles = `
default: {server: 10.0.0.1:1, token: of-default, organization: org_a}
production: {server: "grpcs://keys.example.com", token_file: /run/token, ca_file: /run/ca, tls: true}
broken: {no_such: setting}
empty:
`
	with := func(change func(*clientSettings)) clientSettings {
		s := clientSettings{Server: "127.0.0.1:9090"}
		change(&s)
		return s
	}
	cases := []struct {
		name string
		args []string
		env  []string
		want clientSettings
	}{
		{"default", nil, nil, with(func(s *clientSettings) {
			s.Server, s.Token, s.Organization = "10.0.0.1:1", secretOf("of-default"), "org_a"
		})},
		{"by flag", []string{"--profile=production"}, nil, with(func(s *clientSettings) {
			s.Profile, s.Server, s.TokenFile, s.CAFile, s.TLS = "production", "grpcs://keys.example.com", "/run/token", "/run/ca", true
		})},
		{"by environment", nil, []string{"APIKEYS_PROFILE=empty"}, with(func(s *clientSettings) { s.Profile = "empty" })},
		{"flag over environment", []string{"--profile=empty"}, []string{"APIKEYS_PROFILE=production"}, with(func(s *clientSettings) { s.Profile = "empty" })},
		{"environment over profile", nil, []string{"APIKEYS_SERVER=a:1", "APIKEYS_ORGANIZATION=*"}, with(func(s *clientSettings) {
			s.Server, s.Token, s.Organization = "a:1", secretOf("of-default"), "*"
		})},
		{"flag over all", []string{"--server=b:1"}, []string{"APIKEYS_SERVER=a:1", "APIKEYS_PROFILE=empty"}, with(func(s *clientSettings) {
			s.Profile, s.Server = "empty", "b:1"
		})},
		{"a token file hides the profile's token", []string{"--token-file=/f"}, nil, with(func(s *clientSettings) {
			s.Server, s.TokenFile, s.Organization = "10.0.0.1:1", "/f", "org_a"
		})},
		{"a token hides the profile's file", nil, []string{"APIKEYS_TOKEN=t", "APIKEYS_PROFILE=production"}, with(func(s *clientSettings) {
			s.Profile, s.Server, s.Token, s.CAFile, s.TLS = "production", "grpcs://keys.example.com", secretOf("t"), "/run/ca", true
		})},
		{"a token hides the environment's file", []string{"--token=t", "--profile=empty"}, []string{"APIKEYS_TOKEN_FILE=/f"}, with(func(s *clientSettings) {
			s.Profile, s.Token = "empty", secretOf("t")
		})},
		{"no setting but an argument", []string{"--profile=empty"}, []string{"APIKEYS_AFTER=x", "APIKEYS_OUTPUT=x"}, with(func(s *clientSettings) { s.Profile = "empty" })},
	}
	env := writeProfiles(t, profiles, 0o600)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseClient(t, c.args, append(c.env, env...))
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
}

func TestNoProfiles(t *testing.T) {
	t.Parallel()
	for _, env := range [][]string{nil, {"HOME=/nowhere"}, {"XDG_CONFIG_HOME=relative", "HOME=/nowhere"}} {
		if got, err := parseClient(t, nil, env); err != nil || got.Server != "127.0.0.1:9090" {
			t.Errorf("%v: %+v, %v", env, got, err)
		}
	}
}

func TestFaultyProfiles(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, text string
		mode       os.FileMode
		args       []string
		want       string // FILE stands for the file's path
	}{
		{"others can read it", "default: {token: secret-token}", 0o640, nil, "FILE: has mode 0640: others can read or change the tokens in it; run chmod 600 on it"},
		{"unknown profile", "a: {}\nb: {}", 0o600, []string{"--profile=c"}, "FILE: there is no profile c; there are a, b"},
		{"no profile at all", "", 0o600, []string{"--profile=c"}, "FILE: there is no profile c"},
		{"unknown setting", "default:\n  servr: a", 0o600, nil, `FILE: profile default: unknown setting "servr" on line 2; did you mean "server"?`},
		{"an argument as a setting", "default:\n  after: a", 0o600, nil, `FILE: profile default: unknown setting "after" on line 2`},
		{"a faulty value", "default: {tls: maybe}", 0o600, nil, "FILE: profile default: tls must be true or false"},
		{"no mapping", "default: x", 0o600, nil, "FILE: profile default must be settings such as server: 127.0.0.1:9090"},
		{"a list", "- x", 0o600, nil, "FILE: must be profiles by their names, each with settings such as server: 127.0.0.1:9090"},
		{"no YAML", "a: b: c", 0o600, nil, "FILE: not YAML: mapping values are not allowed in this context"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			env := writeProfiles(t, c.text, c.mode)
			_, err := parseClient(t, c.args, env)
			if err == nil {
				t.Fatal("no error")
			}
			path := strings.TrimPrefix(env[0], "XDG_CONFIG_HOME=") + "/apikeys/profiles.yaml"
			if diff := cmp.Diff(strings.ReplaceAll(c.want, "FILE", path), err.Error()); diff != "" {
				t.Error(diff)
			}
			if code := exitCode(err); code != 2 {
				t.Errorf("exit code %d", code)
			}
		})
	}
	if _, err := parseClient(t, []string{"--profile=x"}, nil); err == nil || !strings.Contains(err.Error(), "HOME") {
		t.Errorf("without a home: %v", err)
	}
	if _, err := parseClient(t, []string{"--profile=x"}, []string{"HOME=/nowhere"}); err == nil || !strings.Contains(err.Error(), "no such file, and so no profile x") {
		t.Errorf("without a file: %v", err)
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
		{nil, 2, "a token is needed: set APIKEYS_TOKEN or APIKEYS_TOKEN_FILE"},
		{[]string{"--token=secret-token", "--token-file", two}, 2, "token and token_file: set one of them"},
		{[]string{"--token=secret-token\nx"}, 2, "token must be one word of printable ASCII"},
		{[]string{"--token-file", two}, 2, "token_file: the token in " + two + " must be one word of printable ASCII"},
		{[]string{"--token-file", empty}, 2, "is empty"},
		{[]string{"--token-file", dir + "/none"}, 1, "token_file: open " + dir + "/none: no such file or directory"},
		{[]string{"--token=secret-token", "--server=ftp://a"}, 2, `server: must be host:port or a URL such as grpcs://keys.example.com, not "ftp://a"`},
		{[]string{"--token=secret-token", "--ca-file", empty}, 2, "ca_file: is for TLS, which this connection does not use"},
		{[]string{"--token=secret-token", "--tls", "--ca-file", empty}, 1, "ca_file: " + empty + " holds no certificate in PEM"},
		{[]string{"--token=secret-token", "--tls", "--ca-file", dir + "/none"}, 1, "ca_file: open " + dir + "/none: no such file"},
		{[]string{"--token=secret-token", "--limit=-1"}, 2, "--limit: must be 0 or more"},
		{[]string{"--token=secret-token", "-o", "xml"}, 2, `must be table or json, not "xml"`},
	}
	for _, c := range cases {
		var stdout, reported bytes.Buffer
		err := run(t.Context(), append([]string{"events", "list"}, c.args...), nil, streams{stdout: &stdout, stderr: &reported})
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
