package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
)

// shownOn returns the terminal that shows the results, the zero value for none.
func (out streams) shownOn() output.Terminal {
	if !out.terminal {
		return output.Terminal{}
	}
	t := output.Terminal{Width: out.width}
	if f, ok := out.stdout.(*os.File); ok && t.Width == 0 {
		t.Width, _, _ = term.GetSize(int(f.Fd()))
	}
	if t.Width <= 0 {
		if n, err := strconv.Atoi(out.env["COLUMNS"]); err == nil && n > 0 {
			t.Width = n
		} else {
			t.Width = 80
		}
	}
	t.Color = out.env["NO_COLOR"] == "" && out.env["TERM"] != "" && out.env["TERM"] != "dumb"
	return t
}

// variables returns those of an environment that have these names.
func variables(env []string, names ...string) map[string]string {
	found := map[string]string{}
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		for _, wanted := range names {
			if name == wanted {
				found[name] = value
			}
		}
	}
	return found
}

// A person answers questions, until ctx is done.
type person interface {
	// ask returns the line that is typed after a question.
	ask(ctx context.Context, question string) (string, error)
	// askSecret does so without showing what is typed.
	askSecret(ctx context.Context, question string) (string, error)
}

// personAt returns the person at a terminal, nil where stdin or stderr is none.
func personAt(stdin, stderr *os.File) person {
	if !term.IsTerminal(int(stdin.Fd())) || !term.IsTerminal(int(stderr.Fd())) {
		return nil
	}
	return typist{stdin, stderr}
}

// A typist is a person at a terminal.
type typist struct{ in, out *os.File }

func (t typist) ask(ctx context.Context, question string) (string, error) {
	fmt.Fprint(t.out, question)
	return t.answer(ctx, func() (string, error) {
		line, err := bufio.NewReader(io.LimitReader(t.in, maxSecret)).ReadString('\n')
		if err != nil && line == "" {
			return "", err
		}
		return strings.TrimSpace(line), nil
	})
}

func (t typist) askSecret(ctx context.Context, question string) (string, error) {
	fmt.Fprint(t.out, question)
	defer fmt.Fprintln(t.out)
	before, err := term.GetState(int(t.in.Fd()))
	if err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	// An interruption must not leave a terminal that shows nothing.
	defer func() { _ = term.Restore(int(t.in.Fd()), before) }()
	return t.answer(ctx, func() (string, error) {
		line, err := term.ReadPassword(int(t.in.Fd()))
		return string(line), err
	})
}

// answer returns what read returns, unless ctx is done before.
func (t typist) answer(ctx context.Context, read func() (string, error)) (line string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		line, err = read()
	}()
	select {
	case <-ctx.Done():
		return "", errors.New("interrupted")
	case <-done:
	}
	if err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	return line, nil
}

// maxSecret is how much of standard input or of a file is read.
const maxSecret = 128 << 10

// readSecret returns a secret that a person is asked for, or that standard input has.
func (out streams) readSecret(ctx context.Context, question string) (string, error) {
	if out.person != nil {
		return out.person.askSecret(ctx, question)
	}
	text, err := out.readText("-")
	return strings.TrimRight(text, "\r\n"), err
}

// readText returns what a file holds, or, for -, standard input.
func (out streams) readText(path string) (string, error) {
	f := out.stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return "", err
		}
		defer f.Close()
	} else if f == nil {
		return "", usageError{errors.New("it is read from standard input, and there is none")}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read %s: %w", f.Name(), err)
	case len(text) > maxSecret:
		return "", usageError{fmt.Errorf("%s has more than %d bytes", f.Name(), maxSecret)}
	}
	return string(text), nil
}

// confirm asks whether to do something to many. Where nobody can be asked, yes must
// say so.
func (out streams) confirm(ctx context.Context, question string, yes bool) error {
	switch {
	case yes:
		return nil
	case out.person == nil:
		return usageError{errors.New(question + " nobody can be asked here: add --yes to do it, or --dry-run to see what would be done")}
	}
	answer, err := out.person.ask(ctx, "apikeys: "+question+" [y/N] ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}
