package rest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/rest"
)

// failure is the envelope of a failure that began in the REST API.
func failure(status int, text, reason, validator string) string {
	return fmt.Sprintf(`{"status":%d,"data":null,"error":%q,"log":{"reason":%q,"request_id":"request_1"},"validator":%s,"support_id":"support_2","message":null,"env":"development"}`,
		status, text, reason, validator)
}

// Failures of the layer of HTTP: none of these reaches the gRPC API.
func TestFailures(t *testing.T) {
	t.Parallel()
	const (
		noRoute  = "There is nothing at this path. Check its spelling; a path has no slash at its end."
		notJSON  = "Send the body as JSON in UTF-8, with the header Content-Type: application/json."
		notFound = "ROUTE_NOT_FOUND"
		invalid  = "INVALID_ARGUMENT"
		patch    = "PATCH " + keyPath
		create   = "POST /developers/api_keys"
		ifMatch  = "must be one etag in double quotes, or *"
	)
	tests := map[string]struct {
		line, body string
		header     []string
		want       string
		allow      string
	}{
		"unknown path":    {line: "GET /nowhere", want: failure(404, noRoute, notFound, "null")},
		"root":            {line: "GET /", want: failure(404, noRoute, notFound, "null")},
		"trailing slash":  {line: "GET /developers/api_keys/", want: failure(404, noRoute, notFound, "null")},
		"double slash":    {line: "GET /developers//api_keys", want: failure(404, noRoute, notFound, "null")},
		"leading slashes": {line: "GET //developers/api_keys", want: failure(404, noRoute, notFound, "null")},
		"dots":            {line: "GET /developers/x/../api_keys", want: failure(404, noRoute, notFound, "null")},
		"escaped dots":    {line: "GET /developers/%2e%2e/developers/api_keys", want: failure(404, noRoute, notFound, "null")},
		"escaped slash":   {line: "POST /developers/api_keys/x%2frotate", want: failure(404, noRoute, notFound, "null")},
		"not UTF-8":       {line: "GET /developers/api_keys/%ff", want: failure(404, noRoute, notFound, "null")},
		"a verb":          {line: "POST " + keyPath + ":rotate", allow: "GET, HEAD, PUT, PATCH, DELETE, OPTIONS", want: failure(405, "This path takes GET, HEAD, PUT, PATCH, DELETE, OPTIONS.", "METHOD_NOT_ALLOWED", "null")},
		"OPTIONS nowhere": {line: "OPTIONS /nowhere", want: failure(404, noRoute, notFound, "null")},
		"method":          {line: "DELETE /developers/api_keys", allow: "GET, HEAD, POST, OPTIONS", want: failure(405, "This path takes GET, HEAD, POST, OPTIONS.", "METHOD_NOT_ALLOWED", "null")},
		"strange method":  {line: "BREW /healthz", allow: "GET, HEAD, OPTIONS", want: failure(405, "This path takes GET, HEAD, OPTIONS.", "METHOD_NOT_ALLOWED", "null")},
		"form as get":     {line: "POST /readyz", body: "a=b", header: []string{"Content-Type: application/x-www-form-urlencoded"}, allow: "GET, HEAD, OPTIONS", want: failure(405, "This path takes GET, HEAD, OPTIONS.", "METHOD_NOT_ALLOWED", "null")},
		"accept":          {line: "GET " + keyPath, header: []string{"Accept: application/json;q=0, */*"}, want: failure(406, "Answers are application/json, which the header Accept excludes.", "NOT_ACCEPTABLE", "null")},
		"form":            {line: create, body: "label=x", header: []string{"Content-Type: application/x-www-form-urlencoded"}, want: failure(415, notJSON, "UNSUPPORTED_MEDIA_TYPE", "null")},
		"charset":         {line: create, body: "{}", header: []string{"Content-Type: application/json; charset=latin1"}, want: failure(415, notJSON, "UNSUPPORTED_MEDIA_TYPE", "null")},
		"patch by post":   {line: create, body: "{}", header: []string{"Content-Type: application/merge-patch+json"}, want: failure(415, notJSON, "UNSUPPORTED_MEDIA_TYPE", "null")},
		"compressed":      {line: create, body: "{}", header: []string{"Content-Encoding: gzip"}, want: failure(415, "Send the body without Content-Encoding.", "UNSUPPORTED_MEDIA_TYPE", "null")},
		"too large":       {line: create, body: `{"label": "` + strings.Repeat("x", 1<<20) + `"}`, want: failure(413, "The body is larger than 1 MiB.", "REQUEST_TOO_LARGE", "null")},
		"malformed":       {line: create, body: `{"label": }`, want: failure(400, "The body is not valid JSON: expected a value at line 1, column 11.", "MALFORMED_JSON", "null")},
		"field":           {line: create, body: `{"label": 1}`, want: failure(400, "label must be a string.", invalid, `{"label":"must be a string"}`)},
		"two fields":      {line: create, body: `{"label": 1, "id": "x"}`, want: failure(400, "label must be a string; 1 more field is not valid.", invalid, `{"label":"must be a string","id":"is not a known field"}`)},
		"three fields":    {line: create, body: `{"scopes": [1], "x": 1, "\"": {}}`, want: failure(400, "scopes[0] must be a string; 2 more fields are not valid.", invalid, `{"scopes[0]":"must be a string","x":"is not a known field","\"":"is not a known field"}`)},
		"read-only":       {line: patch, body: `{"secret": "x"}`, want: failure(400, "secret is read-only.", invalid, `{"secret":"is read-only"}`)},
		"put":             {line: "PUT " + keyPath, body: `{"description": "x"}`, want: failure(400, "label is required.", invalid, `{"label":"is required"}`)},
		"id in a body":    {line: "POST " + keyPath + "/rotate", body: `{"id": "x"}`, want: failure(400, "id is not a known field.", invalid, `{"id":"is not a known field"}`)},
		"query":           {line: "GET /developers/api_keys?page_size=many&api_key=sk", want: failure(400, "api_key is not a known parameter; 1 more field is not valid.", invalid, `{"api_key":"is not a known parameter","page_size":"must be a whole number"}`)},
		"query and body":  {line: create + "?label=x", body: "{}", want: failure(400, "label is not a known parameter.", invalid, `{"label":"is not a known parameter"}`)},
		"query and id":    {line: "GET " + keyPath + "?id=x", want: failure(400, "id is not a known parameter.", invalid, `{"id":"is not a known parameter"}`)},
		"broken query":    {line: "GET /developers/api_keys?q=%zz", want: failure(400, "The query is not valid: escape its values, and separate them with &.", "MALFORMED_QUERY", "null")},
		"two etags":       {line: patch, header: []string{`If-Match: "1", "2"`}, want: failure(400, "If-Match "+ifMatch+".", invalid, `{"If-Match":"`+ifMatch+`"}`)},
		"two lines":       {line: patch, header: []string{`If-Match: "1"`, `If-Match: "1"`}, want: failure(400, "If-Match "+ifMatch+".", invalid, `{"If-Match":"`+ifMatch+`"}`)},
		"bare etag":       {line: patch, header: []string{`If-Match: 1`}, want: failure(400, "If-Match "+ifMatch+".", invalid, `{"If-Match":"`+ifMatch+`"}`)},
		"other etag":      {line: patch, body: `{"etag": "2"}`, header: []string{`If-Match: "1"`}, want: failure(400, "etag is not the one of If-Match.", invalid, `{"etag":"is not the one of If-Match"}`)},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			f := &fakeAPI{err: errors.New("reached")}
			r := request(tc.line, tc.body, tc.header...)
			w := do(newHandler(t, f.conn(), io.Discard), r)
			checkEnvelope(t, w)
			checkDescribed(t, r, w)
			if diff := cmp.Diff(tc.want, w.Body.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if got := w.Header().Get("Allow"); got != tc.allow {
				t.Errorf("Allow: %s", got)
			}
			if f.request != nil {
				t.Error("the gRPC API was reached")
			}
		})
	}
}

