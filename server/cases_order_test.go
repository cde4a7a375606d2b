package server_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
)

// TestOrderOfChecks takes a request in which everything is wrong and mends one thing
// after the other: what is answered is the order of the checks. The body is only
// announced until the credential and the headers are good, and nobody waits for it.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	eachRESTProtocol(t, testOrderOfChecks)
}

func testOrderOfChecks(t *testing.T, w *harness) {
	for _, s := range []step{
		{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["api_keys.read"]}`, save: "reader"},
		{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["api_keys.create"], "rate_limit": {"requests": 1, "window_seconds": 86400}}`, save: "limited"},
		{rpc: "CreateApiKey", as: "$limited.secret", body: `{"label": "k"}`},
	} {
		w.take(t, s.rpc, "rest", s)
	}
	const large, junk = "\nContent-Length: 1048577", "\nContent-Length: 20"
	for _, c := range []struct {
		name, head string
		body       string // sent behind the head; else it is announced and never sent
		want       raw
	}{
		{"path", "/developers/api_key?x=1", "", raw{status: 404, reason: "ROUTE_NOT_FOUND"}},
		{"method", "/developers/api_keys/verify/?x=1", "", raw{status: 404, reason: "ROUTE_NOT_FOUND"}},
		{"no credential", "/developers/api_keys?x=1", "", raw{status: 401, reason: "UNAUTHENTICATED"}},
		{"bad credential", "/developers/api_keys?x=1\nAuthorization: Bearer junk", "", raw{status: 401, reason: "UNAUTHENTICATED"}},
		{"two credentials", "/developers/api_keys?x=1\n<auth>\nX-API-Key: $reader.secret", "", raw{status: 401, reason: "UNAUTHENTICATED"}},
		{"scope", "/developers/api_keys?x=1\nX-API-Key: $reader.secret", "", raw{status: 403, reason: "INSUFFICIENT_SCOPE"}},
		{"organization", "/developers/api_keys?x=1\nX-API-Key: $reader.secret\nX-Organization-Id: *", "", raw{status: 403, reason: "WRONG_ORGANIZATION"}},
		{"limit", "/developers/api_keys?x=1\nX-API-Key: $limited.secret", "", raw{status: 429, reason: "RATE_LIMITED"}},
		{"accept", "/developers/api_keys?x=1\n<auth>", "", raw{status: 406, reason: "NOT_ACCEPTABLE"}},
		{"coding", "/developers/api_keys?x=1\n<auth>\nAccept: */*", "", raw{status: 415, reason: "UNSUPPORTED_MEDIA_TYPE"}},
		{"type", "/developers/api_keys?x=1\n<auth>\nAccept: */*\nContent-Encoding: Identity", "", raw{status: 415, reason: "UNSUPPORTED_MEDIA_TYPE"}},
		{"size", "/developers/api_keys?x=1\n<auth>\nAccept: */*\nContent-Encoding: Identity\nContent-Type: application/json", "", raw{status: 413, reason: "REQUEST_TOO_LARGE"}},
		{"query", "/developers/api_keys?x=%zz\n<auth>\nAccept: */*\nContent-Encoding: Identity\nContent-Type: application/json", "not JSON", raw{status: 400, reason: "MALFORMED_QUERY"}},
		{"body", "/developers/api_keys?x=1\n<auth>\nAccept: */*\nContent-Encoding: IDENTITY\nContent-Type: Application/JSON;Charset=\"UTF-8\"", "not JSON", raw{status: 400, reason: "MALFORMED_JSON"}},
		{"fields", "/developers/api_keys?x=1\n<auth>\nAccept: */*\nContent-Type: application/json\nIf-Match: x", `{"label": 1, "y": 2}`, raw{status: 400, reason: "INVALID_ARGUMENT"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			target, head, _ := strings.Cut(w.fill(c.head), "\n")
			for name, value := range map[string]string{"Accept": "text/html", "Content-Encoding": "gzip", "Content-Type": "text/plain"} {
				if !strings.Contains(head, name) && (name == "Accept" || c.body == "") {
					head += "\n" + name + ": " + value
				}
			}
			if c.body == "" {
				head += large + "\nExpect: 100-continue"
			}
			status, header, text := w.send(t, "POST "+target+" HTTP/1.1\n"+strings.TrimPrefix(head, "\n")+"\n\n"+c.body)
			a := w.envelope(t, status, header, text)
			if a.status != c.want.status || a.reason != c.want.reason {
				t.Errorf("got %d %s, want %d %s: %s", a.status, a.reason, c.want.status, c.want.reason, text)
			}
			if closes := header.Get("Connection") == "close"; closes != (!w.http2 && (c.body == "" || c.want.reason == "MALFORMED_QUERY")) {
				t.Errorf("Connection: %q", header.Get("Connection"))
			}
			if want := map[string]bool{"x": true, "y": true, "label": true, "If-Match": true}; c.name == "fields" {
				for name := range a.validator {
					delete(want, name)
				}
				if len(want) > 0 {
					t.Errorf("validator %v lacks %v", a.validator, want)
				}
			}
		})
	}
	// A call that is refused for its form has been counted all the same: the key's
	// one request is spent.
	w.take(t, "create", "rest", step{rpc: "CreateApiKey", save: "once", body: `{"label": "k", "scopes": ["api_keys.create"], "rate_limit": {"requests": 1, "window_seconds": 86400}}`})
	for _, want := range []int{406, 429} {
		status, header, text := w.send(t, w.fill("POST /developers/api_keys HTTP/1.1\nX-API-Key: $once.secret\nAccept: text/html"+junk+"\nExpect: 100-continue"))
		if a := w.envelope(t, status, header, text); a.status != want {
			t.Errorf("got %d, want %d: %s", a.status, want, text)
		}
	}
}

