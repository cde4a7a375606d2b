package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/apikeys-dev/apikeys/client"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/shell"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// fuzzedSecret is a secret that a person may put where none belongs.
const fuzzedSecret = "sk_live_0000000000000000000000000000000000000000000000000"

// Any command line is understood, or refused in one line of bounded length that repeats
// no secret. Words are what lines hold.
func FuzzCommandLine(f *testing.F) {
	for _, seed := range []string{
		"", "keys\nlist\n--owner\nx", "keys\nlist\n-o\njsonpath=$[", "keys\nrevoke\n--yes\n--no", "serve\n--rest-addr", "keys\ncreate\n--label=" + fuzzedSecret + "\n" + fuzzedSecret,
		"--" + fuzzedSecret, "-x", "--", "keys\nget\n--\n-x", "keys\nupdate\nk\n--metadata\n=", "config\nshow\n--data-dir=\x00", "help\n\u202e", "__complete\n--\nkeys", "events\nwatch\n--type", "keys\nlist\n--created-after=-200000d",
		"webhooks\nlisten\n--secret=" + fuzzedSecret, "usage\n--since\n" + fuzzedSecret,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var commands commandLine
		args := strings.Split(text, "\n")
		parsed, err := commands.parse(t.Context(), args, nil, streams{stdout: io.Discard, stderr: io.Discard})
		if err == nil {
			if parsed != nil && parsed.Selected() == nil {
				t.Errorf("%q is no command", args)
			}
			return
		}
		message := err.Error()
		if strings.Contains(message, fuzzedSecret) || strings.Contains(message, "\n") || len(message) > 1000 {
			t.Errorf("%q is refused by %q", args, message)
		}
		if !errors.As(err, new(usageError)) {
			t.Errorf("%q is not taken for a fault of the command line: %v", args, err)
		}
	})
}

// What is completed begins as what was typed, whatever that is.
func FuzzComplete(f *testing.F) {
	for _, seed := range []string{"", "ke", "keys\n", "keys\nlist\n--st", "keys\nlist\n--state=", "keys\nlist\n-o\nj", "keys\n-", "-\xff", "keys\ncreate\n--scopes\na,b,", "--=", "keys\n--\n-x", "keys\nlist\n--q\n--q", "webhooks\nupdate\nx\n--no-e"} {
		f.Add(seed)
	}
	parser, err := kong.New(new(commandLine), kong.ExplicitGroups(settingGroups), defaults(), kong.Vars{"version": ""})
	if err != nil {
		f.Fatal(err)
	}
	values := func(kind, _ string) []shell.Candidate { return []shell.Candidate{{Word: kind + "-1"}, {Word: "other"}} }
	f.Fuzz(func(t *testing.T, text string) {
		words := strings.Split(text, "\n")
		for _, found := range shell.Complete(parser.Model, words, values) {
			if !strings.HasPrefix(found.Word, words[len(words)-1]) {
				t.Errorf("%q is completed by %q", words, found.Word)
			}
		}
	})
}

// Any configuration file is taken, or refused in one line of bounded length that repeats
// no secret. What is taken are settings that there are.
func FuzzConfigFile(f *testing.F) {
	for _, seed := range []string{
		"", "rest_addr: 127.0.0.1:8080", "webhooks: {max: 10}", "webhooks: &a {max: *a}", "scopes: [a, b]", "scopes: {a: b}", "key_formats: [{name: a, prefix: b_, mode: live}]", "gate_rules: [{path: /a, methods: [GET], scopes: x, cost: 1}]",
		"a: b", fuzzedSecret + ": 1", "root_token: " + fuzzedSecret, "[]", "x", "---\n---\n", "{a", "*a", "<<: {rest_addr: x}", "rest_addr: ~", "rest_addr: 1\nrest_addr: 2", "? [a]\n: b", "tls_cert: !!binary " + fuzzedSecret, "\t" + fuzzedSecret, "- &a [*a]", "oidc: [{issuer: " + fuzzedSecret + "}]",
	} {
		f.Add(seed)
	}
	known := knownSettings()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		values, err := readFile(path, known)
		if err != nil {
			if message := err.Error(); strings.Contains(message, fuzzedSecret) || strings.Contains(message, "\n") || len(message) > 1000 {
				t.Errorf("%q is refused by %q", text, message)
			}
			return
		}
		for name, value := range values {
			if value.form != formList && value.text == "" && value.node == nil {
				t.Errorf("%q sets %s to nothing", text, name)
			}
		}
	})
}

// What a client is told of its server has no credential in it that an error would show,
// and is one word each.
func FuzzConnection(f *testing.F) {
	for _, seed := range []string{"", "127.0.0.1:9090", "localhost", "grpcs://keys.example.com", "http://me:" + fuzzedSecret + "@h", fuzzedSecret, " " + fuzzedSecret + "\n", "http://localhost:3000/hook", "[::1]:80", "a b", "\u202e"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := checkToken(text, "the token")
		if err != nil {
			checkRefusal(t, text, err)
		} else if got := token.Reveal(); got != strings.TrimSpace(text) || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q is the token %q", text, got)
		}
		var forward, again forwardURL
		if err := forward.UnmarshalText([]byte(text)); err != nil {
			checkRefusal(t, text, err)
		} else if err := again.UnmarshalText([]byte(forward)); err != nil || again != forward {
			t.Errorf("%q is %q, which is %q: %v", text, forward, again, err)
		}
		var part visiblePart
		if err := part.UnmarshalText([]byte(text)); err != nil && strings.Contains(err.Error(), text) || err == nil && apikey.IsSecret(string(part)) {
			t.Errorf("%q is the visible part %q: %v", text, part, err)
		}
		var secret signingSecret
		if err := secret.UnmarshalText([]byte(text)); err != nil && len(text) > 8 && strings.Contains(err.Error(), text) {
			t.Errorf("%q as a signing secret: %v", text, err)
		}
		c := clientSettings{Address: text}
		if to, err := c.unauthenticated(); err != nil {
			checkRefusal(t, text, err)
			if strings.Contains(err.Error(), fuzzedSecret) {
				t.Errorf("%q as an address: %v", text, err)
			}
		} else if address, _, err := client.ParseAddress(to.address, false); err != nil || address != to.address {
			t.Errorf("%q is %q, which is %q: %v", text, to.address, address, err)
		}
	})
}
