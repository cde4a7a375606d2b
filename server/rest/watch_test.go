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

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/testing/protocmp"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

type watchStream = grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]

// A feed is the service of events as a function.
type feed struct {
	apikeysv1.UnimplementedEventsServiceServer
	watch func(*apikeysv1.WatchEventsRequest, watchStream) error
}

func (f feed) WatchEvents(req *apikeysv1.WatchEventsRequest, stream watchStream) error {
	return f.watch(req, stream)
}

func (f feed) conn() *inprocgrpc.Channel {
	ch := new(inprocgrpc.Channel)
	apikeysv1.RegisterEventsServiceServer(ch, f)
	return ch
}

// send returns a watch that sends messages and ends with err.
func send(err error, messages ...*apikeysv1.WatchEventsResponse) func(*apikeysv1.WatchEventsRequest, watchStream) error {
	return func(_ *apikeysv1.WatchEventsRequest, stream watchStream) error {
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		return err
	}
}

func heartbeat(cursor string) *apikeysv1.WatchEventsResponse {
	return &apikeysv1.WatchEventsResponse{Cursor: cursor}
}

func created(cursor string) *apikeysv1.WatchEventsResponse {
	return &apikeysv1.WatchEventsResponse{Cursor: cursor, Event: &apikeysv1.Event{
		Id: "event_1", Type: "api_key.created", OrganizationId: "org_default", ResourceId: keyID,
		Actor: &apikeysv1.Actor{Kind: "operator", Id: "root"}, RequestId: "request_1",
		CreatedAt: at("2026-05-30 20:23:16"), Cursor: cursor,
	}}
}

func createdJSON(cursor string) string {
	return `{"id":"event_1","type":"api_key.created","organization_id":"org_default","resource_id":"` + keyID +
		`","api_key":null,"changes":[],"actor":{"kind":"operator","id":"root"},"request_id":"request_1","created_at":"2026-05-30 20:23:16","cursor":"` + cursor + `"}`
}

// gone is the error with which the service ends streams at its stop.
func gone(t *testing.T) error {
	return statusOf(t, codes.Unavailable, "The server is stopping.",
		&errdetails.ErrorInfo{Reason: "UNAVAILABLE", Domain: "apikeys"}, &errdetails.RequestInfo{RequestId: "request_a", ServingData: "support_b"})
}

const (
	watchLine    = "GET /developers/events/watch"
	goneEnvelope = `{"status":503,"data":null,"error":"The server is stopping.","log":{"reason":"UNAVAILABLE","request_id":"request_a"},` +
		`"validator":null,"support_id":"support_b","message":null,"env":"development"}`
)

