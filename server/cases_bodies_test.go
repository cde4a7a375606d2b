package server_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

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
		"no gzip":               {create, framed(1, 3, "\x0a\x01x"), []string{"Grpc-Encoding", "gzip"}, codes.Unimplemented, "UNSUPPORTED_MEDIA_TYPE"},
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
