package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	cases := []struct {
		args []string
		want []string
	}{
		{[]string{"--help"}, []string{"Usage: apikeys <command>", "serve ", "tokens ", "keys ", "version ", "Exit codes:"}},
		{[]string{"help"}, []string{"Usage: apikeys <command>", "Examples:"}},
		{[]string{"help", "serve"}, []string{
			"Usage: apikeys serve", "Network:", "--rest-addr=HOST:PORT", "127.0.0.1:8080", "APIKEYS_TRUSTED_PROXIES",
			"APIKEYS_ROOT_TOKEN_FILE", "APIKEYS_CONFIG", "Examples:",
		}},
		{[]string{"serve", "-h"}, []string{"Usage: apikeys serve"}},
		{[]string{"help", "token"}, []string{"tokens (token) reset"}},
		{[]string{"help", "token", "reset"}, []string{"Usage: apikeys tokens (token) reset", "--data-dir=DIR"}},
	}
	for _, c := range cases {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if err := run(t.Context(), c.args, nil, streams{stdout: &stdout, stderr: &stderr}); err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(stdout.String(), want) {
					t.Errorf("%q is missing in:\n%s", want, stdout.String())
				}
			}
			if stderr.Len() > 0 {
				t.Errorf("standard error: %s", stderr.String())
			}
		})
	}
}

// The table of docs/settings.md has each setting once, under all its names and with
// its default, and nothing else; and the help has it too. So nobody has to read the
// code for a setting.
func TestEverySettingIsDocumented(t *testing.T) {
	t.Parallel()
	var help bytes.Buffer
	out := streams{stdout: &help, stderr: &help}
	if err := run(t.Context(), []string{"help", "serve"}, nil, out); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := settingsTable(t, string(text))
	var commands commandLine
	parsed, err := commands.parse(t.Context(), []string{"serve"}, nil, out)
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{"plaintext": "false"}
	for _, flag := range parsed.Selected().Flags {
		if flag.HasDefault {
			defaults[fileName(flag.Name)] = flag.Default
		}
	}
	for _, setting := range append(knownSettings(), "config") {
		if !strings.Contains(help.String(), envName(setting)) {
			t.Errorf("the help lacks %s", envName(setting))
		}
		want := documentedSetting{flag: "--" + strings.ReplaceAll(setting, "_", "-"), env: envName(setting), file: setting}
		if slices.Contains(withoutFlag, setting) {
			want.flag = ""
		}
		if setting == "config" {
			want.file = ""
		}
		rows := documented[want.env]
		delete(documented, want.env)
		if len(rows) != 1 {
			t.Errorf("docs/settings.md has %s in %d rows", want.env, len(rows))
			continue
		}
		got, is := rows[0], defaults[setting]
		if want.value = got.value; is != "" {
			want.value = is
		}
		if got != want {
			t.Errorf("docs/settings.md has %+v, want %+v", got, want)
		}
	}
	for name := range documented {
		t.Errorf("docs/settings.md has %s, which is no setting", name)
	}
}

// documentedSetting is what a row of the table of settings says of one of them.
type documentedSetting struct{ flag, env, file, value string }

// settingsTable returns the rows of the table that begins with the flags, by their
// environment variables. A row may be of two settings, separated by commas.
func settingsTable(t *testing.T, text string) map[string][]documentedSetting {
	t.Helper()
	_, table, ok := strings.Cut(text, "\n| flag | environment | file | default | meaning |\n")
	if !ok {
		t.Fatal("docs/settings.md has no table of settings")
	}
	rows := make(map[string][]documentedSetting)
	plain := strings.NewReplacer("`", "", " ", "")
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		if strings.HasPrefix(line, "|--") {
			continue
		}
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 7 {
			t.Errorf("the row has %d cells, want 5: %s", len(cells)-2, line)
			continue
		}
		names := func(cell string) []string { return strings.Split(plain.Replace(cell), ",") }
		flags, env, files := names(cells[1]), names(cells[2]), names(cells[3])
		if len(flags) != len(env) || len(files) != len(env) {
			t.Errorf("the row has not the same number of names in each cell: %s", line)
			continue
		}
		for i, name := range env {
			rows[name] = append(rows[name], documentedSetting{flags[i], name, files[i], strings.Trim(strings.TrimSpace(cells[4]), "`")})
		}
	}
	return rows
}