func TestWatch(t *testing.T) {
	lines := `{"cursor":"a"}` + "\n" + `{"cursor":"b","event":` + createdJSON("b") + "}\n" + goneEnvelope + "\n"
	events := ": heartbeat\nid: a\n\n" + "id: b\nevent: api_key.created\ndata: " + createdJSON("b") + "\n\n" + "event: error\ndata: " + goneEnvelope + "\n\n"
	tests := map[string]struct {
		line      string
		header    []string
		request   *apikeysv1.WatchEventsRequest
		mediaType string
		want      string
	}{
		"lines":              {line: watchLine, mediaType: "application/x-ndjson", want: lines},
		"lines by name":      {line: watchLine, header: []string{"Accept: text/event-stream;q=0.5, application/x-ndjson"}, mediaType: "application/x-ndjson", want: lines},
		"events":             {line: watchLine, header: []string{"Accept: text/event-stream"}, mediaType: "text/event-stream", want: events},
		"events, preferred":  {line: watchLine, header: []string{"Accept: application/json;q=0.9, text/event-stream"}, mediaType: "text/event-stream", want: events},
		"HEAD":               {line: "HEAD /developers/events/watch", mediaType: "application/x-ndjson"},
		"filters":            {line: watchLine + "?types=api_key.created,api_key.revoked&resource_ids=a&resource_ids=b&heartbeat_seconds=5&after=start", request: &apikeysv1.WatchEventsRequest{Types: []string{"api_key.created", "api_key.revoked"}, ResourceIds: []string{"a", "b"}, HeartbeatSeconds: 5, After: "start"}, mediaType: "application/x-ndjson", want: lines},
		"last id":            {line: watchLine, header: []string{"Last-Event-ID: z"}, request: &apikeysv1.WatchEventsRequest{After: "z"}, mediaType: "application/x-ndjson", want: lines},
		"last id over after": {line: watchLine + "?after=start", header: []string{"Last-Event-ID: z"}, request: &apikeysv1.WatchEventsRequest{After: "z"}, mediaType: "application/x-ndjson", want: lines},
		"empty last id":      {line: watchLine + "?after=y", header: []string{"Last-Event-ID:"}, request: &apikeysv1.WatchEventsRequest{After: "y"}, mediaType: "application/x-ndjson", want: lines},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var got *apikeysv1.WatchEventsRequest
			answer := send(gone(t), heartbeat("a"), created("b"))
			var log bytes.Buffer
			h := newHandler(t, feed{watch: func(req *apikeysv1.WatchEventsRequest, stream watchStream) error {
				got = req
				return answer(req, stream)
			}}.conn(), &log)
			w := do(h, request(tc.line, "", tc.header...))
			if diff := cmp.Diff(tc.want, w.Body.String()); w.Code != http.StatusOK || diff != "" {
				t.Errorf("%d (-want +got)\n%s", w.Code, diff)
			}
			want := tc.request
			if want == nil {
				want = &apikeysv1.WatchEventsRequest{}
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("request (-want +got)\n%s", diff)
			}
			for name, want := range map[string]string{
				"Content-Type": tc.mediaType, "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no",
				"X-Content-Type-Options": "nosniff", "Content-Length": "",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %q", name, got)
				}
			}
			if log.Len() > 0 {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}

// What fails before the first message is an answer like any other.
func TestWatchRefused(t *testing.T) {
	expired := statusOf(t, codes.OutOfRange, "The cursor is too old.",
		&errdetails.ErrorInfo{Reason: "CURSOR_EXPIRED", Domain: "apikeys", Metadata: map[string]string{"oldest": "c"}},
		&errdetails.RequestInfo{RequestId: "request_a", ServingData: "support_b"})
	const noStream = "Events come as application/x-ndjson or text/event-stream; the header Accept excludes both."
	tests := map[string]struct {
		line   string
		header []string
		err    error
		want   string
	}{
		"cursor":       {line: watchLine + "?after=x", err: expired, want: `{"status":400,"data":null,"error":"The cursor is too old.","log":{"reason":"CURSOR_EXPIRED","request_id":"request_a","oldest":"c"},"validator":null,"support_id":"support_b","message":null,"env":"development"}`},
		"as events":    {line: watchLine, header: []string{"Accept: text/event-stream"}, err: gone(t), want: goneEnvelope},
		"HEAD":         {line: "HEAD /developers/events/watch", err: gone(t)},
		"accept":       {line: watchLine, header: []string{"Accept: text/html"}, want: failure(406, noStream, "NOT_ACCEPTABLE", "null")},
		"unknown":      {line: watchLine + "?token=x", want: failure(400, "token is not a known parameter.", "INVALID_ARGUMENT", `{"token":"is not a known parameter"}`)},
		"number":       {line: watchLine + "?heartbeat_seconds=soon", want: failure(400, "heartbeat_seconds must be a whole number.", "INVALID_ARGUMENT", `{"heartbeat_seconds":"must be a whole number"}`)},
		"query":        {line: watchLine + "?a;b", want: failure(400, "The query is not valid: escape its values, and separate them with &.", "MALFORMED_QUERY", "null")},
		"two last ids": {line: watchLine, header: []string{"Last-Event-ID: a", "Last-Event-ID: b"}, want: failure(400, "Last-Event-ID must be given once.", "INVALID_ARGUMENT", `{"Last-Event-ID":"must be given once"}`)},
		"method":       {line: "POST /developers/events/watch", want: failure(405, "This path takes GET, HEAD, OPTIONS.", "METHOD_NOT_ALLOWED", "null")},
		"no error":     {line: watchLine, want: failure(500, "Something went wrong on our side. Quote the support_id when you report it.", "INTERNAL", "null")},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := do(newHandler(t, feed{watch: send(tc.err)}.conn(), io.Discard), request(tc.line, "", tc.header...))
			if diff := cmp.Diff(tc.want, w.Body.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if tc.want != "" {
				checkEnvelope(t, w)
			}
		})
	}
}

