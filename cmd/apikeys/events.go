package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// eventsCommands read the log of changes.
type eventsCommands struct {
	List  eventsListCommand  `cmd:"" help:"List events, oldest first."`
	Watch eventsWatchCommand `cmd:"" help:"Follow events as they happen, until SIGINT or SIGTERM."`
}

// eventFilter is what both commands are told of the events that are wanted.
type eventFilter struct {
	After    string   `group:"filter" placeholder:"CURSOR" help:"Begin after this cursor, or with the oldest event that is kept: start. Write --after=CURSOR: a cursor can begin with a dash."`
	Type     []string `group:"filter" aliases:"types" placeholder:"TYPE" complete:"types" help:"Only events of this type, such as api_key.created. Can be repeated."`
	Resource []string `group:"filter" aliases:"resource-ids" placeholder:"ID" complete:"keys" help:"Only events about this resource. Can be repeated."`
	Actor    string   `group:"filter" placeholder:"ID" help:"Only changes that this actor made: an operator's, a person's or a key's id."`
}

// eventColumns are the columns of a list of events.
func (c *clientSettings) eventColumns() []output.Column {
	return c.withOrganization([]output.Column{
		{Head: "TIME (UTC)", Path: "created_at", Least: len(time.DateTime)},
		{Head: "TYPE", Path: "type", Least: len("webhook.secret_rotated")},
		{Head: "RESOURCE", Path: "resource_id", Least: len("api_key_") + 36},
		{Head: "ACTOR", Path: "actor.id", Else: "actor.kind", Least: len("operator_") + 36},
		{Head: "CHANGES", Path: "changes", Flexible: true},
	})
}

// listOrder is where a list begins.
type listOrder struct {
	Order string `group:"output" enum:"asc,desc" default:"asc" help:"asc, the oldest first, or desc, the newest first."`
}

func (o listOrder) order() apikeysv1.SortOrder {
	return apikeysv1.SortOrder(apikeysv1.SortOrder_value["SORT_ORDER_"+strings.ToUpper(o.Order)])
}

// eventsListCommand lists events.
type eventsListCommand struct {
	eventFilter `embed:""`
	timeSpan    `embed:""`
	listOrder   `embed:""`
	Limit       int `group:"output" default:"100" placeholder:"N" help:"How many events at most; 0 for all."`
	caller      `embed:""`
}

// Run writes the events to stdout, and to stderr where to go on if there are more.
func (c *eventsListCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		req, last := &apikeysv1.ListEventsRequest{After: c.After, Types: c.Type, ResourceIds: c.Resource, Actor: c.Actor, Order: c.order()}, ""
		req.Since, req.Until = c.times(s.now)
		_, more, err := list(s, c.Limit, c.eventColumns(), func(size int32, token string) ([]*apikeysv1.Event, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := once(ctx, s.events.ListEvents, req)
			if n := len(page.GetEvents()); n > 0 {
				last = page.GetEvents()[n-1].GetCursor()
			}
			return page.GetEvents(), page.GetNextPageToken(), err
		})
		switch {
		case err == nil && more && c.Order == "desc":
			s.note("there may be older ones: raise --limit, or end with --until")
		case err == nil && more:
			s.note("there may be more: --after=%s", last)
		}
		return err
	})
}

// eventsWatchCommand follows events.
type eventsWatchCommand struct {
	eventFilter `embed:""`
	caller      `embed:""`
}

// Run writes events to stdout until ctx is done, which is no error, or until the
// server says something that connecting again does not help against.
func (c *eventsWatchCommand) Run(ctx context.Context, sources *sources, out streams) error {
	if c.Output.IsSecret() {
		return usageError{output.ErrNoSecret}
	}
	connection, err := c.connection(ctx, sources)
	if err != nil {
		return err
	}
	printer := output.NewPrinter(out.stdout, c.Output, out.shownOn(), "id")
	if c.Output.IsTable() {
		if err := printer.Begin(c.eventColumns()); err != nil {
			return err
		}
	}
	w := connection.watcher(&apikeysv1.WatchEventsRequest{After: c.After, Types: c.Type, ResourceIds: c.Resource, Actor: c.Actor}, func(m *apikeysv1.WatchEventsResponse) error {
		return c.print(printer, m)
	}, out.stderr)
	return w.run(ctx)
}

// print writes a message of the stream at once: in JSON as a line of REST's stream,
// heartbeats too, since whoever reads them keeps their cursors; in other forms the event.
func (c *eventsWatchCommand) print(p *output.Printer, m *apikeysv1.WatchEventsResponse) error {
	switch {
	case c.Output.IsJSON():
		return p.One(wirejson.AppendWatch(nil, m))
	case c.Output.IsTable():
		if m.GetEvent() != nil {
			if err := p.Item(wirejson.Append(nil, m.GetEvent())); err != nil {
				return err
			}
		}
		return p.Flush()
	case m.GetEvent() == nil:
		return nil
	case c.Output.IsYAML():
		return p.Item(wirejson.Append(nil, m.GetEvent()))
	}
	return p.One(wirejson.Append(nil, m.GetEvent()))
}

// outputError is what hindered the output.
type outputError = output.Error

// isClosedPipe reports whether nobody reads the output any more, which is for the
// reader to know: `apikeys events list | head` went well. (Where it is a pipe of
// the shell the signal SIGPIPE ends the program before.)
func isClosedPipe(err error) bool {
	return errors.As(err, new(outputError)) &&
		(errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed))
}