func TestNoCommandAndWrongOnes(t *testing.T) {
	t.Parallel()
	cases := []struct {
		args   string
		report string
	}{
		{"", ""},
		{"serv", "apikeys: unexpected argument serv, did you mean \"serve\"?\n"},
		{"token", "apikeys: expected one of \"create\", \"get\", \"list\", \"update\", \"rotate\", ...; see apikeys tokens --help\n"},
		{"help nope", "apikeys: unexpected argument nope; see apikeys --help\n"},
		{"secrets", "apikeys: unexpected argument secrets; see apikeys --help\n"},
		{"keys get", "apikeys: expected \"<id>\"; see apikeys keys get --help\n"},
		{"keys list --state broken", "apikeys: --state must be one of \"active\",\"disabled\",\"expired\",\"revoked\" but got \"broken\"; see apikeys keys list --help\n"},
		{"token reset --rest-addr :1", "apikeys: unknown flag --rest-addr; see apikeys tokens reset --help\n"},
	}
	for _, c := range cases {
		t.Run(c.args, func(t *testing.T) {
			var stdout, stderr, reported bytes.Buffer
			err := run(t.Context(), strings.Fields(c.args), nil, streams{stdout: &stdout, stderr: &stderr})
			if code := exitCode(err); code != 2 {
				t.Errorf("exit code %d", code)
			}
			if report(&reported, err); reported.String() != c.report {
				t.Errorf("reported %q, want %q", reported.String(), c.report)
			}
			if stdout.Len() > 0 {
				t.Errorf("standard output: %s", stdout.String())
			}
			if c.args == "" && !strings.Contains(stderr.String(), "Usage: apikeys") {
				t.Errorf("no help: %s", stderr.String())
			}
		})
	}
}

func TestReportIsALineForEachFault(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	report(&b, errors.Join(errors.New("env: one"), errors.New("scopes: two")))
	if got, want := b.String(), "apikeys: env: one\napikeys: scopes: two\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	if code := exitCode(nil); code != 0 {
		t.Errorf("success ends with %d", code)
	}
	if code := exitCode(errors.New("x")); code != 1 {
		t.Errorf("a failure ends with %d", code)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	var stdout bytes.Buffer
	if err := run(t.Context(), []string{"version"}, nil, streams{stdout: &stdout}); err != nil {
		t.Fatal(err)
	}
	if got := stdout.String(); !strings.HasPrefix(got, "apikeys ") || !strings.Contains(got, "go1.") {
		t.Errorf("got %q", got)
	}
	line := versionOf(&debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}},
	})
	if !strings.HasPrefix(line, "v1.2.3 (go1.") || !strings.HasSuffix(line, "revision abc, with changes)") {
		t.Errorf("got %q", line)
	}
}

// What was given is not repeated beyond an excerpt, wherever it was given, and
// nothing of it where it is a secret.
func TestFaultsRepeatLittle(t *testing.T) {
	t.Parallel()
	secret, err := apikey.RandomToken("root_", strings.NewReader(strings.Repeat("apikeys", 100)))
	if err != nil {
		t.Fatal(err)
	}
	for kind, text := range map[string]string{"a secret": secret, "a long text": strings.Repeat("long ", 100) + "x"} {
		files := map[string]string{
			"a setting":     "'" + text + "': x",
			"a setting too": "rest_addr: x\n'" + text + "': x\n'" + text + "': x",
			"an address":    "rest_addr: '" + text + "'",
			"a word":        "env: '" + text + "'",
			"a span":        "event_retention: '" + text + "'",
			"a number":      "webhooks_max: '" + text + "'",
			"a level":       "log_level: '" + text + "'",
			"a network":     "trusted_proxies: ['" + text + "']",
			"a scope":       "scopes: ['a b', '" + text + "!']",
			"an alias":      "rest_addr: *" + strings.ReplaceAll(text, " ", ""),
			"no YAML":       "rest_addr: \"" + text,
		}
		given := map[string][]string{
			"a command":       {text},
			"an argument":     {"serve", text},
			"a flag":          {"serve", "--" + strings.ReplaceAll(text, " ", "")},
			"the rest addr":   {"serve", "--rest-addr=" + text},
			"the environment": {"serve", "--env", text},
			"a flag's span":   {"serve", "--event-retention", text},
			"a flag's level":  {"serve", "--log-level", text},
			"a server":        {"events", "list", "--server", text},
			"an output":       {"events", "list", "--output", text},
		}
		for name, file := range files {
			given["in the file, "+name] = []string{"serve", "--config", writeConfig(t, file)}
		}
		for name, args := range given {
			t.Run(kind+" as "+name, func(t *testing.T) {
				var out bytes.Buffer
				args := slices.Clone(args)
				if args[0] == "serve" {
					args = append(args, "--data-dir", t.TempDir())
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel() // a server that starts all the same stops at once
				err := run(ctx, args, nil, streams{stdout: &out, stderr: &out})
				if err == nil {
					t.Fatal("no fault was found")
				}
				report(&out, err)
				if part := text[:min(len(text), apikey.MaxExcerpt+1)]; strings.Contains(out.String(), part) || strings.Contains(out.String(), secret[8:40]) {
					t.Errorf("repeated: %s", out.String())
				}
			})
		}
	}
}
