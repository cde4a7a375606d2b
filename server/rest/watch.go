package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/wire"
)

const watchPath = "/developers/events/watch"

// The measures of a stream.
const (
	// patience is how long a client may take nothing, as over gRPC.
	patience = time.Minute
	// farewell is how long it has for the rest once the service has ended the
	// stream.
	farewell = time.Second
	// piece is the most that is written in one go. A client that takes one within
	// patience is slow, not gone.
	piece = 4 << 10
	// batch is about how much is written before it is flushed, if so much is
	// ready.
	batch = 32 << 10
	// ahead is how many messages are fetched while the client takes others.
	ahead = 16
)

// A format is a form that a stream of events can have.
type format struct {
	mediaType string
	message   func(dst []byte, m *apikeysv1.WatchEventsResponse) []byte
	failure   func(dst, envelope []byte) []byte
}

var (
	ndjson = &format{
		mediaType: "application/x-ndjson",
		message: func(dst []byte, m *apikeysv1.WatchEventsResponse) []byte {
			return append(wire.AppendWatchJSON(dst, m), '\n')
		},
		failure: func(dst, envelope []byte) []byte { return append(append(dst, envelope...), '\n') },
	}
	sse = &format{mediaType: "text/event-stream", message: appendSSE, failure: appendSSEFailure}
)

// formatOf is the format that an Accept header likes best, nil if it takes none.
// Lines of JSON are the default, and stand for JSON where only that is named.
func formatOf(accept []string) *format {
	level, quality := acceptance(accept, ndjson.mediaType)
	if level < 3 {
		if l, q := acceptance(accept, "application/json"); l == 3 {
			level, quality = l, q
		}
	}
	l, q := acceptance(accept, sse.mediaType)
	switch {
	case q > quality, q > 0 && q == quality && l > level:
		return sse
	case quality > 0:
		return ndjson
	}
	return nil
}

// watch answers GET /developers/events/watch. The service sends a first message
// at once, and until that is here nothing has been said: whatever fails before
// is an answer like any other.
func (c *call) watch() {
	md, anonymous := credentials(c.r.Header)
	form := formatOf(c.r.Header["Accept"])
	if form == nil {
		c.fail(errNoStream)
		return
	}
	req := new(apikeysv1.WatchEventsRequest)
	if !anonymous { // see conn.Invoke
		if err := c.readWatch(req); err != nil {
			c.fail(err)
			return
		}
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(authn.WithClient(c.r.Context(), clientOf(c.r)), md))
	defer cancel()
	stream, first, err := c.h.openWatch(ctx, req)
	switch {
	case c.r.Context().Err() != nil:
		return // nobody is there to answer
	case err != nil:
		c.fail(err)
		return
	}
	header := c.w.Header()
	header.Set("Content-Type", form.mediaType)
	header.Set("Cache-Control", "no-store, no-transform") // compressing proxies wait for more
	header.Set("X-Accel-Buffering", "no")                 // so does nginx
	c.done = true
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return
	}
	spaces.Put(c.space) // a stream lives long and has memory of its own
	c.space = new(space)
	c.relay(stream, first, form, cancel)
}

// readWatch reads the query and, in place of its cursor, Last-Event-ID, which
// is where an EventSource really is: its URL stays the one that it began with.
func (c *call) readWatch(req *apikeysv1.WatchEventsRequest) error {
	c.route = c.h.routes[place{c.verb, watchPath}]
	if err := c.readQuery(req); err != nil {
		return err
	}
	const name = "Last-Event-ID"
	switch ids := c.r.Header["Last-Event-Id"]; {
	case len(ids) > 1:
		return &wire.FieldsError{Problems: []wire.Problem{{Field: name, Text: "must be given once"}}}
	case len(ids) == 1 && ids[0] != "":
		req.After = ids[0]
	}
	return nil
}

// openWatch opens a stream of the service and waits for its first message.
func (h *Handler) openWatch(ctx context.Context, req *apikeysv1.WatchEventsRequest) (grpc.ClientStream, *apikeysv1.WatchEventsResponse, error) {
	desc := &apikeysv1.EventsService_ServiceDesc.Streams[0]
	stream, err := h.Conn.NewStream(ctx, desc, apikeysv1.EventsService_WatchEvents_FullMethodName)
	if err != nil {
		return nil, nil, err
	}
	// Refused before the request was read is io.EOF here; why, is received.
	if err := stream.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	first := new(apikeysv1.WatchEventsResponse)
	if err := stream.RecvMsg(first); err != nil {
		return nil, nil, err
	}
	return stream, first, nil
}

