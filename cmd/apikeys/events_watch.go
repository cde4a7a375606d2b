package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// How long a watcher waits before it connects again: about the first of these,
// then twice as long each time, until a connection has lasted for the longest.
const (
	shortestDelay = 200 * time.Millisecond
	longestDelay  = 10 * time.Second
)

// A watcher follows a stream of events over as many connections as that takes.
// It knows one cursor, that of the last message that was printed, and every
// connection begins after it: so there is no gap and no event twice.
type watcher struct {
	// open begins a stream after a cursor. The function that comes with it closes
	// the connection.
	open    func(ctx context.Context, after string) (grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], func(), error)
	print   func(*apikeysv1.WatchEventsResponse) error
	notes   io.Writer
	address string
	now     func() time.Time
	random  func() float64
	wait    func(context.Context, time.Duration)

	cursor    string
	connected bool // a message has come, in this run
	lost      bool // the connection was lost, and no message has come since
	delays    int  // in a row
}

// watcher returns one that hands what a request asks for to take, message by
// message. Where the connection is lost it goes on after the last one that was
// taken.
func (c *connection) watcher(req *apikeysv1.WatchEventsRequest, take func(*apikeysv1.WatchEventsResponse) error, notes io.Writer) *watcher {
	return &watcher{
		open: func(ctx context.Context, after string) (grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], func(), error) {
			conn, err := c.dial()
			if err != nil {
				return nil, nil, err
			}
			again := proto.CloneOf(req)
			again.After = after
			stream, err := apikeysv1.NewEventsServiceClient(conn).WatchEvents(c.as(ctx), again)
			if err != nil {
				err = errors.Join(err, conn.Close())
			}
			return stream, func() { conn.Close() }, err
		},
		print:   take,
		notes:   notes,
		address: c.address,
		now:     time.Now,
		random:  rand.Float64,
		wait:    wait,
		cursor:  req.GetAfter(),
	}
}

// run follows until ctx is done, which is no error, or until an error that
// connecting again would not help against. A server that was never there is one
// too: its address may be wrong.
func (w *watcher) run(ctx context.Context) error {
	for {
		began := w.now()
		err := w.follow(ctx)
		switch code := status.Code(err); {
		case ctx.Err() != nil:
			w.tellCursor()
			return nil //nolint:nilerr // to end is what was asked for
		case isClosedPipe(err):
			return nil
		case errors.As(err, new(outputError)):
			w.tellCursor()
			return err
		case code == codes.OutOfRange: // the cursor is of no use any more
			return explainStatus(w.address, err)
		case isFinal(code), !w.connected:
			w.tellCursor()
			return explainStatus(w.address, err)
		}
		if w.now().Sub(began) >= longestDelay {
			w.delays = 0
		}
		delay := w.delay(err)
		if !w.lost {
			fmt.Fprintf(w.notes, "apikeys: connection lost, connecting again: %v\n", explainStatus(w.address, err))
		}
		w.lost = true
		w.wait(ctx, delay)
	}
}

// follow prints what one connection brings. Its error says why that ended.
func (w *watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, closeConn, err := w.open(ctx, w.cursor)
	if err != nil {
		return err
	}
	defer closeConn()
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.Unavailable, "the server ended the stream")
		}
		if err != nil {
			return err
		}
		if w.lost {
			fmt.Fprintln(w.notes, "apikeys: connected again")
		}
		w.connected, w.lost = true, false
		if err := w.print(m); err != nil {
			return err
		}
		w.cursor = m.GetCursor()
	}
}

// delay returns how long to wait now. Half of it is left to chance, so that the
// watchers of a server that comes back do not come all at once.
func (w *watcher) delay(err error) time.Duration {
	d := min(shortestDelay<<min(w.delays, 30), longestDelay)
	w.delays++
	d = d/2 + time.Duration(w.random()*float64(d/2))
	return max(d, retryAfter(err))
}

// tellCursor says where another run can go on, if this one has got anywhere.
func (w *watcher) tellCursor() {
	if w.connected {
		fmt.Fprintf(w.notes, "apikeys: to go on from here: --after=%s\n", w.cursor)
	}
}

// isFinal reports whether an error stays the same however often the call is made.
// Everything else may be a server that restarts, a proxy in between, or us, who
// were too slow.
func isFinal(code codes.Code) bool {
	switch code {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Unimplemented:
		return true
	default:
		return false
	}
}

// wait returns after d, or when ctx is done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
