package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/client"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
)

// newClient returns a client with a key that may only verify.
func newClient(t *testing.T, s *servertest.Server, change ...func(*client.Options)) *client.Client {
	t.Helper()
	o := client.Options{Token: create(t, s, &apikeysv1.CreateApiKeyRequest{Label: "verifier", Scopes: []string{"api_keys.verify"}}).GetSecret()}
	for _, f := range change {
		f(&o)
	}
	c, err := client.New(s.Conn.Target(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func create(t *testing.T, s *servertest.Server, req *apikeysv1.CreateApiKeyRequest) *apikeysv1.ApiKey {
	t.Helper()
	answer, err := s.Keys.CreateApiKey(s.Context(t.Context()), req)
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetApiKey()
}

// keysOf are the keys that tests present, by what is the matter with them.
func keysOf(t *testing.T, s *servertest.Server) map[string]string {
	t.Helper()
	read := []string{"products.read"}
	revoked := create(t, s, &apikeysv1.CreateApiKeyRequest{Label: "revoked", Scopes: read})
	if _, err := s.Keys.RevokeApiKey(s.Context(t.Context()), &apikeysv1.RevokeApiKeyRequest{Id: revoked.GetId()}); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"good":    create(t, s, &apikeysv1.CreateApiKeyRequest{Label: "good", Scopes: read, OwnerId: "anna"}).GetSecret(),
		"near":    create(t, s, &apikeysv1.CreateApiKeyRequest{Label: "near", Scopes: read, IpAllowList: []string{"192.0.2.0/24"}}).GetSecret(),
		"narrow":  create(t, s, &apikeysv1.CreateApiKeyRequest{Label: "narrow", Scopes: []string{"invoices.read"}}).GetSecret(),
		"busy":    create(t, s, &apikeysv1.CreateApiKeyRequest{Label: "busy", Scopes: read, RateLimit: &apikeysv1.RateLimit{Requests: 2, WindowSeconds: 3600}}).GetSecret(),
		"spent":   create(t, s, &apikeysv1.CreateApiKeyRequest{Label: "spent", Scopes: read, Quota: &apikeysv1.Quota{Limit: 1, Refill: apikeysv1.QuotaRefill_QUOTA_REFILL_NONE}}).GetSecret(),
		"revoked": revoked.GetSecret(),
		"unknown": "sk_live_" + strings.Repeat("0", 43) + "1BPfD5",
	}
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	keys := keysOf(t, s)
	logger, log := logtest.New(slog.LevelDebug)
	api := client.Middleware{Client: newClient(t, s), TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Logger: logger, Realm: `my "API"`}
	const bad = `Bearer realm="my API", error="invalid_token", error_description="The credential is not valid."`
	type want struct {
		Status                   int
		Challenge, Retry, Reason string
		Limits                   string
	}
	invalid := want{Status: 401, Challenge: bad, Reason: "UNAUTHENTICATED"}
	ok := want{Status: 200}
	cases := []struct {
		name    string
		headers []string // name, value, ...
		peer    string
		want    want
	}{
		{"good", []string{"Authorization", "Bearer " + keys["good"]}, "", ok},
		{"bare", []string{"Authorization", keys["good"]}, "", ok},
		{"in another case", []string{"authorization", "bEARER  " + keys["good"]}, "", ok},
		{"X-API-Key", []string{"X-API-Key", keys["good"]}, "", ok},
		{"a URI of RFC 8959", []string{"X-API-Key", "secret-token:" + keys["good"]}, "", ok},
		{"the same twice", []string{"X-API-Key", keys["good"], "Authorization", "Bearer " + keys["good"]}, "", ok},
		{"none", nil, "", want{Status: 401, Challenge: `Bearer realm="my API"`, Reason: "UNAUTHENTICATED"}},
		{"empty", []string{"X-API-Key", " "}, "", want{Status: 401, Challenge: `Bearer realm="my API"`, Reason: "UNAUTHENTICATED"}},
		{"two that differ", []string{"X-API-Key", keys["good"], "Authorization", "Bearer " + keys["near"]}, "", want{
			Status: 401, Challenge: `Bearer realm="my API", error="invalid_request", error_description="The request carries two different credentials; send one."`, Reason: "UNAUTHENTICATED",
		}},
		{"two lines that differ", []string{"X-API-Key", keys["good"], "X-API-Key", keys["near"]}, "", want{
			Status: 401, Challenge: `Bearer realm="my API", error="invalid_request", error_description="The request carries two different credentials; send one."`, Reason: "UNAUTHENTICATED",
		}},
		{"junk", []string{"X-API-Key", "junk"}, "", invalid},
		{"junk of a megabyte", []string{"X-API-Key", strings.Repeat("sk_live_", 1<<17)}, "", invalid},
		{"bytes that are no text", []string{"X-API-Key", "sk_live_\xff\xfe"}, "", invalid},
		{"another scheme", []string{"Authorization", "Basic " + keys["good"]}, "", invalid},
		{"unknown", []string{"X-API-Key", keys["unknown"]}, "", invalid},
		{"revoked", []string{"X-API-Key", keys["revoked"]}, "", invalid},
		{"another scope", []string{"X-API-Key", keys["narrow"]}, "", want{
			Status: 403, Challenge: `Bearer realm="my API", error="insufficient_scope", error_description="The API key lacks a scope.", scope="products.read"`, Reason: "INSUFFICIENT_SCOPE",
		}},
		{"its address", []string{"X-API-Key", keys["near"]}, "192.0.2.7:1", ok},
		{"its address, mapped", []string{"X-API-Key", keys["near"]}, "[::ffff:192.0.2.7]:1", ok},
		{"another address", []string{"X-API-Key", keys["near"]}, "198.51.100.1:1", want{Status: 403, Reason: "IP_NOT_ALLOWED"}},
		{"no address", []string{"X-API-Key", keys["near"]}, "@", want{Status: 403, Reason: "IP_NOT_ALLOWED"}},
		{"a proxy's word", []string{"X-API-Key", keys["near"], "X-Forwarded-For", "192.0.2.9"}, "10.0.0.1:1", ok},
		{"the word of no proxy", []string{"X-API-Key", keys["near"], "X-Forwarded-For", "192.0.2.9"}, "198.51.100.1:1", want{Status: 403, Reason: "IP_NOT_ALLOWED"}},
		{"what a client wrote before a proxy", []string{"X-API-Key", keys["near"], "X-Forwarded-For", "192.0.2.9, 198.51.100.1"}, "10.0.0.1:1", want{Status: 403, Reason: "IP_NOT_ALLOWED"}},
		{"the first of two", []string{"X-API-Key", keys["busy"]}, "", want{Status: 200, Limits: "2 1"}},
		{"the second of two", []string{"X-API-Key", keys["busy"]}, "", want{Status: 200, Limits: "2 0"}},
		{"the third of two", []string{"X-API-Key", keys["busy"]}, "", want{Status: 429, Retry: "1800", Reason: "RATE_LIMITED", Limits: "2 0"}},
		{"the first of a quota", []string{"X-API-Key", keys["spent"]}, "", want{Status: 200, Limits: "1 0"}},
		{"the second of a quota", []string{"X-API-Key", keys["spent"]}, "", want{Status: 429, Reason: "QUOTA_EXCEEDED", Limits: "1 0"}},
	}
	handler := api.Require("products.read")(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if client.FromContext(r.Context()).Key.GetLabel() == "" {
			t.Error("the handler is not told of the key")
		}
	}))
	for _, c := range cases {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/products", nil)
		if c.peer != "" {
			r.RemoteAddr = c.peer
		}
		for i := 0; i < len(c.headers); i += 2 {
			r.Header.Add(c.headers[i], c.headers[i+1])
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		h := w.Header()
		got := want{Status: w.Code, Challenge: h.Get("WWW-Authenticate"), Retry: h.Get("Retry-After")}
		if h.Get("X-RateLimit-Limit") != "" {
			got.Limits = h.Get("X-RateLimit-Limit") + " " + h.Get("X-RateLimit-Remaining")
			if h.Get("RateLimit") == "" || h.Get("RateLimit-Policy") == "" {
				t.Errorf("%s: no RateLimit: %v", c.name, h)
			}
		}
		if got.Status != http.StatusOK {
			var body struct {
				Status        int
				Error, Reason string
			}
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Status != w.Code || body.Error == "" {
				t.Errorf("%s: the body is %s", c.name, w.Body)
			}
			got.Reason = body.Reason
		}
		if got.Retry != "" && c.want.Retry != "" && got.Retry != c.want.Retry { // Some of the time has passed.
			if n := len(got.Retry); n != 4 || got.Retry[:2] != "17" {
				t.Errorf("%s: Retry-After: %s", c.name, got.Retry)
			}
			got.Retry = c.want.Retry
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, diff)
		}
		for _, key := range keys {
			if strings.Contains(w.Body.String(), key) {
				t.Errorf("%s: the answer holds the key", c.name)
			}
		}
	}
	if log.String() != "" {
		t.Errorf("it logged %s", log)
	}
}

