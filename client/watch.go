package client

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// Watcher follows the events of a server over as many connections as that takes. It
// knows one cursor, that of the last message that was taken, and every connection begins
// after it: so there is no gap and, while the program lives, no event twice.
//
// A program that must not miss an event stores the cursor together with what it makes of
// the event, and gives it to [Client.Watcher] when it starts again.
type Watcher struct {
	// Lost is told why a connection ended, once until the next message comes. Nil for
	// nobody.
	Lost func(error)
	// Found is told of the first message after that. Nil for nobody.
	Found func()
	// MustConnect has Run end where the server cannot be reached at first: its address
	// may be wrong. Else the watcher tries on.
	MustConnect bool

	// open begins a stream after a cursor. The function that comes with it closes the
	// connection.
	open   func(ctx context.Context, after string) (grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], func(), error)
	now    func() time.Time
	random func() float64
	wait   func(context.Context, time.Duration)

	cursor    string
	connected bool // a message has come, in this run
	lost      bool // the connection was lost, and no message has come since
	delays    int  // in a row
}

// Watcher returns a watcher of the events that a request asks for, after its cursor. It
// has a connection of its own, so that it holds up no verification.
func (c *Client) Watcher(req *apikeysv1.WatchEventsRequest) *Watcher {
	return &Watcher{
		open: func(ctx context.Context, after string) (grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], func(), error) {
			conn, err := c.dial()
			if err != nil {
				return nil, nil, err
			}
			again := proto.CloneOf(req)
			again.After = after
			stream, err := apikeysv1.NewEventsServiceClient(conn).WatchEvents(ctx, again)
			if err != nil {
				err = errors.Join(err, conn.Close())
			}
			return stream, func() { _ = conn.Close() }, err
		},
		now: c.now, random: c.random, wait: c.wait,
		cursor: req.GetAfter(),
	}
}

// Cursor returns after which message Run would go on: the last one that was taken, or
// what the request said. It is for the goroutine that runs the watcher, and for others
// once Run has returned.
func (w *Watcher) Cursor() string { return w.cursor }

// Connected reports whether any message has come. The same holds for it as for Cursor.
func (w *Watcher) Connected() bool { return w.connected }

// takeError is an error of the function that takes messages.
type takeError struct{ error }

func (e takeError) Unwrap() error { return e.error }

// Run hands message by message to take, one after the other. A message without an event
// is a heartbeat; its cursor is as good as an event's. Run follows until ctx is done,
// which is no error, until take returns an error, which Run returns, or until the server
// says what connecting again would not help against: a status of gRPC, of which
// OUT_OF_RANGE means that the cursor is older than what is kept.
func (w *Watcher) Run(ctx context.Context, take func(*apikeysv1.WatchEventsResponse) error) error {
	for {
		began := w.now()
		err := w.follow(ctx, take)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // to end is what was asked for
		}
		if taken, ok := errors.AsType[takeError](err); ok {
			return taken.error
		}
		if isFinal(status.Code(err)) || w.MustConnect && !w.connected {
			return err
		}
		if w.now().Sub(began) >= longestDelay {
			w.delays = 0
		}
		delay := w.delay(err)
		if !w.lost && w.Lost != nil {
			w.Lost(err)
		}
		w.lost = true
		w.wait(ctx, delay)
	}
}

// follow takes what one connection brings. Its error says why that ended.
func (w *Watcher) follow(ctx context.Context, take func(*apikeysv1.WatchEventsResponse) error) error {
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
		if w.lost && w.Found != nil {
			w.Found()
		}
		w.connected, w.lost = true, false
		if err := take(m); err != nil {
			return takeError{err}
		}
		w.cursor = m.GetCursor()
	}
}

// delay returns how long to wait now.
func (w *Watcher) delay(err error) time.Duration {
	d := min(shortestDelay<<min(w.delays, 30), longestDelay)
	w.delays++
	return max(jittered(d, w.random()), RetryAfter(err))
}

// isFinal reports whether an error stays the same however often the call is made.
// Everything else may be a server that restarts, a proxy in between, or us, who were too
// slow.
func isFinal(code codes.Code) bool {
	switch code {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented:
		return true
	default:
		return false
	}
}
