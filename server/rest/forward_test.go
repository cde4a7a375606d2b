package rest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// serveWatch serves a watch on a port of its own and returns a connection to it
// over which a request for the stream has gone.
func serveWatch(t *testing.T, protocol string, log io.Writer, watch func(*apikeysv1.WatchEventsRequest, watchStream) error) (*httptest.Server, net.Conn) {
	t.Helper()
	server := httptest.NewServer(newHandler(t, feed{watch: watch}.conn(), log))
	t.Cleanup(server.Close)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /developers/events/watch %s\r\nHost: h\r\nAuthorization: x\r\n\r\n", protocol)
	return server, conn
}

// Each message is there before the next is sent, and the end is told.
func TestWatchIsLive(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/1.0"} {
		t.Run(protocol, func(t *testing.T) {
			next, end := make(chan *apikeysv1.WatchEventsResponse), gone(t)
			server, conn := serveWatch(t, protocol, t.Output(), func(_ *apikeysv1.WatchEventsRequest, stream watchStream) error {
				for m := range next {
					if err := stream.Send(m); err != nil {
						return err
					}
				}
				return end
			})
			next <- heartbeat("0")
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			lines := bufio.NewReader(answer.Body)
			for i := range 3 {
				if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf(`{"cursor":"%d"}`+"\n", i) {
					t.Fatalf("%d: %q, %v", i, line, err)
				}
				if i < 2 {
					next <- heartbeat(fmt.Sprint(i + 1))
				}
			}
			// A shutdown waits for the handler, which ends with the service.
			stopped := make(chan error, 1)
			go func() { stopped <- server.Config.Shutdown(context.WithoutCancel(t.Context())) }()
			close(next)
			if rest, err := io.ReadAll(lines); err != nil || string(rest) != goneEnvelope+"\n" {
				t.Errorf("%q, %v", rest, err)
			}
			if err := <-stopped; err != nil {
				t.Error(err)
			}
		})
	}
}

// A client that goes away ends the stream of the service.
func TestWatchClientGone(t *testing.T) {
	t.Parallel()
	ended := make(chan error)
	var log bytes.Buffer
	server, conn := serveWatch(t, "HTTP/1.1", &log, func(_ *apikeysv1.WatchEventsRequest, stream watchStream) error {
		err := stream.Send(heartbeat("0"))
		<-stream.Context().Done()
		ended <- err
		return stream.Context().Err()
	})
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	answer.Body.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	server.Close()
	if log.Len() > 0 {
		t.Errorf("log: %s", log.String())
	}
}

// A stuck is a ResponseWriter of a client that takes one message and no more.
// A write waits for a deadline within soon.
type stuck struct {
	*httptest.ResponseRecorder
	soon   time.Duration
	writes int

	mu   sync.Mutex
	wake chan struct{} // closed when the deadline is near
}

func (s *stuck) Write(data []byte) (int, error) {
	if s.writes++; s.writes == 1 {
		return s.ResponseRecorder.Write(data)
	}
	<-s.wake
	return 0, os.ErrDeadlineExceeded
}

func (s *stuck) SetWriteDeadline(at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.IsZero() { // The deadline of an ordinary answer is taken back for a stream.
		s.wake = make(chan struct{})
		return nil
	}
	select {
	case <-s.wake:
	default:
		if time.Until(at) <= s.soon {
			close(s.wake)
		}
	}
	return nil
}

// A client that stops reading is waited for as long as AnswerTimeout says, and no
// longer than the service has anything to say.
func TestWatchStuck(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		soon   time.Duration
		ends   bool // the service ends by itself
		fill   int  // how many messages it has to say
		logged bool
	}{
		"for good":                       {soon: time.Minute, fill: 1, logged: true},
		"for good, before a jam":         {soon: time.Minute, fill: 100, logged: true},
		"until the service ends":         {soon: time.Second, fill: 1, ends: true},
		"until it ends, behind a jam":    {soon: time.Second, fill: 100, ends: true},
		"until it ends, with no jam yet": {soon: time.Second, fill: 8, ends: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan struct{})
				var log bytes.Buffer
				h := newHandler(t, feed{watch: func(_ *apikeysv1.WatchEventsRequest, stream watchStream) error {
					defer close(ended)
					if err := stream.Send(heartbeat("0")); err != nil {
						return err
					}
					// A send can wait for ever, so whoever means to end has it done.
					go send(nil, slices.Repeat([]*apikeysv1.WatchEventsResponse{heartbeat(strings.Repeat("1", 1<<10))}, tc.fill)...)(nil, stream)
					synctest.Wait() // until nothing moves any more
					if tc.ends {
						return errors.New("no more")
					}
					<-stream.Context().Done()
					return stream.Context().Err()
				}}.conn(), &log)
				w := &stuck{ResponseRecorder: httptest.NewRecorder(), soon: tc.soon, wake: make(chan struct{})}
				h.ServeHTTP(w, request(watchLine, ""))
				<-ended
				if got := strings.Contains(log.String(), "reason=SLOW_CONSUMER"); got != tc.logged {
					t.Errorf("log: %s", log.String())
				}
				if got := w.Body.String(); got != `{"cursor":"0"}`+"\n" {
					t.Errorf("wrote %s", got)
				}
			})
		})
	}
}

// Messages that are ready at the same time are flushed together, all of them and
// in their order.
func TestWatchOrder(t *testing.T) {
	t.Parallel()
	const n = 10_000
	var want strings.Builder
	messages := make([]*apikeysv1.WatchEventsResponse, n)
	for i := range messages {
		messages[i] = heartbeat(fmt.Sprint(i))
		fmt.Fprintf(&want, `{"cursor":"%d"}`+"\n", i)
	}
	w := do(newHandler(t, feed{watch: send(gone(t), messages...)}.conn(), io.Discard), request(watchLine, ""))
	if got := w.Body.String(); got != want.String()+goneEnvelope+"\n" {
		t.Errorf("%d bytes, want %d", len(got), want.Len()+len(goneEnvelope)+1)
	}
}

// The stream is there over HTTP/2 too, where flow control and deadlines are the
// stream's own.
func TestWatchHTTP2(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(newHandler(t, feed{watch: send(gone(t), heartbeat("a"))}.conn(), io.Discard))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	r := request("GET "+server.URL+"/developers/events/watch", "")
	r.RequestURI = ""
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || answer.ProtoMajor != 2 || string(body) != `{"cursor":"a"}`+"\n"+goneEnvelope+"\n" {
		t.Errorf("%s %s, %v", answer.Proto, body, err)
	}
}

// A panic in a stream cuts it off: nobody may take its end for the last line.
func TestWatchPanic(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := newHandler(t, feed{watch: send(gone(t), heartbeat("a"))}.conn(), &log)
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) || !strings.Contains(log.String(), "boom") {
			t.Errorf("recovered %v, logged %s", err, log.String())
		}
	}()
	h.ServeHTTP(explosive{httptest.NewRecorder()}, request(watchLine, ""))
}

type explosive struct{ *httptest.ResponseRecorder }

func (explosive) Write([]byte) (int, error) { panic("boom") }