// relay passes messages on until one side ends.
//
// The client ends it by going away, which cancels the stream, or by taking
// nothing for as long as patience, which fails the write. The service ends it
// for its own reasons: what is under way has farewell to arrive, and the last
// line says why. Nothing is kept for a slow client beyond a few messages: the
// service waits, and reads on from the log.
func (c *call) relay(stream grpc.ClientStream, first *apikeysv1.WatchEventsResponse, form *format, cancel context.CancelFunc) {
	out := &outlet{w: c.w, control: http.NewResponseController(c.w)}
	in := &inlet{stream: stream, messages: make(chan *apikeysv1.WatchEventsResponse, ahead), end: out.hurry}
	var receiving sync.WaitGroup
	receiving.Go(in.receive)
	defer receiving.Wait() // it may use c.w, which ends with this call
	defer cancel()

	buf := form.message(nil, first)
	for open := true; open; {
		err := out.write(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && !out.hurried() {
			c.settle(&failure{status: http.StatusTooManyRequests, reason: "SLOW_CONSUMER", cause: err})
		}
		if err != nil {
			return
		}
		buf, open = in.gather(buf, form)
	}
	if c.r.Context().Err() == nil {
		f := c.settle(in.err)
		_ = out.write(form.failure(buf, f.append(nil, c.h.tail))) // the last word
	}
}

// An inlet fetches the messages of a stream.
type inlet struct {
	stream   grpc.ClientStream
	messages chan *apikeysv1.WatchEventsResponse
	err      error  // why messages was closed
	end      func() // called when the service has ended the stream
}

// receive returns when the stream has ended.
func (in *inlet) receive() {
	defer close(in.messages)
	var watching sync.WaitGroup
	defer watching.Wait()
	watched := false
	for {
		m := new(apikeysv1.WatchEventsResponse)
		if in.err = in.stream.RecvMsg(m); in.err != nil {
			in.end()
			return
		}
		select {
		case in.messages <- m:
			continue
		default:
		}
		// The client is behind. From here on the end of the stream lies behind
		// messages that nobody fetches, and has to be found out in another way.
		if !watched {
			watching.Go(in.watchEnd)
			watched = true
		}
		select {
		case in.messages <- m:
		case <-in.stream.Context().Done():
			in.err = in.stream.Context().Err()
			return
		}
	}
}

// watchEnd waits for the service's handler to end. It takes one message from
// us, which it has had, so further ones wait in the connection, the first in its
// buffer, until the stream is done.
func (in *inlet) watchEnd() {
	none := new(apikeysv1.WatchEventsRequest)
	for in.stream.SendMsg(none) == nil {
	}
	in.end()
}

// gather replaces buf by the messages that are ready, after waiting for the
// first. It reports whether the stream is still open.
func (in *inlet) gather(buf []byte, form *format) ([]byte, bool) {
	buf = buf[:0]
	for len(buf) < batch {
		select {
		case m, open := <-in.messages:
			if !open {
				return buf, false
			}
			buf = form.message(buf, m)
			continue
		default:
		}
		if len(buf) > 0 {
			break
		}
		// Ten thousand idle streams are to keep no buffers.
		m, open := <-in.messages
		if !open {
			return nil, false
		}
		buf = form.message(nil, m)
	}
	return buf, true
}

// An outlet writes to a client that may have stopped reading.
type outlet struct {
	w       http.ResponseWriter
	control *http.ResponseController

	mu   sync.Mutex
	last bool // the deadline that is set is the last
}

// write writes data and sends it on its way.
func (o *outlet) write(data []byte) error {
	for part := range slices.Chunk(data, piece) {
		o.wait()
		if _, err := o.w.Write(part); err != nil {
			return err
		}
	}
	return o.control.Flush()
}

// wait gives what is written next the time that a client may take.
func (o *outlet) wait() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.last {
		o.limit(patience)
	}
}

// hurry makes farewell the limit of all that is still to be written. It also
// ends a write that has begun.
func (o *outlet) hurry() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.last {
		o.limit(farewell)
		o.last = true
	}
}

func (o *outlet) hurried() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

func (o *outlet) limit(d time.Duration) {
	_ = o.control.SetWriteDeadline(time.Now().Add(d)) // a writer without deadlines does not block
}