// statusOf is a status as the gRPC API makes it.
func statusOf(t *testing.T, code codes.Code, text string, details ...protoadapt.MessageV1) error {
	t.Helper()
	st, err := status.New(code, text).WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

func TestStatus(t *testing.T) {
	t.Parallel()
	info := func(reason string) *errdetails.ErrorInfo {
		return &errdetails.ErrorInfo{Reason: reason, Domain: "apikeys", Metadata: map[string]string{"oldest": "c", "reason": "x"}}
	}
	ids := &errdetails.RequestInfo{RequestId: "request_a", ServingData: "support_b"}
	wait := func(d time.Duration) *errdetails.RetryInfo {
		return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
	}
	violations := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "api_key.label", Description: "is required"}, {Field: "etag", Description: "is too long"},
	}}
	known := func(status int, text, reason, validator string) string {
		return fmt.Sprintf(`{"status":%d,"data":null,"error":%q,"log":{"reason":%q,"request_id":"request_a","oldest":"c"},"validator":%s,"support_id":"support_b","message":null,"env":"development"}`,
			status, text, reason, validator)
	}
	const fixed = "Something went wrong on our side. Quote the support_id when you report it."
	tests := map[string]struct {
		err    error
		want   string
		header map[string]string
		logged bool
	}{
		"invalid":         {err: statusOf(t, codes.InvalidArgument, "No.", info("INVALID_ARGUMENT"), ids, violations), want: known(400, "No.", "INVALID_ARGUMENT", `{"label":"is required","etag":"is too long"}`)},
		"precondition":    {err: statusOf(t, codes.FailedPrecondition, "Revoked.", info("API_KEY_REVOKED"), ids), want: known(400, "Revoked.", "API_KEY_REVOKED", "null")},
		"range":           {err: statusOf(t, codes.OutOfRange, "Old.", info("CURSOR_EXPIRED"), ids), want: known(400, "Old.", "CURSOR_EXPIRED", "null")},
		"unauthenticated": {err: statusOf(t, codes.Unauthenticated, "Who?", info("UNAUTHENTICATED"), ids), want: known(401, "Who?", "UNAUTHENTICATED", "null"), header: map[string]string{"WWW-Authenticate": `Bearer realm="apikeys", error="invalid_token"`}},
		"denied":          {err: statusOf(t, codes.PermissionDenied, "No.", info("INSUFFICIENT_SCOPE"), ids), want: known(403, "No.", "INSUFFICIENT_SCOPE", "null")},
		"not found":       {err: statusOf(t, codes.NotFound, "None.", info("API_KEY_NOT_FOUND"), ids), want: known(404, "None.", "API_KEY_NOT_FOUND", "null")},
		"stale":           {err: statusOf(t, codes.Aborted, "Changed.", info("ETAG_MISMATCH"), ids), want: known(409, "Changed.", "ETAG_MISMATCH", "null")},
		"limited":         {err: statusOf(t, codes.ResourceExhausted, "Slow.", info("RATE_LIMITED"), ids, wait(1001*time.Millisecond)), want: known(429, "Slow.", "RATE_LIMITED", "null"), header: map[string]string{"Retry-After": "2"}},
		"spent for good":  {err: statusOf(t, codes.ResourceExhausted, "Spent.", info("QUOTA_EXCEEDED"), ids), want: known(429, "Spent.", "QUOTA_EXCEEDED", "null"), header: map[string]string{"Retry-After": ""}},
		"large":           {err: statusOf(t, codes.ResourceExhausted, "Large.", info("REQUEST_TOO_LARGE"), ids), want: known(413, "Large.", "REQUEST_TOO_LARGE", "null"), header: map[string]string{"Retry-After": ""}},
		"unavailable":     {err: statusOf(t, codes.Unavailable, "Later.", info("UNAVAILABLE"), ids, wait(3*time.Second)), want: known(503, "Later.", "UNAVAILABLE", "null"), header: map[string]string{"Retry-After": "3"}},
		"unavailable now": {err: statusOf(t, codes.Unavailable, "Later.", info("UNAVAILABLE"), ids), want: known(503, "Later.", "UNAVAILABLE", "null"), header: map[string]string{"Retry-After": "1"}},
		"internal":        {err: statusOf(t, codes.Internal, "Oh.", info("INTERNAL"), ids), want: known(500, "Oh.", "INTERNAL", "null")},

		"no details":       {err: status.Error(codes.Internal, "the database is at db1"), want: failure(500, fixed, "INTERNAL", "null"), logged: true},
		"no status":        {err: errors.New("the database is at db1"), want: failure(500, fixed, "INTERNAL", "null"), logged: true},
		"strange code":     {err: status.Error(codes.DataLoss, "the database is at db1"), want: failure(500, fixed, "INTERNAL", "null"), logged: true},
		"other domain":     {err: statusOf(t, codes.PermissionDenied, "the database is at db1", &errdetails.ErrorInfo{Reason: "X", Domain: "other"}, violations), want: failure(403, "The credential does not permit this.", "PERMISSION_DENIED", "null"), logged: true},
		"deadline":         {err: context.DeadlineExceeded, want: failure(504, "The answer took too long. Try again.", "DEADLINE_EXCEEDED", "null"), logged: true},
		"cancelled":        {err: status.Error(codes.Canceled, ""), want: failure(503, "The server cannot answer now. Try again in a moment.", "CANCELLED", "null")},
		"unimplemented":    {err: status.Error(codes.Unimplemented, ""), want: failure(404, "There is no such resource.", "ROUTE_NOT_FOUND", "null"), logged: true},
		"without the ids ": {err: statusOf(t, codes.NotFound, "None.", &errdetails.ErrorInfo{Reason: "API_KEY_NOT_FOUND", Domain: "apikeys"}), want: failure(404, "None.", "API_KEY_NOT_FOUND", "null"), logged: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			r := request("PATCH "+keyPath, "{}")
			w := do(newHandler(t, (&fakeAPI{err: tc.err}).conn(), &log), r)
			checkDescribed(t, r, w)
			checkEnvelope(t, w)
			if diff := cmp.Diff(tc.want, w.Body.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for key, want := range tc.header {
				if got := w.Header().Get(key); got != want {
					t.Errorf("%s: got %q, want %q", key, got, want)
				}
			}
			if got := strings.Contains(log.String(), "support_id=support_2"); got != tc.logged {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}

// A conn that is a function.
type conn func() error

func (c conn) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return c() }
func (c conn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.ErrUnsupported
}

func TestPanic(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	w := do(newHandler(t, conn(func() error { panic("boom") }), &log), request("GET "+keyPath, ""))
	checkEnvelope(t, w)
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "boom") || !strings.Contains(log.String(), "boom") {
		t.Errorf("answered %s, logged %s", w.Body, log.String())
	}

	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("recovered %v", err)
		}
	}()
	do(newHandler(t, conn(func() error { panic(http.ErrAbortHandler) }), io.Discard), request("GET "+keyPath, ""))
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	h, err := rest.New(rest.Config{Conn: conn(nil), AnswerTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler), Ready: func(context.Context) error { return errors.New("db1 is down") }})
	if err != nil {
		t.Fatal(err)
	}
	w := do(h, request("GET /readyz", ""))
	checkEnvelope(t, w)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || strings.Contains(w.Body.String(), "db1") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := do(h, request("GET /healthz", "")); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// No line of the log has a query, or a secret that stands in a path.
func TestLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := newHandler(t, (&fakeAPI{}).conn(), &log)
	secret := "sk_live_" + strings.Repeat("Z", 49)
	do(h, request("GET /developers/"+secret+"/"+keyID+"?key="+secret, ""))
	want := "level=INFO msg=\"rest: request failed\" support_id=support_2 request_id=request_1 reason=ROUTE_NOT_FOUND status=404 method=GET path=/developers/sk_live_[redacted]/" + keyID + " address=192.0.2.1 count=1\n"
	if _, got, _ := strings.Cut(log.String(), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Bodies whose length the header does not tell, or tells wrong.
func TestBodyLength(t *testing.T) {
	t.Parallel()
	f := &fakeAPI{answer: &apikeysv1.CreateApiKeyResponse{}}
	server := httptest.NewServer(newHandler(t, f.conn(), io.Discard))
	defer server.Close()
	for body, want := range map[string]int{
		`{"label": "x"}`: 200, "": 200, " ": 400, strings.Repeat(" ", 1<<20-2) + "{}": 200, strings.Repeat(" ", 1<<20) + "{}": 413,
	} {
		for _, contentType := range []string{"application/json", "text/plain"} {
			r := request("POST "+server.URL+"/developers/api_keys", "", "Content-Type: "+contentType)
			r.RequestURI, r.ContentLength, r.Body = "", -1, io.NopCloser(strings.NewReader(body))
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			want := want
			if contentType == "text/plain" {
				want = http.StatusUnsupportedMediaType // whatever the body turns out to be
			}
			if resp.StatusCode != want {
				t.Errorf("%d bytes of %s: got %d, want %d: %s", len(body), contentType, resp.StatusCode, want, answer)
			}
		}
	}

	r := request("POST /developers/api_keys", `{"label": "x"`)
	r.Body = io.NopCloser(io.MultiReader(r.Body, errorReader{}))
	if w := do(newHandler(t, f.conn(), io.Discard), r); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "INCOMPLETE_BODY") {
		t.Errorf("%s", w.Body)
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