// What a request costs, where else its key can stand, and what a refusal looks like, are
// settings.
func TestMiddlewareSettings(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	keys := keysOf(t, s)
	api := client.Middleware{
		Client:  newClient(t, s),
		Headers: []string{"X-Secret"},
		Cost:    func(*http.Request) int32 { return 2 },
		ClientAddress: func(*http.Request) netip.Addr {
			return netip.MustParseAddr("192.0.2.1")
		},
		Refuse: func(w http.ResponseWriter, _ *http.Request, status int, err error) {
			w.WriteHeader(status)
			fmt.Fprint(w, "own: ", err)
		},
	}
	handler := api.Require("products.read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, c := range []struct {
		name, header, key, want string
	}{
		{"another header", "X-Secret", keys["near"], "200 "},
		{"no longer this one", "X-API-Key", keys["near"], "401 own: The request carries no API key; send one as Authorization: Bearer."},
		{"both at once", "X-Secret", keys["busy"], "200 "},
		{"nothing left", "X-Secret", keys["busy"], "429 own: The API key is over its rate limit of 2 requests; wait before trying again."},
		{"more than there ever is", "X-Secret", keys["spent"], "429 own: The request costs more than the limits of the API key ever allow."},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set(c.header, c.key)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if got := fmt.Sprint(w.Code, " ", w.Body); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// A revocation that was answered is in force for the next request.
func TestRevocationIsInForceAtOnce(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	c := newClient(t, s)
	for range 20 {
		key := create(t, s, &apikeysv1.CreateApiKeyRequest{Label: "x"})
		if _, err := c.Verify(t.Context(), client.Request{Key: key.GetSecret(), Cost: proto.Int32(0)}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Keys.RevokeApiKey(s.Context(t.Context()), &apikeysv1.RevokeApiKeyRequest{Id: key.GetId()}); err != nil {
			t.Fatal(err)
		}
		if v, err := c.Verify(t.Context(), client.Request{Key: key.GetSecret()}); err == nil {
			t.Fatalf("%s was let in", v.Key.GetId())
		}
	}
}

// Where nobody answers, nobody is let in, within the timeout; what is logged holds no key.
func TestMiddlewareFailsClosed(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // It takes connections and says nothing.
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s := servertest.Start(t)
	weak := create(t, s, &apikeysv1.CreateApiKeyRequest{Label: "may not verify"}).GetSecret()
	const key, token = "sk_live_presented", "token-of-the-service"
	for name, server := range map[string]struct{ address, token string }{
		"nobody":                {"127.0.0.1:1", token},
		"a server that hangs":   {listener.Addr().String(), token},
		"a name without a host": {"grpc://keys.invalid:9090", token},
		"a token that is bad":   {s.Conn.Target(), token},
		"a key without scopes":  {s.Conn.Target(), weak},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := client.New(server.address, client.Options{Token: server.token, Timeout: 300 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			logger, log := logtest.New(slog.LevelDebug)
			handler := client.Middleware{Client: c, Logger: logger}.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Error("it was let in")
			}))
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.Header.Set("X-API-Key", key)
			w := httptest.NewRecorder()
			began := time.Now()
			handler.ServeHTTP(w, r)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("the answer is %d %v", w.Code, w.Header())
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			body, _ := io.ReadAll(w.Body)
			for _, secret := range []string{key, server.token} {
				if strings.Contains(log.String()+string(body), secret) {
					t.Errorf("a secret is shown: %s %s", log, body)
				}
			}
			if !strings.Contains(log.String(), "A key could not be verified") {
				t.Errorf("it logged %s", log)
			}
		})
	}
}

// The context of whoever asks cannot change who it is.
func TestVerifyIsMadeAsTheClient(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	key := create(t, s, &apikeysv1.CreateApiKeyRequest{Label: "x"})
	ctx := s.Context(context.WithoutCancel(t.Context()), "x-organization-id", "org_other")
	if _, err := newClient(t, s).Verify(ctx, client.Request{Key: key.GetSecret()}); err != nil {
		t.Error(err)
	}
}