// TestOrderOfWatch is TestOrderOfChecks for the stream of events.
func TestOrderOfWatch(t *testing.T) {
	t.Parallel()
	eachRESTProtocol(t, testOrderOfWatch)
}

func testOrderOfWatch(t *testing.T, w *harness) {
	w.take(t, "create", "rest", step{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["api_keys.read"]}`, save: "reader"})
	for head, want := range map[string]raw{
		"?x=1\nAccept: text/html":                                        {status: 401, reason: "UNAUTHENTICATED"},
		"?x=1\nAccept: text/html\nX-API-Key: $reader.secret":             {status: 403, reason: "INSUFFICIENT_SCOPE"},
		"?x=1\nAccept: text/html\n<auth>":                                {status: 406, reason: "NOT_ACCEPTABLE"},
		"?x=1\nAccept: TEXT/Event-Stream\n<auth>":                        {status: 400, reason: "INVALID_ARGUMENT"},
		"?x=1;\nAccept: text/event-stream\n<auth>\nLast-Event-ID: none":  {status: 400, reason: "MALFORMED_QUERY"},
		"?after=none\nAccept: text/event-stream\nAuthorization: sk_live": {status: 401, reason: "UNAUTHENTICATED"},
	} {
		query, head, _ := strings.Cut(w.fill(head), "\n")
		status, header, text := w.send(t, "GET /developers/events/watch"+query+" HTTP/1.1\n"+head)
		if a := w.envelope(t, status, header, text); a.status != want.status || a.reason != want.reason {
			t.Errorf("%s: got %d %s, want %d %s", head, a.status, a.reason, want.status, want.reason)
		}
	}
	status, header, text := w.send(t, w.fill("GET /developers/events/watch?x=1&types=y&types=$reader.secret&heartbeat_seconds=0x&after=z HTTP/1.1\n<auth>"))
	a := w.envelope(t, status, header, text)
	if diff := cmp.Diff([]string{"after", "heartbeat_seconds", "types[0]", "types[1]", "x"}, slices.Sorted(maps.Keys(a.validator))); diff != "" {
		t.Errorf("faulty fields of a stream (-want +got)\n%s", diff)
	}
}

// TestRefusedBeforeBody has a body announced and not sent: a refusal comes without
// 100 Continue, and a request that is taken with it.
func TestRefusedBeforeBody(t *testing.T) {
	t.Parallel()
	eachRESTProtocol(t, func(t *testing.T, w *harness) {
		for credential, want := range map[string]int{"junk": http.StatusUnauthorized, servertest.RootToken: http.StatusContinue} {
			got := w.firstStatus(t, "POST /developers/api_keys HTTP/1.1\nAuthorization: Bearer "+credential+
				"\nContent-Type: application/json\nContent-Length: 1000\nExpect: 100-continue")
			if got != want {
				t.Errorf("%s: %d, want %d", credential, got, want)
			}
		}
	})
}

// TestMethodsOfPaths asks every path, the words that stand in an id's place too, for
// what it takes: OPTIONS says it, and every other method is refused with the same.
func TestMethodsOfPaths(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	const id = "/api_key_0197c0ec-a197-719f-84a9-99270a79b42a"
	for path, allow := range map[string]string{
		keysPath:                                    "GET, HEAD, POST, OPTIONS",
		keysPath + id:                               "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
		keysPath + "/verify":                        "POST, OPTIONS",
		keysPath + "/%76erify":                      "POST, OPTIONS",
		keysPath + "/verify_batch":                  "POST, OPTIONS",
		keysPath + "/Verify":                        "GET, HEAD, PUT, PATCH, DELETE, OPTIONS", // an id like any other
		keysPath + "/verify/rotate":                 "POST, OPTIONS",
		keysPath + id + "/rotate":                   "POST, OPTIONS",
		keysPath + id + "/usage":                    "GET, HEAD, OPTIONS",
		"/analytics/api_keys":                       "GET, HEAD, OPTIONS",
		"/developers/events":                        "GET, HEAD, OPTIONS",
		"/developers/events/watch":                  "GET, HEAD, OPTIONS",
		hooksPath:                                   "GET, HEAD, POST, OPTIONS",
		hooksPath + "/events":                       "GET, HEAD, OPTIONS",
		hooksPath + id:                              "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
		hooksPath + id + "/rotate_secret":           "POST, OPTIONS",
		hooksPath + "/events/test":                  "POST, OPTIONS",
		queuePath:                                   "GET, HEAD, OPTIONS",
		queuePath + id:                              "GET, HEAD, OPTIONS",
		queuePath + id + "/cancel":                  "POST, OPTIONS",
		"/api/v1/webhooks/subscriptions":            "GET, HEAD, POST, OPTIONS",
		"/api/v1/webhooks/subscriptions" + id:       "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
		"/api/v1/webhooks/subscriptions/events":     "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
		"/healthz":                                  "GET, HEAD, OPTIONS",
		"/readyz":                                   "GET, HEAD, OPTIONS",
		keysPath + "/verify/":                       "",
		keysPath + "/":                              "",
		"/api/v1/webhooks/other":                    "",
		"/api/v1/webhooks":                          "",
		queuePath + id + "/cancel/now":              "",
		"/developers//api_keys":                     "",
		"/developers/events/watch/":                 "",
		"/developers/events" + id:                   "",
		"/developers/api_keys/verify%2f" + "rotate": "",
	} {
		for _, method := range []string{"OPTIONS", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "get", "QUERY"} {
			status, header, text := w.send(t, method+" "+path+" HTTP/1.1")
			if method == "HEAD" {
				if takes := strings.Contains(allow, "HEAD"); allow != "" && takes == (status == http.StatusMethodNotAllowed) || !takes && header.Get("Allow") != allow {
					t.Errorf("HEAD %s: %d, Allow %q", path, status, header.Get("Allow"))
				}
				continue
			}
			got := header.Get("Allow")
			if method == "OPTIONS" {
				header.Del("Allow")
			}
			a := w.envelope(t, status, header, text)
			switch {
			case allow == "":
				if a.reason != "ROUTE_NOT_FOUND" || got != "" {
					t.Errorf("%s %s: %d %s, Allow %q", method, path, a.status, a.reason, got)
				}
			case method == "OPTIONS":
				if a.status != http.StatusOK || got != allow {
					t.Errorf("OPTIONS %s: %d, Allow %q, want %q", path, a.status, got, allow)
				}
			case strings.Contains(", "+allow+",", ", "+method+","):
				if a.reason != "UNAUTHENTICATED" && !strings.HasSuffix(path, "z") {
					t.Errorf("%s %s: %d %s", method, path, a.status, a.reason)
				}
			case a.reason != "METHOD_NOT_ALLOWED" || got != allow:
				t.Errorf("%s %s: %d %s, Allow %q, want %q", method, path, a.status, a.reason, got, allow)
			}
		}
	}
}

// framed is a message as gRPC has it on the wire.
func framed(flag byte, length int, data string) string {
	head := make([]byte, 5)
	head[0] = flag
	binary.BigEndian.PutUint32(head[1:], uint32(length))
	return string(head) + data
}

// message is framed for a message as it should be.
func message(data string) string { return framed(0, len(data), data) }

// post sends bytes as the body of a gRPC call, and returns the status that came back.
func (w *harness) post(t *testing.T, client *http.Client, method, body string, head ...string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.Conn.Target()+method, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	for i := 0; i < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	details := resp.Header.Get("Grpc-Status-Details-Bin") + resp.Trailer.Get("Grpc-Status-Details-Bin")
	code := resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status")
	if details == "" {
		var n int
		if _, err := fmt.Sscan(code, &n); err != nil {
			t.Fatalf("grpc-status %q: %v", code, err)
		}
		return status.Error(codes.Code(n), resp.Header.Get("Grpc-Message")+resp.Trailer.Get("Grpc-Message"))
	}
	data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(details, "="))
	if err != nil {
		t.Fatal(err)
	}
	st := new(spb.Status)
	if err := proto.Unmarshal(data, st); err != nil {
		t.Fatal(err)
	}
	return status.FromProto(st).Err()
}

// TestBrokenMessages sends what no client library would. What is wrong with a message
// is said to callers alone who have proved themselves, in the form of every failure.
func TestBrokenMessages(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	const create, watch = "/apikeys.v1.ApiKeysService/CreateApiKey", "/apikeys.v1.EventsService/WatchEvents"
	const update, batch = "/apikeys.v1.ApiKeysService/UpdateApiKey", "/apikeys.v1.ApiKeysService/BatchVerifyApiKeys"
	// The fields whose texts are no UTF-8.
	binary := map[string]string{
		"no text": "label", "in a list": "scopes[1]", "in a map": "metadata", "in a resource": "label", "in a mask": "update_mask.paths[0]",
		"in a batch": "keys[1].scopes[0]", "in a stream": "after", "health": "service",
	}
	for name, c := range map[string]struct {
		method, body string
		head         []string
		code         codes.Code
		reason       string
	}{
		"no text":               {create, message("\x0a\x01\xff"), nil, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"in a list":             {create, message("\x0a\x01x\x1a\x01x\x1a\x01\xff"), nil, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"in a map":              {create, message("\x0a\x01x\x4a\x03\x0a\x01\xff"), nil, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"in a resource":         {update, message("\x12\x03\x1a\x01\xff"), nil, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"in a mask":             {update, message("\x1a\x03\x0a\x01\xff"), nil, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"in a batch":            {batch, message("\x0a\x03\x0a\x01\xff\x0a\x03\x12\x01\xff"), nil, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"cut off":               {create, message("\x0a\x05x"), nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"another type":          {create, message("\x08\x01\x08"), nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"JSON":                  {create, message(`{"label": "x"}`), []string{"Content-Type", "application/grpc+json"}, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"no message":            {create, "", nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"half a head":           {create, "\x00\x00", nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"half a message":        {create, framed(0, 100, "\x0a\x01x"), nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"two messages":          {create, message("\x0a\x01x") + message("\x0a\x01x"), nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"a message and a half":  {create, message("\x0a\x01x") + "\x00", nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"too large":             {create, message(strings.Repeat("x", 1<<20+1)), nil, codes.ResourceExhausted, "REQUEST_TOO_LARGE"},
		"too large, announced":  {create, framed(0, 1<<32-1, ""), nil, codes.ResourceExhausted, "REQUEST_TOO_LARGE"},
		"compressed as nothing": {create, framed(1, 3, "\x0a\x01x"), nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"compressed as itself":  {create, framed(1, 3, "\x0a\x01x"), []string{"Grpc-Encoding", "identity"}, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"no gzip":               {create, framed(1, 3, "\x0a\x01x"), []string{"Grpc-Encoding", "gzip"}, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"an unknown flag":       {create, framed(2, 3, "\x0a\x01x"), nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"in a stream":           {watch, message("\x0a\x01\xff"), nil, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"a stream of nothing":   {watch, "", nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"a stream too large":    {watch, framed(0, 1<<30, ""), nil, codes.ResourceExhausted, "REQUEST_TOO_LARGE"},
		"unknown method":        {"/apikeys.v1.ApiKeysService/Grant", message(""), nil, codes.Unimplemented, "ROUTE_NOT_FOUND"},
		"unknown service":       {"/apikeys.v2.ApiKeysService/CreateApiKey", "junk", nil, codes.Unimplemented, "ROUTE_NOT_FOUND"},
		"no method":             {"/apikeys.v1.ApiKeysService", message(""), nil, codes.Unimplemented, "ROUTE_NOT_FOUND"},
		"unknown health method": {"/grpc.health.v1.Health/Ask", "", nil, codes.Unimplemented, "ROUTE_NOT_FOUND"},
		"health":                {"/grpc.health.v1.Health/Check", message("\x0a\x01\xff"), nil, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"health, cut off":       {"/grpc.health.v1.Health/Watch", message("\x0a\x05x"), nil, codes.InvalidArgument, "MALFORMED_MESSAGE"},
		"health of nothing":     {"/grpc.health.v1.Health/Check", message("\x0a\x01x"), nil, codes.NotFound, "NOT_FOUND"},
	} {
		t.Run(name, func(t *testing.T) {
			operator := append([]string{"Authorization", "Bearer " + servertest.RootToken}, c.head...)
			a := w.failure(t, w.post(t, client, c.method, c.body, operator...))
			if a.code != c.code.String() || a.reason != c.reason {
				t.Errorf("got %s %s %q, want %s %s", a.code, a.reason, a.text, c.code, c.reason)
			}
			if want := binary[name]; c.reason == "INVALID_ARGUMENT" && (len(a.validator) != 1 || a.validator[want] != "must be valid UTF-8") {
				t.Errorf("validator %v, want %s", a.validator, want)
			}
			want := "UNAUTHENTICATED"
			if c.reason == "ROUTE_NOT_FOUND" || strings.HasPrefix(c.method, "/grpc.") {
				want = c.reason // as over REST: nobody has to prove anything to learn what there is
			}
			a = w.failure(t, w.post(t, client, c.method, c.body, append([]string{"Authorization", "Bearer junk"}, c.head...)...))
			if a.reason != want {
				t.Errorf("with a bad credential: %s %s, want %s", a.code, a.reason, want)
			}
		})
	}
}

// TestBinaryKeys verifies what is no text, or far too much of it: whatever a client
// of our caller sent, the answer is that it is malformed.
func TestBinaryKeys(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	good, err := w.Keys.CreateApiKey(w.Context(t.Context()), &apikeysv1.CreateApiKeyRequest{Label: "k"})
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	operator := []string{"Authorization", "Bearer " + servertest.RootToken}
	const verify, batch = "/apikeys.v1.ApiKeysService/VerifyApiKey", "/apikeys.v1.ApiKeysService/BatchVerifyApiKeys"
	for name, body := range map[string]string{
		"bytes": "\x0a\x02\xff\xfe", "after a scope": "\x12\x01x\x0a\x01\xff", "the last one counts": "\x0a\x01x\x0a\x01\xff",
		"long": "\x0a\x80\x80\x20" + strings.Repeat("x", 1<<19), "long bytes": "\x0a\x80\x80\x20" + strings.Repeat("\xff", 1<<19),
	} {
		if code := w.postVerify(t, client, verify, body); code != "VERIFICATION_CODE_MALFORMED" {
			t.Errorf("%s: %s", name, code)
		}
	}
	entry := func(key string) string {
		return "\x0a" + string(rune(len(key)+2)) + "\x0a" + string(rune(len(key))) + key
	}
	resp := new(apikeysv1.BatchVerifyApiKeysResponse)
	w.postFor(t, client, batch, entry("\xff")+entry(good.GetApiKey().GetSecret())+entry("\xc3"), resp)
	var valid []bool
	for _, r := range resp.GetResults() {
		valid = append(valid, r.GetValid())
	}
	if diff := cmp.Diff([]bool{false, true, false}, valid); diff != "" {
		t.Errorf("a batch (-want +got)\n%s", diff)
	}
	for name, body := range map[string]string{"another field": "\x0a\x01\xff\x12\x01\xff", "cut off": "\x0a\x01\xff\x12\x05x"} {
		if a := w.failure(t, w.post(t, client, verify, message(body), operator...)); a.code != "InvalidArgument" {
			t.Errorf("%s: %s %s", name, a.code, a.reason)
		}
	}
}

// postFor is post for a call that succeeds.
func (w *harness) postFor(t *testing.T, client *http.Client, method, body string, out proto.Message) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.Conn.Target()+method, strings.NewReader(message(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Authorization": {"Bearer " + servertest.RootToken}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || len(data) < 5 {
		t.Fatalf("%q, %v, %v %v", data, err, resp.Header, resp.Trailer)
	}
	if err := proto.Unmarshal(data[5:], out); err != nil {
		t.Fatal(err)
	}
}

func (w *harness) postVerify(t *testing.T, client *http.Client, method, body string) string {
	t.Helper()
	resp := new(apikeysv1.VerifyApiKeyResponse)
	w.postFor(t, client, method, body, resp)
	return resp.GetCode().String()
}

// TestFloodOfRefusals calls without a good credential as fast as it can, over both
// protocols: the log has a line a second for each reason, with address and count.
func TestFloodOfRefusals(t *testing.T) {
	t.Parallel()
	logger, log := logtest.New(slog.LevelInfo)
	w := newHarness(t, func(c *server.Config) { c.Logger = logger })
	began := time.Now()
	for range 100 {
		w.send(t, "GET /developers/api_keys HTTP/1.1\nAuthorization: Bearer junk")
		w.send(t, "GET /nowhere HTTP/1.1")
		err := w.Conn.Invoke(t.Context(), "/apikeys.v1.ApiKeysService/GetApiKey", &apikeysv1.GetApiKeyRequest{}, new(apikeysv1.GetApiKeyResponse))
		if status.Code(err) != codes.Unauthenticated {
			t.Fatal(err)
		}
	}
	most := int(time.Since(began)/time.Second) + 2
	for _, reason := range []string{"UNAUTHENTICATED", "ROUTE_NOT_FOUND"} {
		lines := 0
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "reason="+reason) {
				lines++
				if !strings.Contains(line, "address=127.0.0.1") || !strings.Contains(line, "count=") {
					t.Errorf("a line without address or count: %s", line)
				}
			}
		}
		if lines == 0 || lines > most {
			t.Errorf("%d lines of %s, want 1 to %d", lines, reason, most)
		}
	}
}
