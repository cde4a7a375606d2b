package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/apikeys-dev/apikeys/server"
)

// migrateCommand moves a database.
type migrateCommand struct {
	From             string `argument:"" required:"" placeholder:"URL" help:"The database that is moved: sqlite:<path> or postgres://<user>@<host>:<port>/<database>."`
	To               string `argument:"" required:"" placeholder:"URL" help:"The database that it is moved to, which must be empty."`
	FromPasswordFile string `argument:"" placeholder:"FILE" help:"A file that holds the password of the PostgreSQL database of --from alone."`
	ToPasswordFile   string `argument:"" placeholder:"FILE" help:"A file that holds the password of the PostgreSQL database of --to alone."`
	Wait             period `argument:"" default:"30s" placeholder:"TIME" help:"How long to wait for a PostgreSQL database that cannot be reached."`
}

// Run moves the database, and tells how far it has come on standard error.
func (c *migrateCommand) Run(ctx context.Context, out streams) error {
	for name, database := range map[string]string{"from": c.From, "to": c.To} {
		if server.HoldsPassword(database) {
			return usageError{fmt.Errorf("--%s must hold no password, which every user of this machine could read; set --%s-password-file, or PGPASSFILE", name, name)}
		}
	}
	progress := &progressLine{out: out.stderr, terminal: isTerminal(out.stderr), now: time.Now}
	moved, err := server.Move(ctx, server.MoveConfig{
		From: c.From, To: c.To, FromPasswordFile: c.FromPasswordFile, ToPasswordFile: c.ToPasswordFile, Wait: time.Duration(c.Wait),
		Progress: progress.show,
		Logger:   slog.New(slog.NewTextHandler(out.stderr, nil)),
	})
	progress.end()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return errors.New("the move was interrupted; the source is as it was; run the same command again")
	}
	if err != nil {
		return err
	}
	return tellMoved(out.stdout, moved)
}

// tellMoved writes what was moved.
func tellMoved(w io.Writer, moved server.Moved) error {
	if moved.Rows == nil {
		_, err := fmt.Fprintf(w, "The %s was moved to the %s already.\n", moved.From, moved.To)
		return err
	}
	if _, err := fmt.Fprintf(w, "Moved the %s to the %s:\n", moved.From, moved.To); err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range slices.Sorted(maps.Keys(moved.Rows)) {
		fmt.Fprintf(table, "  %s\t%d\n", name, moved.Rows[name])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "All values are the same. Start the server on the new database with the same secrets file; no server starts on the old one without --force.")
	return err
}

// isTerminal reports whether a person reads w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progressLine tells how far a move has come: on a terminal one line that is written
// anew, else a line every few seconds.
type progressLine struct {
	out      io.Writer
	terminal bool
	now      func() time.Time

	began, last time.Time
	shown       bool
}

// The pauses between two texts.
const (
	progressOnTerminal = 100 * time.Millisecond
	progressInLog      = 5 * time.Second
)

// show tells of p, unless it told of another a moment ago.
func (l *progressLine) show(p server.MoveProgress) {
	pause, form := progressInLog, "%s\n"
	if l.terminal {
		pause, form = progressOnTerminal, "\r\x1b[K%s"
	}
	now := l.now()
	if l.began.IsZero() {
		l.began, l.last = now, now
	}
	whole := p.Rows == p.Total
	if now.Sub(l.last) < pause && !whole {
		return
	}
	l.last, l.shown = now, true
	doing := "copied"
	if p.Comparing {
		doing = "compared"
	}
	text := fmt.Sprintf("%s %d of %d rows (%d %%), %s, %s", doing, p.Rows, p.Total, 100*p.Rows/max(p.Total, 1), p.Table, now.Sub(l.began).Round(time.Second))
	fmt.Fprintf(l.out, form, text)
}

// end leaves the line of a terminal.
func (l *progressLine) end() {
	if l.terminal && l.shown {
		fmt.Fprintln(l.out)
	}
}
