package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/shell"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// completionCommand prints a shell's script.
type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints the script.
func (c *completionCommand) Run(out streams) error {
	_, err := fmt.Fprint(out.stdout, shell.Script(c.Shell, "apikeys"))
	return err
}

// parseAgain reads another command line, with the same environment.
type parseAgain func(args ...string) (*commandLine, *sources, error)

// parserAgain returns what reads another command line.
func parserAgain(ctx context.Context, env []string, out streams) parseAgain {
	return func(args ...string) (*commandLine, *sources, error) {
		var commands commandLine
		parsed, err := commands.parse(ctx, args, env, streams{stdout: io.Discard, stderr: io.Discard, keyring: out.keyring})
		if err != nil || parsed == nil {
			return nil, nil, cmp.Or(err, error(errNoCommand))
		}
		var from *sources
		_, err = parsed.Call(func(s *sources) { from = s })
		return &commands, from, err
	}
}

// completeCommand is what the script of a shell runs at each TAB.
type completeCommand struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"What was typed after the program's name."`
}

// completionTimeout is how long a TAB may take.
const completionTimeout = 2 * time.Second

// Run prints the words that can stand at the end, a line each, their help behind a tab.
// What cannot be found out is left out: a TAB has no place for an error.
func (c *completeCommand) Run(ctx context.Context, parsed *kong.Context, again parseAgain, out streams) error {
	if len(c.Words) > 0 && c.Words[0] == "--" {
		c.Words = c.Words[1:]
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	values := func(kind, _ string) []shell.Candidate { return c.values(ctx, kind, again) }
	for _, found := range shell.Complete(parsed.Model, c.Words, values) {
		if _, err := fmt.Fprintf(out.stdout, "%s\t%s\n", output.Printable(found.Word), output.Printable(found.Help)); err != nil {
			return nil // The shell has stopped reading.
		}
	}
	return nil
}

// values returns the values of a kind, which may be ids that the server of the command
// line has.
func (c *completeCommand) values(ctx context.Context, kind string, again parseAgain) (found []shell.Candidate) {
	if kind == "formats" {
		for _, word := range output.Formats {
			found = append(found, shell.Candidate{Word: word})
		}
		return found
	}
	commands, sources, err := again(append([]string{"me"}, c.connectionFlags()...)...)
	if err != nil {
		return nil
	}
	if kind == "contexts" {
		if f, err := sources.dir().Load(); err == nil {
			for _, name := range f.Names() {
				found = append(found, shell.Candidate{Word: name, Help: f.Contexts[name].Address})
			}
		}
		return found
	}
	connection, err := commands.Me.connection(ctx, sources)
	if err != nil {
		return nil
	}
	conn, err := connection.dial()
	if err != nil {
		return nil
	}
	defer conn.Close()
	s := newSession(conn, connection, sources, streams{}, output.Format{}, "")
	return s.candidates(connection.as(ctx), kind)
}

// candidates asks the server for what there is of a kind: a page of it.
func (s *session) candidates(ctx context.Context, kind string) (found []shell.Candidate) {
	add := func(word, help string) { found = append(found, shell.Candidate{Word: word, Help: help}) }
	switch kind {
	case "keys":
		page, _ := s.keys.ListApiKeys(ctx, &apikeysv1.ListApiKeysRequest{PageSize: mostOfAPage})
		for _, k := range page.GetApiKeys() {
			add(k.GetId(), k.GetLabel())
		}
	case "webhooks":
		page, _ := s.webhooks.ListWebhooks(ctx, &apikeysv1.ListWebhooksRequest{PageSize: mostOfAPage})
		for _, w := range page.GetWebhooks() {
			add(w.GetId(), w.GetLabel())
		}
	case "deliveries":
		page, _ := s.webhooks.ListDeliveries(ctx, &apikeysv1.ListDeliveriesRequest{PageSize: mostOfAPage})
		for _, d := range page.GetDeliveries() {
			add(d.GetId(), d.GetEvent())
		}
	case "tokens":
		page, _ := s.tokens.ListOperatorTokens(ctx, &apikeysv1.ListOperatorTokensRequest{PageSize: mostOfAPage})
		for _, t := range page.GetOperatorTokens() {
			add(t.GetId(), t.GetName())
		}
	case "scopes":
		page, _ := s.keys.ListScopes(ctx, &apikeysv1.ListScopesRequest{})
		for _, scope := range page.GetScopes() {
			add(scope.GetName(), strings.Join(scope.GetRoutes(), ", "))
		}
	case "types":
		page, _ := s.webhooks.ListWebhookEventTypes(ctx, &apikeysv1.ListWebhookEventTypesRequest{})
		for _, t := range page.GetEventTypes() {
			add(t.GetType(), t.GetDescription())
		}
	}
	return found
}

// connectionFlags returns the flags of what was typed that say which server is meant.
func (c *completeCommand) connectionFlags() (flags []string) {
	names := []string{"--context", "--profile", "--address", "--server", "--token-file", "--organization", "--ca-file"}
	for i, word := range c.Words {
		name, _, hasValue := strings.Cut(word, "=")
		switch {
		case word == "--tls":
			flags = append(flags, word)
		case !slices.Contains(names, name):
		case hasValue:
			flags = append(flags, word)
		case i+2 < len(c.Words): // The last word is not whole.
			flags = append(flags, name+"="+c.Words[i+1])
		}
	}
	return flags
}

// manCommand writes manual pages.
type manCommand struct {
	Dir string `group:"output" type:"path" placeholder:"DIR" help:"Write a page for each command to this folder. Default: the page of the program alone, to standard output."`
}

// Run writes the pages.
func (c *manCommand) Run(parsed *kong.Context, out streams) error {
	pages := shell.Pages(parsed.Model, version(), exampleOf)
	if c.Dir == "" {
		_, err := fmt.Fprint(out.stdout, pages[0].Text)
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil { //nolint:gosec // Manual pages are for everybody.
		return err
	}
	for _, page := range pages {
		if err := os.WriteFile(filepath.Join(c.Dir, page.Name), []byte(page.Text), 0o644); err != nil { //nolint:gosec // So are they.
			return err
		}
	}
	_, err := fmt.Fprintf(out.stdout, "%d pages in %s\n", len(pages), c.Dir)
	return err
}
