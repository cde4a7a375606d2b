package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// Every command says what it does and has an example that this program understands,
// every flag and argument says what it is for, and no example is of a command that
// is not there.
func TestEveryCommandIsExplained(t *testing.T) {
	t.Parallel()
	var commands commandLine
	parsed, err := commands.parse(t.Context(), []string{"help"}, nil, streams{})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"": true}
	var walk func(node *kong.Node)
	walk = func(node *kong.Node) {
		path := commandPath(node)
		known[path] = true
		if node.Parent != nil && !node.Hidden {
			if node.Help == "" {
				t.Errorf("%s: no help", path)
			}
			if text := exampleOf(path); !strings.Contains(text, "Examples:\n") || !strings.Contains(text, "apikeys "+path) {
				t.Errorf("%s: no example", path)
			}
		}
		for _, flag := range node.Flags {
			if flag.Help == "" {
				t.Errorf("%s --%s: no help", path, flag.Name)
			}
		}
		for _, argument := range node.Positional {
			if argument.Help == "" {
				t.Errorf("%s %s: no help", path, argument.Name)
			}
		}
		for _, child := range node.Children {
			walk(child)
		}
	}
	walk(parsed.Model.Node)
	env := writeContexts(t, "contexts: {production: {address: keys.example.com}}", 0o600)
	for _, all := range []map[string]string{examples, clientExamples} {
		for path, text := range all {
			if !known[path] {
				t.Errorf("there are examples of %s, which is no command", path)
			}
			for _, text := range exampleLines(text) {
				if err := understood(t, env, text); err != nil {
					t.Errorf("%s: the example is not understood: %s: %v", path, text, err)
				}
			}
		}
	}
}

// exampleLines returns the commands of a text of examples.
func exampleLines(text string) (commands []string) {
	_, text, _ = strings.Cut(text, "Examples:\n")
	for text := range strings.Lines(text) {
		text, ok := strings.CutPrefix(text, "  ")
		if !ok {
			break
		}
		if i := strings.Index(text, "apikeys "); i >= 0 {
			commands = append(commands, strings.TrimSpace(text[i+len("apikeys "):]))
		}
	}
	return commands
}

// understood parses a command as a shell would hand it over.
func understood(t *testing.T, env []string, text string) error {
	t.Helper()
	if before, _, ok := strings.Cut(text, "  "); ok {
		text = before // What follows tells what it does.
	}
	text, _, _ = strings.Cut(text, " |")
	text, _, _ = strings.Cut(text, " <")
	text, _, _ = strings.Cut(text, " >")
	var args []string
	for i, part := range strings.Split(strings.TrimSuffix(text, ")"), `"`) {
		if i%2 == 1 {
			args[len(args)-1] = part
			continue
		}
		args = append(args, strings.Fields(strings.ReplaceAll(part, "'", ""))...)
		if i%2 == 0 && strings.HasSuffix(part, " ") {
			args = append(args, "")
		}
	}
	for len(args) > 0 && args[len(args)-1] == "" {
		args = args[:len(args)-1]
	}
	if len(args) > 0 && args[0] == "help" {
		return nil
	}
	if i := indexOf(args, "--config"); i >= 0 {
		args = append(args[:i], args[i+2:]...)
	}
	var commands commandLine
	_, err := commands.parse(t.Context(), args, env, streams{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)})
	return err
}

func indexOf(all []string, text string) int {
	for i, one := range all {
		if one == text {
			return i
		}
	}
	return -1
}
