package rest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/rest"
)

func TestSuccess(t *testing.T) {
	t.Parallel()
	get := &apikeysv1.GetApiKeyResponse{ApiKey: seedKey()}
	update := &apikeysv1.UpdateApiKeyResponse{ApiKey: seedKey()}
	patch := func(etag string, key *apikeysv1.ApiKey, paths ...string) *apikeysv1.UpdateApiKeyRequest {
		return &apikeysv1.UpdateApiKeyRequest{Id: keyID, ApiKey: key, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, Etag: etag}
	}
	tests := map[string]struct {
		line, body string
		header     []string
		answer     proto.Message
		method     string
		request    proto.Message
		want       string
		wantHeader map[string]string
	}{
		"create": {
			line: "POST /developers/api_keys",
			body: `{"label": "My API Key", "description": "Key for accessing product APIs", "scopes": ["products.create"],
				"ip_allow_list": ["127.0.0.1"], "expires_at": "2026-05-30 20:23:16"}`,
			answer: &apikeysv1.CreateApiKeyResponse{ApiKey: seedKey()},
			method: "CreateApiKey",
			request: &apikeysv1.CreateApiKeyRequest{
				Label: "My API Key", Description: "Key for accessing product APIs", Scopes: []string{"products.create"},
				IpAllowList: []string{"127.0.0.1"}, ExpiresAt: at("2026-05-30 20:23:16"),
			},
			want:       success(seedJSON, "Resource created successfully"),
			wantHeader: map[string]string{"ETag": `"1"`},
		},
		"list": {
			line:   "GET /developers/api_keys?q=a%20%26b&page_size=2&state=active&page_token=old",
			answer: &apikeysv1.ListApiKeysResponse{ApiKeys: []*apikeysv1.ApiKey{seedKey(), seedKey()}, NextPageToken: "n&=>"},
			method: "ListApiKeys",
			request: &apikeysv1.ListApiKeysRequest{
				Q: "a &b", PageSize: 2, State: apikeysv1.ApiKeyState_API_KEY_STATE_ACTIVE, PageToken: "old",
			},
			want: success("["+seedJSON+","+seedJSON+"]", "API keys listed"),
			wantHeader: map[string]string{
				"Link":              `</developers/api_keys?page_size=2&page_token=n%26%3D%3E&q=a+%26b&state=active>; rel="next"`,
				"X-Next-Page-Token": "n&=>", "ETag": "",
			},
		},
		"last page": {
			line:       "GET /developers/api_keys",
			answer:     &apikeysv1.ListApiKeysResponse{},
			method:     "ListApiKeys",
			request:    &apikeysv1.ListApiKeysRequest{},
			want:       success("[]", "API keys listed"),
			wantHeader: map[string]string{"Link": "", "X-Next-Page-Token": ""},
		},
		"get": {
			line: "GET " + keyPath, header: []string{"If-Match: nonsense", "Accept: text/html, application/*;q=0.1"}, answer: get, method: "GetApiKey",
			request: &apikeysv1.GetApiKeyRequest{Id: keyID}, want: success(seedJSON, "API key found"), wantHeader: map[string]string{"ETag": `"1"`},
		},
		"get, escaped": {
			line: "GET /developers/api%5Fkeys/%61pi", answer: get, method: "GetApiKey",
			request: &apikeysv1.GetApiKeyRequest{Id: "api"}, want: success(seedJSON, "API key found"),
		},
		"get, with a body": {
			line: "GET " + keyPath, body: "{", answer: get, method: "GetApiKey",
			request: &apikeysv1.GetApiKeyRequest{Id: keyID}, want: success(seedJSON, "API key found"),
		},
		"patch": {
			line: "PATCH " + keyPath, body: `{"label": "new", "expires_at": null, "id": "` + keyID + `", "etag": "1"}`,
			header: []string{"Content-Type: application/merge-patch+json; charset=UTF-8"}, answer: update, method: "UpdateApiKey",
			request: patch("1", &apikeysv1.ApiKey{Id: keyID, Label: "new"}, "label", "expires_at"),
			want:    success(seedJSON, "API key updated"), wantHeader: map[string]string{"ETag": `"1"`},
		},
		"patch, if-match": {
			line: "PATCH " + keyPath, body: `{"enabled": false, "etag": "1"}`, header: []string{`If-Match: "1"`}, answer: update,
			method: "UpdateApiKey", request: patch("1", &apikeysv1.ApiKey{}, "enabled"), want: success(seedJSON, "API key updated"),
		},
		"patch, if-match any": {
			line: "PATCH " + keyPath, body: `{"enabled": false}`, header: []string{`If-Match: *`}, answer: update,
			method: "UpdateApiKey", request: patch("", &apikeysv1.ApiKey{}, "enabled"), want: success(seedJSON, "API key updated"),
		},
		"patch, if-match weak": {
			line: "PATCH " + keyPath, header: []string{`If-Match: W/"1"`}, answer: update,
			method: "UpdateApiKey", request: patch(`W/"1"`, &apikeysv1.ApiKey{}), want: success(seedJSON, "API key updated"),
		},
		"put": {
			line: "PUT " + keyPath, body: `{"label": "new", "metadata": {"a": null}}`, answer: update, method: "UpdateApiKey",
			request: patch("", &apikeysv1.ApiKey{Label: "new"}, "label", "metadata.`a`"), want: success(seedJSON, "API key updated"),
		},
		"rotate": {
			line: "POST " + keyPath + "/rotate", body: `{"overlap_seconds": 60}`, answer: &apikeysv1.RotateApiKeyResponse{ApiKey: seedKey()},
			method: "RotateApiKey", request: &apikeysv1.RotateApiKeyRequest{Id: keyID, OverlapSeconds: proto.Int32(60)}, want: success(seedJSON, "API key rotated"),
		},
		"revoke, a form without fields": {
			line: "POST " + keyPath + "/revoke", header: []string{"Content-Type: application/x-www-form-urlencoded"}, answer: &apikeysv1.RevokeApiKeyResponse{ApiKey: seedKey()},
			method: "RevokeApiKey", request: &apikeysv1.RevokeApiKeyRequest{Id: keyID}, want: success(seedJSON, "API key revoked"),
		},
		"delete": {
			line: "DELETE " + keyPath, answer: &apikeysv1.DeleteApiKeyResponse{Id: keyID}, method: "DeleteApiKey",
			request: &apikeysv1.DeleteApiKeyRequest{Id: keyID}, want: success(`{"id":"`+keyID+`"}`, "API key deleted"), wantHeader: map[string]string{"ETag": ""},
		},
		"verify, no content type": {
			line: "POST /developers/api_keys/verify", body: `{"key": "sk_live_x", "cost": 0}`, header: []string{"Content-Type:"},
			answer:  &apikeysv1.VerifyApiKeyResponse{Code: apikeysv1.VerificationCode_VERIFICATION_CODE_MALFORMED},
			method:  "VerifyApiKey",
			request: &apikeysv1.VerifyApiKeyRequest{Key: "sk_live_x", Cost: proto.Int32(0)},
			want:    success(`{"valid":false,"code":"malformed","api_key":null,"rate_limit":null,"quota":null,"previous_secret":false,"retry_after_seconds":null}`, "API key verified"),
		},
		"no resource": {line: "GET " + keyPath, answer: &apikeysv1.GetApiKeyResponse{}, method: "GetApiKey", request: &apikeysv1.GetApiKeyRequest{Id: keyID}, want: success("null", "API key found")},
		"override": {
			line: "POST /developers/api_keys", header: []string{"X-HTTP-Method-Override: GET", "TE: trailers", "Grpc-Timeout: 1n"}, answer: &apikeysv1.CreateApiKeyResponse{},
			method: "CreateApiKey", request: &apikeysv1.CreateApiKeyRequest{}, want: success("null", "Resource created successfully"),
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			f := &fakeAPI{answer: tc.answer}
			w := do(newHandler(t, f.conn(), io.Discard), request(tc.line, tc.body, tc.header...))
			checkEnvelope(t, w)
			if diff := cmp.Diff(tc.want, w.Body.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(tc.request, f.request, protocmp.Transform()); f.method != tc.method || diff != "" {
				t.Errorf("called %s (-want +got)\n%s", f.method, diff)
			}
			for key, want := range tc.wantHeader {
				if got := w.Header().Get(key); got != want {
					t.Errorf("%s: got %s, want %s", key, got, want)
				}
			}
		})
	}
}

