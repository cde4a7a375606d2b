package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/client"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// watcher follows a stream of events for a person, who is told when the connection is
// lost and where another run can go on.
type watcher struct {
	connection *connection
	request    *apikeysv1.WatchEventsRequest
	take       func(*apikeysv1.WatchEventsResponse) error
	notes      io.Writer
}

// watcher returns one that hands what a request asks for to take, message by message.
func (c *connection) watcher(req *apikeysv1.WatchEventsRequest, take func(*apikeysv1.WatchEventsResponse) error, notes io.Writer) *watcher {
	return &watcher{c, req, take, notes}
}

// client returns a client of the server, with the token of the connection.
func (c *connection) client() (*client.Client, error) {
	return client.New(c.address, client.Options{
		Token: c.token.Reveal(), Organization: c.organization, Credentials: c.credentials, UserAgent: "apikeys",
	})
}

// run follows until ctx is done, which is no error, or until an error that connecting
// again would not help against. A server that was never there is one too: its address
// may be wrong.
func (w *watcher) run(ctx context.Context) error {
	c, err := w.connection.client()
	if err != nil {
		return err
	}
	defer c.Close()
	events := c.Watcher(w.request)
	events.MustConnect = true
	events.Lost = func(err error) {
		fmt.Fprintf(w.notes, "apikeys: connection lost, connecting again: %v\n", explainStatus(w.connection.address, err))
	}
	events.Found = func() { fmt.Fprintln(w.notes, "apikeys: connected again") }
	err = events.Run(ctx, w.take)
	if isClosedPipe(err) {
		return nil
	}
	if events.Connected() && status.Code(err) != codes.OutOfRange { // of that cursor there is no use any more
		tellCursor(w.notes, events.Cursor())
	}
	if err == nil || errors.As(err, new(outputError)) {
		return err
	}
	return explainStatus(w.connection.address, err)
}

// tellCursor says where another run can go on.
func tellCursor(notes io.Writer, cursor string) {
	fmt.Fprintf(notes, "apikeys: to go on from here: --after=%s\n", output.Printable(cursor))
}
