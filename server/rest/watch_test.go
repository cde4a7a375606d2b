package rest_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/rest"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
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
	ch := rest.NewConnection()
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
	return string(wirejson.Append(nil, created(cursor).GetEvent()))
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
	t.Parallel()
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
		"filters":            {line: watchLine + "?types=api_key.created,api_key.revoked&resource_ids=a&resource_ids=b&heartbeat_seconds=5&after=start", request: &apikeysv1.WatchEventsRequest{Types: []string{"api_key.created", "api_key.revoked"}, ResourceIds: []string{"a", "b"}, HeartbeatSeconds: proto.Int32(5), After: "start"}, mediaType: "application/x-ndjson", want: lines},
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
			r := request(tc.line, "", tc.header...)
			w := do(h, r)
			checkDescribed(t, r, w)
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
	t.Parallel()
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
			r := request(tc.line, "", tc.header...)
			w := do(newHandler(t, feed{watch: send(tc.err)}.conn(), io.Discard), r)
			checkDescribed(t, r, w)
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
	t.Parallel()
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
	t.Parallel()
	f := &fakeAPI{answer: &apikeysv1.ListEventsResponse{Events: []*apikeysv1.Event{created("b").GetEvent()}, NextPageToken: "n"}}
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