// Exactly three headers become metadata, as they are.
func TestMetadata(t *testing.T) {
	t.Parallel()
	f := &fakeAPI{answer: &apikeysv1.GetApiKeyResponse{}}
	r := request("GET "+keyPath, "", "Authorization: Basic x", "X-API-Key: k\xe9y", "X-Organization-Id: *",
		"Grpc-Metadata-X-Api-Key: smuggled", "Grpc-Metadata-Extra: smuggled", "X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.9, 10.0.0.1",
		"X-Forwarded-Host: evil", "Cookie: a=b", "X-Real-Ip: 10.0.0.1", "Traceparent: 00", "Grpc-Trace-Bin: AAAA")
	r.RemoteAddr = "[::ffff:192.0.2.7%eth0]:1234"
	do(newHandler(t, f.conn(), io.Discard), r)
	md, _ := metadata.FromIncomingContext(f.ctx)
	want := metadata.MD{"authorization": {"Bearer token", "Basic x"}, "x-api-key": {"k\xe9y"}, "x-organization-id": {"*"}}
	if diff := cmp.Diff(want, md); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if inprocgrpc.ClientContext(f.ctx) == nil {
		t.Error("no client context")
	}
}

// unreadable is a body that must not be read.
type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func (unreadable) Close() error { return nil }