// Who has no credential is the service's to refuse, before it reads anything.
func TestWatchAnonymous(t *testing.T) {
	var md metadata.MD
	ch := feed{watch: send(nil)}.conn().WithServerStreamInterceptor(func(_ any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, _ grpc.StreamHandler) error {
		md, _ = metadata.FromIncomingContext(stream.Context())
		return statusOf(t, codes.Unauthenticated, "Who?", &errdetails.ErrorInfo{Reason: "UNAUTHENTICATED", Domain: "apikeys"})
	})
	w := do(newHandler(t, ch, io.Discard), request(watchLine+"?token=x", "", "Authorization:", "X-Organization-Id: o", "Cookie: a=b"))
	checkEnvelope(t, w)
	if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if diff := cmp.Diff(metadata.MD{"x-organization-id": {"o"}}, md); diff != "" {
		t.Errorf("metadata (-want +got)\n%s", diff)
	}
}

func TestListEvents(t *testing.T) {
	f := &face{answer: &apikeysv1.ListEventsResponse{Events: []*apikeysv1.Event{created("b").GetEvent()}, NextPageToken: "n"}}
	ch := f.conn()
	apikeysv1.RegisterEventsServiceServer(ch, feed{})
	w := do(newHandler(t, ch, io.Discard), request("GET /developers/events?after=start&types=a,b&page_size=1", ""))
	checkEnvelope(t, w)
	if diff := cmp.Diff(success("["+createdJSON("b")+"]", "Events listed"), w.Body.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got, want := w.Header().Get("Link"), `</developers/events?after=start&page_size=1&page_token=n&types=a%2Cb>; rel="next"`; got != want {
		t.Errorf("Link: %s", got)
	}
	want := &apikeysv1.ListEventsRequest{After: "start", Types: []string{"a", "b"}, PageSize: 1}
	if diff := cmp.Diff(want, f.request, protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got)\n%s", diff)
	}
}

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
	ended := make(chan error)
	var log bytes.Buffer
	server, conn := serveWatch(t, "HTTP/1.1", &log, func(_ *apikeysv1.WatchEventsRequest, stream watchStream) error {
		err := stream.Send(heartbeat("0"))
		<-stream.Context().Done()
		ended <- err
		return stream.Context().Err()
	})
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		t.Fatal(err)
	}
	conn.Close()
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
	select {
	case <-s.wake:
	default:
		if time.Until(at) <= s.soon {
			close(s.wake)
		}
	}
	return nil
}

// A client that stops reading is waited for as long as its patience, and no
// longer than the service has anything to say.
func TestWatchStuck(t *testing.T) {
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
	var log bytes.Buffer
	h := newHandler(t, feed{watch: send(gone(t), heartbeat("a"))}.conn(), &log)
	defer func() {
		if v := recover(); v != http.ErrAbortHandler || !strings.Contains(log.String(), "boom") {
			t.Errorf("recovered %v, logged %s", v, log.String())
		}
	}()
	h.ServeHTTP(explosive{httptest.NewRecorder()}, request(watchLine, ""))
}

type explosive struct{ *httptest.ResponseRecorder }

func (explosive) Write([]byte) (int, error) { panic("boom") }
