package rest

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// The measures of a stream.
const (
	// drainTimeout is how long it has for the rest once the service has ended the
	// stream.
	drainTimeout = time.Second
	// chunk is the most that is written in one go. A client that takes one within
	// the AnswerTimeout is slow, not gone.
	chunk = 4 << 10
	// batch is about how much is written before it is flushed, if so much is
	// ready.
	batch = 32 << 10
	// prefetch is how many messages are fetched while the client takes others.
	prefetch = 16
)

// forward passes messages on until one side ends.
//
// The client ends it by going away, which cancels the stream, or by taking
// nothing for as long as AnswerTimeout, which fails the write. The service ends it
// for its own reasons: what is under way has drainTimeout to arrive, and the last
// line says why. Nothing is kept for a slow client beyond a few messages: the
// service waits, and reads on from the log.
func (e *exchange) forward(stream grpc.ClientStream, first *apikeysv1.WatchEventsResponse, form *format, cancel context.CancelFunc) {
	out := &deadlineWriter{w: e.w, control: http.NewResponseController(e.w), timeout: e.h.AnswerTimeout}
	in := &receiver{stream: stream, messages: make(chan *apikeysv1.WatchEventsResponse, prefetch), end: out.finishBy}
	var receiving sync.WaitGroup
	receiving.Go(in.receive)
	defer receiving.Wait() // it may use e.w, which ends with this call
	defer cancel()

	buf := form.message(nil, first)
	for open := true; open; {
		err := out.write(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && !out.finishing() {
			_ = e.settle(&failure{status: http.StatusTooManyRequests, reason: "SLOW_CONSUMER", cause: err})
		}
		if err != nil {
			return
		}
		buf, open = in.gather(buf, form)
	}
	if e.r.Context().Err() == nil {
		f := e.settle(in.err)
		_ = out.write(form.failure(buf, f.append(nil, e.h.tail))) // the last word
	}
}

// A receiver fetches the messages of a stream.
type receiver struct {
	stream   grpc.ClientStream
	messages chan *apikeysv1.WatchEventsResponse
	err      error  // why messages was closed
	end      func() // called when the service has ended the stream
}

// receive returns when the stream has ended.
func (in *receiver) receive() {
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
func (in *receiver) watchEnd() {
	none := new(apikeysv1.WatchEventsRequest)
	for in.stream.SendMsg(none) == nil {
	}
	in.end()
}

// gather replaces buf by the messages that are ready, after waiting for the
// first. It reports whether the stream is still open.
func (in *receiver) gather(buf []byte, form *format) ([]byte, bool) {
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

// A deadlineWriter writes to a client that may have stopped reading.
type deadlineWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration // how long the client may take nothing, as over gRPC

	mu   sync.Mutex
	last bool // the deadline that is set is the last
}

// write writes data and sends it on its way. A deadline belongs to one write and is
// taken away after it: over HTTP/2 one that passes ends the stream, writing or not.
func (o *deadlineWriter) write(data []byte) error {
	defer o.rest()
	for part := range slices.Chunk(data, chunk) {
		o.wait()
		if _, err := o.w.Write(part); err != nil {
			return err
		}
	}
	return o.control.Flush()
}

// rest takes the deadline away, unless it is the last.
func (o *deadlineWriter) rest() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.last {
		_ = o.control.SetWriteDeadline(time.Time{}) // a writer without deadlines does not block
	}
}

// wait gives what is written next the time that a client may take.
func (o *deadlineWriter) wait() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.last {
		o.limit(o.timeout)
	}
}

// finishBy makes drainTimeout the limit of all that is still to be written. It also
// ends a write that has begun.
func (o *deadlineWriter) finishBy() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.last {
		o.limit(drainTimeout)
		o.last = true
	}
}

func (o *deadlineWriter) finishing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

func (o *deadlineWriter) limit(d time.Duration) {
	_ = o.control.SetWriteDeadline(time.Now().Add(d)) // a writer without deadlines does not block
}
