package rest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// discard is a ResponseWriter that keeps nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// BenchmarkVerify is the way through the REST API to an empty gRPC API and
// back, beside a bare handler that decodes and encodes the same JSON. Neither
// has a connection, which in earnest takes most of the time of both.
func BenchmarkVerify(b *testing.B) {
	const body = `{"key": "sk_live_MDE5N2MwZjEtOTU4OS03N2U0LWJiY2YtNGQ0OWQ4YTM5NzUzX2JpdGdwdA", "scopes": ["products.read"], "ip": "203.0.113.7"}`
	f := &fakeAPI{answer: &apikeysv1.VerifyApiKeyResponse{
		Valid: true, Code: apikeysv1.VerificationCode_VERIFICATION_CODE_VALID, ApiKey: seedKey(), RetryAfterSeconds: proto.Int32(0),
	}}
	handler := newHandler(b, f.conn(), io.Discard)
	want := do(handler, request("POST /developers/api_keys/verify", body)).Body.Bytes()
	run := func(name string, h http.Handler) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := request("POST /developers/api_keys/verify", body)
			reader := strings.NewReader(body)
			r.Body = io.NopCloser(reader)
			for b.Loop() {
				reader.Reset(body)
				h.ServeHTTP(discard{http.Header{}}, r)
			}
		})
	}
	run("rest", handler)
	var answer any
	if err := json.Unmarshal(want, &answer); err != nil {
		b.Fatal(err)
	}
	run("bare", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Key, IP string
			Scopes  []string
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			b.Error(err)
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
}