// What the gRPC API refuses before it receives the message is refused unread, and
// a client over HTTP/1.1 is not waited for.
func TestUnread(t *testing.T) {
	t.Parallel()
	desc := apikeysv1.ApiKeysService_ServiceDesc
	desc.Methods = slices.Clone(desc.Methods)
	for i := range desc.Methods {
		desc.Methods[i].Handler = func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
			return nil, status.Error(codes.Unauthenticated, "Who?")
		}
	}
	conn := rest.NewConnection()
	conn.RegisterService(&desc, service{})
	h := newHandler(t, conn, io.Discard)
	for line, closes := range map[string]string{
		"POST /developers/api_keys?x=1": "close", "PATCH " + keyPath: "close", "POST /developers/api_keys/verify": "close",
		"GET " + keyPath: "close", "GET " + keyPath + "?": "",
	} {
		r := request(line, "", "Content-Type: text/plain", "Accept: text/html", "If-Match: x")
		if closes != "" {
			r.Body, r.ContentLength = unreadable{t}, 2<<20
		}
		w := do(h, r)
		checkEnvelope(t, w)
		if w.Code != http.StatusUnauthorized || w.Header().Get("Connection") != closes {
			t.Errorf("%s: %d, Connection %q, want %q", line, w.Code, w.Header().Get("Connection"), closes)
		}
		r.ProtoMajor = 2
		if w := do(h, r); w.Header().Get("Connection") != "" {
			t.Errorf("%s over HTTP/2: Connection %q", line, w.Header().Get("Connection"))
		}
	}
}

func TestPlainRoutes(t *testing.T) {
	t.Parallel()
	h := newHandler(t, (&fakeAPI{}).conn(), io.Discard)
	for line, want := range map[string]string{
		"GET /healthz":                   success(`{"status":"ok"}`, "The server is alive"),
		"GET /readyz?verbose":            success(`{"status":"ok"}`, "The server is ready"),
		"OPTIONS /healthz":               success("null", "This path takes GET, HEAD, OPTIONS"),
		"OPTIONS " + keyPath:             success("null", "This path takes GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
		"OPTIONS /developers/api_keys":   success("null", "This path takes GET, HEAD, POST, OPTIONS"),
		"OPTIONS " + keyPath + "/rotate": success("null", "This path takes POST, OPTIONS"),
	} {
		w := do(h, request(line, "", "Authorization:", "Accept: text/plain"))
		checkEnvelope(t, w)
		if diff := cmp.Diff(want, w.Body.String()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", line, diff)
		}
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newHandler(t, (&fakeAPI{answer: &apikeysv1.GetApiKeyResponse{ApiKey: seedKey()}}).conn(), io.Discard))
	defer server.Close()
	for path, status := range map[string]int{keyPath: 200, "/healthz": 200, "/nowhere": 404, keyPath + "/rotate": 405} {
		var size [2]int64
		for i, verb := range []string{http.MethodGet, http.MethodHead} {
			r := request(verb+" "+server.URL+path, "")
			r.RequestURI = ""
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			size[i] = resp.ContentLength
			if resp.StatusCode != status || verb == http.MethodHead && len(body) > 0 {
				t.Errorf("%s %s: %d, %s", verb, path, resp.StatusCode, body)
			}
		}
		if size[0] != size[1] || size[0] <= 0 {
			t.Errorf("%s: %d bytes by GET, %d by HEAD", path, size[0], size[1])
		}
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	if _, err := rest.New(rest.Config{}); err == nil {
		t.Error("made a handler without a connection")
	}
}

func ExampleHandler() {
	api := &fakeAPI{answer: &apikeysv1.DeleteApiKeyResponse{Id: keyID}}
	h, err := rest.New(rest.Config{
		Conn:          api.conn(), // in earnest, the channel with the interceptors and services
		Env:           "production",
		AnswerTimeout: time.Minute,
		Ready:         func(context.Context) error { return errors.New("not migrated") },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	answer := do(h, request("DELETE "+keyPath, ""))
	fmt.Fprintln(os.Stdout, answer.Code, answer.Body)
	// Output:
	// 200 {"status":200,"data":{"id":"api_key_0197c0ec-a197-719f-84a9-99270a79b42a"},"error":null,"log":null,"validator":null,"support_id":null,"message":"API key deleted","env":"production"}
}
