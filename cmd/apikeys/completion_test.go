package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/servertest/testenv"
)

// TestCompletion completes commands, flags, values, and the ids of a running server.
func TestCompletion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	first := line(h.run("keys", "create", "--label", "a b", "-o", "id"))
	second := line(h.run("keys", "create", "--label", "b", "-o", "id"))
	other := line(h.run("keys", "create", "--label", "c", "--organization", "org_b", "-o", "id"))
	complete := func(words ...string) (found []string) {
		t.Helper()
		for text := range strings.Lines(h.run(append([]string{"__complete", "--"}, words...)...)) {
			word, _, ok := strings.Cut(strings.TrimSuffix(text, "\n"), "\t")
			if !ok {
				t.Errorf("no help behind a tab: %q", text)
			}
			found = append(found, word)
		}
		return found
	}
	for _, c := range []struct {
		words []string
		want  []string
	}{
		{[]string{"key"}, []string{"keys"}},
		{[]string{"keys", "re"}, []string{"revoke"}},
		{[]string{"token", "ro"}, []string{"rotate"}},
		{[]string{"keys", "create", "--mo"}, []string{"--mode"}},
		{[]string{"keys", "create", "--mode", ""}, []string{"live", "test"}},
		{[]string{"keys", "create", "--mode=l"}, []string{"--mode=live"}},
		{[]string{"keys", "create", "--mode", "live", "--mo"}, nil},
		{[]string{"keys", "get", ""}, []string{first, second}},
		{[]string{"keys", "get", first, ""}, nil},
		{[]string{"keys", "get", "--organization", "org_b", ""}, []string{other}},
		{[]string{"keys", "list", "-o", "j"}, []string{"json", "jsonl", "jsonpath="}},
		{[]string{"keys", "create", "--scopes", "api_keys.c"}, []string{"api_keys.create"}},
		{[]string{"keys", "create", "--scopes", "api_keys.read,api_keys.c"}, []string{"api_keys.read,api_keys.create"}},
		{[]string{"webhooks", "update", "x", "--no-e"}, []string{"--no-enabled"}},
		{[]string{"no", "such"}, nil},
		{[]string{"keys", "--no-such", ""}, nil},
		{[]string{"serve", "--rest-a"}, []string{"--rest-addr"}},
		{[]string{"completion", ""}, []string{"bash", "zsh", "fish"}},
	} {
		if diff := cmp.Diff(c.want, complete(c.words...)); diff != "" {
			t.Errorf("%q (-want +got)\n%s", c.words, diff)
		}
	}
	if slices.Contains(complete(""), "__complete") {
		t.Error("a hidden command is completed")
	}
	if got := h.with("APIKEYS_ADDRESS=127.0.0.1:1").run("__complete", "--", "keys", "get", ""); got != "" {
		t.Errorf("without a server: %q", got)
	}
}

// TestShells has the shells themselves read the scripts and complete with them.
func TestShells(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := newHarness(t)
	// What the scripts run is a stand-in that tells what it was asked.
	fake := "#!/bin/sh\n" + `[ "$1" = __complete ] && [ "$2" = -- ] || exit 1` + "\nshift 2\n" + `case "$*" in "keys cr") printf 'create\tMake a key: new\n';; "keys create --mode=l") printf -- '--mode=live\t\n';; "keys ") printf 'create\tx\nget\ty\n';; esac` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "apikeys"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	for shell, test := range map[string]string{
		"bash": `. ./script; for line in 'apikeys keys cr' 'apikeys keys create --mode=l' 'apikeys keys '; do
COMP_LINE=$line COMP_POINT=${#line}; _apikeys; echo "${COMPREPLY[@]}"; done`,
		"fish": `source ./script; for line in 'apikeys keys cr' 'apikeys keys create --mode=l' 'apikeys keys '
complete -C $line | string replace -r '\t.*' '' | string join ' '; end`,
		"zsh": `compdef() { :; }; _describe() { echo "${described[@]%%:*}"; }; . ./script
words=(apikeys keys cr) CURRENT=3; _apikeys; words=(apikeys keys create --mode=l) CURRENT=4; _apikeys; words=(apikeys keys '') CURRENT=3; _apikeys`,
	} {
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("there is no %s here", shell)
			continue
		}
		script := h.run("completion", shell)
		if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), path, "-c", test)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir)
		out, err := cmd.CombinedOutput()
		want := "create\n--mode=live\ncreate get\n"
		if shell == "bash" {
			want = "create\nlive\ncreate get\n" // It replaces what stands behind the =.
		}
		if err != nil || string(out) != want {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
}

// TestManual has a page for every command, which man reads without a complaint.
func TestManual(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	dir := filepath.Join(t.TempDir(), "man1")
	h.run("man", "--dir", dir)
	page, err := os.ReadFile(filepath.Join(dir, "apikeys-keys-create.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH ", `\-\-label=TEXT`, "EXAMPLES", `apikeys keys create`} {
		if !strings.Contains(string(page), want) {
			t.Errorf("%q is missing in\n%s", want, page)
		}
	}
	if !strings.HasPrefix(h.run("man"), ".TH ") {
		t.Error("no page of the program")
	}
	groff := testenv.Program(t, "groff", "package groff-base of Debian has it")
	files, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d pages, %v", len(files), err)
	}
	out, err := exec.CommandContext(t.Context(), groff, append([]string{"-man", "-Tutf8", "-ww", "-z"}, files...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}
