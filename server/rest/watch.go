package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

const watchPath = "/developers/events/watch"

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
			return append(wirejson.AppendWatch(dst, m), '\n')
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
func (e *exchange) watch() {
	form := formatOf(e.r.Header["Accept"])
	ctx := e.context()
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, credentials(e.r.Header)))
	defer cancel()
	stream, first, err := e.h.openWatch(ctx, &unreadRequest{
		message: new(apikeysv1.WatchEventsRequest),
		fill: func(m proto.Message) error {
			if form == nil {
				return errNoStream
			}
			return e.readWatch(m.(*apikeysv1.WatchEventsRequest))
		},
	})
	switch {
	case e.r.Context().Err() != nil:
		return // nobody is there to answer
	case err != nil:
		e.fail(err)
		return
	}
	// The deadlines of the request end with it. Over HTTP/1.1 that of its body would
	// else end the stream.
	control := http.NewResponseController(e.w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{}) // a writer without deadlines does not block
	header := e.w.Header()
	header.Set("Content-Type", form.mediaType)
	header.Set("Cache-Control", "no-store, no-transform") // compressing proxies wait for more
	header.Set("X-Accel-Buffering", "no")                 // so does nginx
	e.done = true
	e.w.WriteHeader(http.StatusOK)
	if e.r.Method == http.MethodHead {
		return
	}
	bufferPool.Put(e.buffers) // a stream lives long and has memory of its own
	e.buffers = new(buffers)
	e.forward(stream, first, form, cancel)
}

// readWatch reads the query and, in place of its cursor, Last-Event-ID, which
// is where an EventSource really is: its URL stays the one that it began with.
func (e *exchange) readWatch(req *apikeysv1.WatchEventsRequest) error {
	var problems []apikey.FieldProblem
	if err := collect(&problems, e.readQuery(req)); err != nil {
		return err
	}
	const name = "Last-Event-ID"
	switch ids := e.r.Header["Last-Event-Id"]; {
	case len(ids) > 1:
		problems = append(problems, apikey.FieldProblem{Field: name, Problem: "must be given once"})
	case len(ids) == 1 && ids[0] != "":
		req.After = ids[0]
	}
	if len(problems) > 0 {
		return apikey.InvalidFields(problems)
	}
	return nil
}

// openWatch opens a stream of the service and waits for its first message.
func (h *Handler) openWatch(ctx context.Context, unread *unreadRequest) (grpc.ClientStream, *apikeysv1.WatchEventsResponse, error) {
	defer unread.abandon()
	desc := &apikeysv1.EventsService_ServiceDesc.Streams[0]
	stream, err := h.Conn.NewStream(ctx, desc, apikeysv1.EventsService_WatchEvents_FullMethodName)
	if err != nil {
		return nil, nil, err
	}
	// Refused before the request was read is io.EOF here; why, is received.
	if err := stream.SendMsg(unread); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	first := new(apikeysv1.WatchEventsResponse)
	if err := stream.RecvMsg(first); err != nil {
		return nil, nil, err
	}
	return stream, first, nil
}

// Server-Sent Events, as the HTML standard has them. A block without data is no
// event for whoever listens, but its id counts all the same: the last event id
// is set before the data is looked at. So a heartbeat moves what an EventSource
// sends as Last-Event-ID, and nobody sees it.
//
// Neither cursors nor types nor our JSON have line ends, so each is one line.

// appendSSE appends a message of the stream.
func appendSSE(dst []byte, m *apikeysv1.WatchEventsResponse) []byte {
	event := m.GetEvent()
	if event == nil {
		dst = append(dst, ": heartbeat\n"...)
	}
	dst = append(append(dst, "id: "...), m.GetCursor()...)
	if event != nil {
		dst = append(append(dst, "\nevent: "...), event.GetType()...)
		dst = wirejson.Append(append(dst, "\ndata: "...), event)
	}
	return append(dst, "\n\n"...)
}

// appendSSEFailure appends the end of a stream that failed. It has no id, so
// that the one before stays the place to go on after.
func appendSSEFailure(dst, envelope []byte) []byte {
	dst = append(append(dst, "event: error\ndata: "...), envelope...)
	return append(dst, "\n\n"...)
}
