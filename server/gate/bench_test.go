package gate

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// oneKey is a store with one key.
type oneKey struct{ key apikey.Key }

func (s *oneKey) KeysBySecret(context.Context, []apikey.Hash) ([]apikey.Key, int64, error) {
	return []apikey.Key{s.key}, 0, nil
}

// discard is a ResponseWriter that keeps its headers.
type discard struct{ header http.Header }

func (d discard) Header() http.Header          { return d.header }
func (discard) Write(data []byte) (int, error) { return len(data), nil }
func (discard) WriteHeader(int)                {}

// benchGate returns a gate whose store has one key, and the secret of that.
func benchGate(b *testing.B) (*Gate, string) {
	b.Helper()
	keys, err := keyring.New(nil)
	if err != nil {
		b.Fatal(err)
	}
	secret, err := apikey.NewSecret("sk_live_", nil)
	if err != nil {
		b.Fatal(err)
	}
	store := &oneKey{apikey.Key{
		ID: "api_key_0197c0ec-a197-719f-84a9-99270a79b42a", OrganizationID: "org_default", Label: "Key 1", OwnerID: "user_1", Enabled: true,
		Scopes: apikey.Scopes{"invoices.read", "payments.read"}, Mode: apikey.ModeLive,
	}}
	store.key.Secret.Hash = keys.Peppers().Hash(0, secret.Reveal())
	verifier, err := verify.New(verify.Config{Keys: store, Meter: meter.New(meter.Config{}), Peppers: keys.Peppers()})
	if err != nil {
		b.Fatal(err)
	}
	sources, err := ParseSources([]string{"Authorization", "X-API-Key"}, "")
	if err != nil {
		b.Fatal(err)
	}
	return New(Config{Verifier: verifier, Sources: sources, Refusals: &authn.Refusals{}}), secret.Reveal()
}

// BenchmarkServeHTTP is the handler by itself, warm.
func BenchmarkServeHTTP(b *testing.B) {
	g, secret := benchGate(b)
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/forward_auth?scope=invoices.read", nil)
	r.Header = http.Header{
		"Authorization": {"Bearer " + secret}, "X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/v1/invoices/17"}, "X-Forwarded-For": {"198.51.100.7"},
		"User-Agent": {"curl/8.5.0"},
	}
	b.ReportAllocs()
	for b.Loop() {
		w := discard{make(http.Header, 16)}
		g.ServeHTTP(w, r)
		if w.header.Get("X-Api-Key-Id") == "" {
			b.Fatal(w.header)
		}
	}
}

// BenchmarkCheck is a question of Envoy by itself, warm, from its bytes to those of its
// answer.
func BenchmarkCheck(b *testing.B) {
	g, secret := benchGate(b)
	m := sampleCheckRequest()
	m.Attributes.ContextExtensions = map[string]string{"scope": "invoices.read"}
	m.Attributes.Request.Http.Headers = map[string]string{
		":method": "GET", ":path": "/v1/invoices/17", ":authority": "api.example.test", ":scheme": "http",
		"user-agent": "curl/8.5.0", "accept": "*/*", "authorization": "Bearer " + secret,
	}
	data, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	slices := mem.BufferSlice{mem.SliceBuffer(data)}
	b.ReportAllocs()
	for b.Loop() {
		c := &check{exchange: g.newExchange()}
		if err := NewCodec().Unmarshal(slices, c); err != nil {
			b.Fatal(err)
		}
		if answer := g.answerOf(b.Context(), c.exchange); !bytes.Contains(answer, []byte("x-api-key-id")) {
			b.Fatalf("%q", answer)
		}
		g.release(c.exchange)
	}
}
