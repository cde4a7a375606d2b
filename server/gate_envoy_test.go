package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// dialGateGRPC returns a connection by gRPC to the listener for gateways.
func dialGateGRPC(t testing.TB, s *servertest.Server) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(s.Gate, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// checkRequest is what Envoy sends for a question: the names of headers in small letters,
// the lines of one header joined, and where the request came from as its source.
func checkRequest(t testing.TB, q gateRequest) *authv3.CheckRequest {
	t.Helper()
	values, err := url.ParseQuery(q.query)
	if err != nil {
		t.Fatal(err)
	}
	extensions := map[string]string{}
	for name, all := range values {
		extensions[name] = strings.Join(all, " ")
	}
	headers := map[string]string{":method": q.method, ":path": q.uri, ":authority": "api.example.test", ":scheme": "http", "user-agent": "curl/8.5.0", "accept": "*/*"}
	for _, line := range q.headers {
		name, value, _ := strings.Cut(line, ": ")
		name = strings.ToLower(name)
		if before, ok := headers[name]; ok {
			value = before + "," + value
		}
		headers[name] = value
	}
	peer := &authv3.AttributeContext_Peer{}
	if q.from != "" {
		peer.Address = &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: q.from, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 41234},
		}}}
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: peer, Destination: &authv3.AttributeContext_Peer{Service: "products"},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "1234", Method: q.method, Path: q.uri, Host: "api.example.test", Scheme: "http", Protocol: "HTTP/1.1", Headers: headers,
		}},
		ContextExtensions: extensions,
	}}
}

func askExtAuthz(t *testing.T, s *servertest.Server, q gateRequest) gateAnswer {
	t.Helper()
	return checkOverGRPC(t, s, checkRequest(t, q))
}

// askExtAuthzRaw asks as Envoy does with encode_raw_headers, which joins no lines.
func askExtAuthzRaw(t *testing.T, s *servertest.Server, q gateRequest) gateAnswer {
	t.Helper()
	req := checkRequest(t, q)
	http := req.GetAttributes().GetRequest().GetHttp()
	http.Headers, http.HeaderMap = nil, &corev3.HeaderMap{}
	for _, line := range q.headers {
		name, value, _ := strings.Cut(line, ": ")
		http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: strings.ToLower(name), RawValue: []byte(value)})
	}
	return checkOverGRPC(t, s, req)
}

// checkOverGRPC asks, and returns what Envoy would make of the answer.
func checkOverGRPC(t *testing.T, s *servertest.Server, req *authv3.CheckRequest) gateAnswer {
	t.Helper()
	resp, err := authv3.NewAuthorizationClient(dialGateGRPC(t, s)).Check(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.ValidateAll(); err != nil {
		t.Errorf("Envoy would refuse the answer: %v", err)
	}
	a := gateAnswer{header: http.Header{}}
	add := func(options []*corev3.HeaderValueOption) {
		for _, o := range options {
			if o.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || o.GetHeader().GetValue() == "" || o.GetHeader().GetKey() != strings.ToLower(o.GetHeader().GetKey()) {
				t.Errorf("the header is %v", o)
			}
			a.header.Add(o.GetHeader().GetKey(), o.GetHeader().GetValue())
		}
	}
	code := resp.GetDynamicMetadata().GetFields()["code"].GetStringValue()
	switch r := resp.GetHttpResponse().(type) {
	case *authv3.CheckResponse_OkResponse:
		a.status = http.StatusOK
		add(r.OkResponse.GetHeaders())
		for _, name := range r.OkResponse.GetHeadersToRemove() {
			a.header.Add(name, "")
		}
		add(r.OkResponse.GetResponseHeadersToAdd())
		id := resp.GetDynamicMetadata().GetFields()["api_key_id"].GetStringValue()
		if resp.GetStatus().GetCode() != int32(codes.OK) || code != "valid" || id != a.header.Get("X-Api-Key-Id") {
			t.Errorf("a request passes with %v", resp)
		}
	case *authv3.CheckResponse_DeniedResponse:
		a.status, a.body = int(r.DeniedResponse.GetStatus().GetCode()), r.DeniedResponse.GetBody()
		add(r.DeniedResponse.GetHeaders())
		for _, name := range identityHeaders {
			if len(a.header.Values(name)) == 0 {
				a.header.Set(name, "") // Nothing is passed on.
			}
		}
		if resp.GetStatus().GetCode() == int32(codes.OK) || code != a.header.Get("X-Api-Key-Error") {
			t.Errorf("a request is refused with %v", resp)
		}
	default:
		t.Fatalf("the answer is %v", resp)
	}
	for _, name := range limitHeaders {
		if len(a.header.Values(name)) == 0 {
			a.header.Set(name, "")
		}
	}
	return a
}

// TestExtAuthzDisguised has names of identity with underscores removed, which a server
// that takes them for dashes would believe.
func TestExtAuthzDisguised(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withGate)
	keys := gateKeys(t, s)
	req := checkRequest(t, gateRequest{method: "GET", uri: "/", headers: []string{
		"X-API-Key: " + keys["good"].GetSecret(), "X_Api_Key_Owner: admin", "x-organization_id: org_other", "x_other: stays",
	}})
	resp, err := authv3.NewAuthorizationClient(dialGateGRPC(t, s)).Check(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	removed := strings.Join(resp.GetOkResponse().GetHeadersToRemove(), " ")
	if !strings.Contains(removed, "x_api_key_owner") || !strings.Contains(removed, "x-organization_id") || strings.Contains(removed, "x_other") {
		t.Errorf("what is removed is %s", removed)
	}
	fields := resp.GetDynamicMetadata().GetFields()
	if fields["label"].GetStringValue() != "Anna's Schlüssel" || len(fields["scopes"].GetListValue().GetValues()) != 2 || fields["owner_id"].GetStringValue() != "anna\u00a0" {
		t.Errorf("the metadata is %v", fields)
	}
}

// TestExtAuthzElsewhere has health and reflection where Envoy asks, the service of Envoy
// nowhere else, and nothing of the API.
func TestExtAuthzElsewhere(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withGate)
	gate := dialGateGRPC(t, s)
	const name = "envoy.service.auth.v3.Authorization"
	health, err := healthpb.NewHealthClient(gate).Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
	stream, err := reflectionpb.NewServerReflectionClient(gate).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name}}); err != nil {
		t.Fatal(err)
	}
	if file, err := stream.Recv(); err != nil || len(file.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Errorf("reflection: %v, %v", file, err)
	}
	_, err = apikeysv1.NewApiKeysServiceClient(gate).ListApiKeys(s.Context(t.Context()), &apikeysv1.ListApiKeysRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("the API at the gate: %v", err)
	}
	_, err = authv3.NewAuthorizationClient(s.Conn).Check(t.Context(), checkRequest(t, gateRequest{method: "GET"}))
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("the gate at the API: %v", err)
	}
	for _, req := range []*authv3.CheckRequest{{}, {Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{}}}} {
		if _, err := authv3.NewAuthorizationClient(gate).Check(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("no HTTP request: %v", err)
		}
	}
}
