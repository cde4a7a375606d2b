package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/rest"
	"github.com/apikeys-dev/apikeys/server/servertest/described"
)

// A fakeAPI is a gRPC API that answers every call with the same. It remembers the
// last call.
type fakeAPI struct {
	answer proto.Message
	err    error

	ctx     context.Context
	method  string
	request proto.Message
}

// Its methods are never reached: see serve.
type service struct {
	apikeysv1.UnimplementedApiKeysServiceServer
}

// serve answers in an interceptor, so that one function stands for all methods.
func (f *fakeAPI) serve(ctx context.Context, req any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	f.ctx, f.method, f.request = ctx, info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:], req.(proto.Message)
	if f.err != nil {
		return nil, f.err
	}
	return f.answer, nil
}

func (f *fakeAPI) conn() *inprocgrpc.Channel {
	ch := rest.NewConnection().WithServerUnaryInterceptor(f.serve)
	apikeysv1.RegisterApiKeysServiceServer(ch, service{})
	return ch
}

// newHandler makes a handler over conn whose ids are 1, 2 and so on. What it
// logs goes to log.
func newHandler(tb testing.TB, conn grpc.ClientConnInterface, log io.Writer) *rest.Handler {
	tb.Helper()
	var n atomic.Int64
	h, err := rest.New(rest.Config{
		Conn: conn, AnswerTimeout: time.Minute,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
		NewID:  func() string { return fmt.Sprint(n.Add(1)) },
	})
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// request makes a request from its line, such as "GET /healthz", its header
// lines and its body. One with a body claims JSON unless it says otherwise, and
// one without an authorization line brings a token.
func request(line, body string, header ...string) *http.Request {
	verb, target, _ := strings.Cut(line, " ")
	r := httptest.NewRequestWithContext(context.Background(), verb, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer token")
	for _, line := range header {
		name, value, _ := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); value == "" {
			r.Header.Del(name)
		} else if name == "Content-Type" {
			r.Header.Set(name, value)
		} else {
			r.Header.Add(name, value)
		}
	}
	return r
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// checkDescribed looks whether an answer is as the OpenAPI document says.
func checkDescribed(t *testing.T, r *http.Request, w *httptest.ResponseRecorder) {
	t.Helper()
	described.Check(t, &described.Exchange{
		Method: r.Method, Target: r.URL.RequestURI(), Request: r.Header, Status: w.Code, Header: w.Result().Header, Body: w.Body.Bytes(),
	})
}

// checkEnvelope looks at what every answer has: the headers, and the eight keys
// in their order on the bytes.
func checkEnvelope(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	header, body := w.Result().Header, w.Body.Bytes()
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Content-Length": fmt.Sprint(len(body)),
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	var keys []string
	values := map[string]json.RawMessage{}
	d := json.NewDecoder(bytes.NewReader(body))
	if _, err := d.Token(); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	for d.More() {
		key, _ := d.Token()
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		keys = append(keys, key.(string))
		values[key.(string)] = value
	}
	if diff := cmp.Diff([]string{"status", "data", "error", "log", "validator", "support_id", "message", "env"}, keys); diff != "" {
		t.Errorf("keys (-want +got)\n%s", diff)
	}
	if got := string(values["status"]); got != fmt.Sprint(w.Code) {
		t.Errorf("status %s in an answer of %d", got, w.Code)
	}
	null := []string{"data", "message"}
	if w.Code == http.StatusOK {
		null = []string{"error", "log", "validator", "support_id"}
	}
	for _, key := range null {
		if string(values[key]) != "null" {
			t.Errorf("%s: got %s, want null", key, values[key])
		}
	}
	if !json.Valid(body) {
		t.Errorf("not JSON: %s", body)
	}
}

func at(s string) *timestamppb.Timestamp {
	t, err := time.Parse(time.DateTime, s)
	if err != nil {
		panic(err)
	}
	return timestamppb.New(t)
}

const (
	keyID   = "api_key_0197c0ec-a197-719f-84a9-99270a79b42a"
	keyPath = "/developers/api_keys/" + keyID
)

// seedKey is the key of the sample answers.
func seedKey() *apikeysv1.ApiKey {
	return &apikeysv1.ApiKey{
		Id: keyID, OrganizationId: "org_default", Label: "My API Key", Description: "Key for accessing product APIs",
		Secret: "sk_live_MDE5N2MwZWMt...GdwdA", Scopes: []string{"products.create"}, IpAllowList: []string{"127.0.0.1"},
		ExpiresAt: at("2026-05-30 20:23:16"), CreatedAt: at("2025-06-30 15:00:22"), Enabled: true,
		State: apikeysv1.ApiKeyState_API_KEY_STATE_ACTIVE, Mode: apikeysv1.ApiKeyMode_API_KEY_MODE_LIVE,
		Metrics: &apikeysv1.ApiKeyMetrics{ApiKeyId: keyID, TotalRequests: 1250, LastUsedAt: at("2025-07-01 09:15:30")}, Etag: "1",
	}
}

const seedJSON = `{"id":"` + keyID + `","organization_id":"org_default","label":"My API Key",` +
	`"description":"Key for accessing product APIs","secret":"sk_live_MDE5N2MwZWMt...GdwdA","scopes":["products.create"],` +
	`"ip_allow_list":["127.0.0.1"],"expires_at":"2026-05-30 20:23:16","created_at":"2025-06-30 15:00:22","updated_at":null,"created_by":null,` +
	`"enabled":true,"state":"active","mode":"live","key_format":"","owner_id":"","metadata":{},"rate_limit":null,"quota":null,"revoked_at":null,` +
	`"revoke_reason":null,"previous_secret_expires_at":null,"previous_secret_last_used_at":null,"previous_secret_requests":null,"metrics":{"api_key_id":"` + keyID + `",` +
	`"total_requests":1250,"last_used_at":"2025-07-01 09:15:30"},"last_use":null,"external_id":"","etag":"1"}`

// success is the envelope of an answer.
func success(data, message string) string {
	return `{"status":200,"data":` + data + `,"error":null,"log":null,"validator":null,"support_id":null,"message":"` + message + `","env":"development"}`
}
