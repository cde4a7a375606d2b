package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// eventsCommands read the log of changes.
type eventsCommands struct {
	List  eventsListCommand  `cmd:"" help:"List events, oldest first."`
	Watch eventsWatchCommand `cmd:"" help:"Follow events as they happen, until SIGINT or SIGTERM."`
}

// eventFilter is what both commands are told of the events that are wanted.
type eventFilter struct {
	After    string       `group:"events" argument:"" placeholder:"CURSOR" help:"Begin after this cursor, or with the oldest event that is kept: start. Write --after=CURSOR: a cursor can begin with a dash."`
	Type     []string     `group:"events" argument:"" placeholder:"TYPE" help:"Only events of this type, such as api_key.created. Can be repeated."`
	Resource []string     `group:"events" argument:"" placeholder:"ID" help:"Only events about this resource. Can be repeated."`
	Output   outputFormat `group:"events" argument:"" short:"o" default:"table" placeholder:"FORMAT" help:"table, or json for a line of JSON each."`
}

// eventsListCommand lists events.
type eventsListCommand struct {
	eventFilter    `embed:""`
	Limit          int `group:"events" argument:"" default:"100" placeholder:"N" help:"How many events at most; 0 for all."`
	clientSettings `embed:""`
}

// listTimeout is how long one page may take.
const listTimeout = time.Minute

// Run writes the events to stdout, and to stderr where to go on if there are
// more.
func (c *eventsListCommand) Run(ctx context.Context, out streams) error {
	if c.Limit < 0 {
		return usageError{errors.New("--limit: must be 0 or more")}
	}
	connection, err := c.connection()
	if err != nil {
		return err
	}
	conn, err := connection.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	printer := newEventPrinter(c.Output, out.stdout, c.Organization)
	err = c.list(connection.as(ctx), apikeysv1.NewEventsServiceClient(conn), printer, out.stderr)
	switch {
	case isClosedPipe(err) || ctx.Err() != nil:
		return nil
	case err != nil && !errors.As(err, new(outputError)):
		return explainStatus(connection.address, err)
	}
	return err
}

func (c *eventsListCommand) list(ctx context.Context, events apikeysv1.EventsServiceClient, printer *eventPrinter, notes io.Writer) error {
	const most = 1000
	req := &apikeysv1.ListEventsRequest{After: c.After, Types: c.Type, ResourceIds: c.Resource}
	left, last := c.Limit, ""
	for {
		if req.PageSize = most; c.Limit > 0 {
			req.PageSize = int32(min(left, most))
		}
		page, err := listPage(ctx, events, req)
		if err != nil {
			return err
		}
		if err := printer.events(page.GetEvents()); err != nil {
			return err
		}
		if n := len(page.GetEvents()); n > 0 {
			left, last = left-n, page.GetEvents()[n-1].GetCursor()
		}
		switch req.PageToken = page.GetNextPageToken(); {
		case req.PageToken == "":
			return nil
		case c.Limit > 0 && left <= 0:
			fmt.Fprintf(notes, "apikeys: there may be more: --after=%s\n", last)
			return nil
		}
	}
}

func listPage(ctx context.Context, events apikeysv1.EventsServiceClient, req *apikeysv1.ListEventsRequest) (*apikeysv1.ListEventsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	return events.ListEvents(ctx, req)
}

// eventsWatchCommand follows events.
type eventsWatchCommand struct {
	eventFilter    `embed:""`
	clientSettings `embed:""`
}

// Run writes events to stdout until ctx is done, which is no error, or until the
// server says something that connecting again does not help against.
func (c *eventsWatchCommand) Run(ctx context.Context, out streams) error {
	connection, err := c.connection()
	if err != nil {
		return err
	}
	printer := newEventPrinter(c.Output, out.stdout, c.Organization)
	w := connection.watcher(&apikeysv1.WatchEventsRequest{After: c.After, Types: c.Type, ResourceIds: c.Resource}, printer.message, out.stderr)
	return w.run(ctx)
}

// outputError is what hindered the output.
type outputError struct{ error }

func (e outputError) Unwrap() error { return e.error }

// isClosedPipe reports whether nobody reads the output any more, which is for the
// reader to know: `apikeys events list | head` went well. (Where it is a pipe of
// the shell the signal SIGPIPE ends the program before.)
func isClosedPipe(err error) bool {
	return errors.As(err, new(outputError)) &&
		(errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed))
}
