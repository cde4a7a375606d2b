package server_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// TestOpenServices calls health and reflection, which need no credential.
func TestOpenServices(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	health, err := healthpb.NewHealthClient(w.Conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(w.Conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	list := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}).String()
	for _, name := range []string{"apikeys.v1.ApiKeysService", "grpc.health.v1.Health"} {
		if !strings.Contains(list, name) {
			t.Errorf("no %s in %s", name, list)
		}
	}
	for _, symbol := range []string{"apikeys.v1.ApiKeysService.RotateApiKey", "apikeys.v1.ApiKey", "buf.validate.FieldRules", "google.api.HttpRule"} {
		resp := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}})
		if len(resp.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%s: %v", symbol, resp.GetErrorResponse())
		}
	}
}

// TestOddCalls makes calls that no stub would.
func TestOddCalls(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.take(t, "create", "grpc", step{rpc: "CreateApiKey", body: `{"label": "k"}`, save: "k"})
	get := &apikeysv1.GetApiKeyRequest{Id: w.saved["k.id"]}
	const method = "/apikeys.v1.ApiKeysService/GetApiKey"
	operator := w.Context(t.Context())
	for name, c := range map[string]struct {
		ctx    context.Context
		method string
		want   codes.Code
		option grpc.CallOption
	}{
		"as it should be":   {operator, method, codes.OK, nil},
		"compressed":        {operator, method, codes.Unimplemented, grpc.UseCompressor(gzip.Name)},
		"unknown method":    {operator, "/apikeys.v1.ApiKeysService/GrantEverything", codes.Unimplemented, nil},
		"unknown service":   {operator, "/apikeys.v2.ApiKeysService/GetApiKey", codes.Unimplemented, nil},
		"other case":        {operator, "/apikeys.v1.ApiKeysService/getApiKey", codes.Unimplemented, nil},
		"no slash":          {operator, method[1:], codes.Unimplemented, nil},
		"no slash, no auth": {t.Context(), method[1:], codes.Unimplemented, nil},
		"two slashes":       {operator, "/" + method, codes.Unimplemented, nil},
		"like health":       {t.Context(), "/grpc.health./../apikeys.v1.ApiKeysService/GetApiKey", codes.Unimplemented, nil},
		"like reflection":   {t.Context(), "/grpc.reflection.apikeys.v1.ApiKeysService/GetApiKey", codes.Unimplemented, nil},
		"no credential":     {t.Context(), method, codes.Unauthenticated, nil},
		"empty":             {metadata.AppendToOutgoingContext(t.Context(), "authorization", "", "x-api-key", " "), method, codes.Unauthenticated, nil},
		"binary":            {metadata.AppendToOutgoingContext(t.Context(), "authorization-bin", "Bearer x"), method, codes.Unauthenticated, nil},
		"organization":      {metadata.AppendToOutgoingContext(operator, "x-organization-id", "%00"), method, codes.InvalidArgument, nil},
		"many":              {metadata.AppendToOutgoingContext(operator, "x-organization-id", "a", "x-organization-id", "a", "x-organization-id", "b"), method, codes.InvalidArgument, nil},
		"REST's metadata":   {metadata.AppendToOutgoingContext(t.Context(), "grpcgateway-authorization", "Bearer servertest-root-token-of-enough-length"), method, codes.Unauthenticated, nil},
	} {
		var options []grpc.CallOption
		if c.option != nil {
			options = append(options, c.option)
		}
		err := w.Conn.Invoke(c.ctx, c.method, get, new(apikeysv1.GetApiKeyResponse), options...)
		if status.Code(err) != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		if c.want == codes.Unimplemented && c.option == nil && w.failure(t, err).reason != "ROUTE_NOT_FOUND" {
			t.Errorf("%s: %v without its reason", name, err)
		}
	}

	large := &apikeysv1.GetApiKeyRequest{Id: strings.Repeat("x", 1<<20)}
	if err := w.Conn.Invoke(operator, method, large, new(emptypb.Empty)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("large: %v", err)
	}
	if err := w.Conn.Invoke(operator, method, large, new(emptypb.Empty), grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.Unimplemented {
		t.Errorf("large, compressed: %v", err)
	}
}

// TestMasks plays what only gRPC can ask of an update: masks, and an etag in the
// key itself.
func TestMasks(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	k := func() *apikeysv1.ApiKey {
		t.Helper()
		resp, err := w.Keys.CreateApiKey(w.Context(t.Context()), &apikeysv1.CreateApiKeyRequest{Label: "before", Metadata: map[string]string{"a": "1", "b": "2"}})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetApiKey()
	}
	update := func(req *apikeysv1.UpdateApiKeyRequest, paths ...string) (*apikeysv1.ApiKey, error) {
		if paths != nil {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
		}
		resp, err := w.Keys.UpdateApiKey(w.Context(t.Context()), req)
		return resp.GetApiKey(), err
	}
	key := k()
	got, err := update(&apikeysv1.UpdateApiKeyRequest{Id: key.GetId(), ApiKey: &apikeysv1.ApiKey{Label: "after", Metadata: map[string]string{"a": "3", "c": "4"}}},
		"label", "metadata.`a`", "metadata.b")
	if err != nil || got.GetLabel() != "after" || len(got.GetMetadata()) != 1 || got.GetMetadata()["a"] != "3" {
		t.Errorf("update: %v, %v", got, err)
	}
	if got, err = update(&apikeysv1.UpdateApiKeyRequest{Id: key.GetId()}, "metadata"); err != nil || len(got.GetMetadata()) != 0 || got.GetLabel() != "after" {
		t.Errorf("update without a key: %v, %v", got, err)
	}
	if got, err = update(&apikeysv1.UpdateApiKeyRequest{Id: key.GetId(), UpdateMask: &fieldmaskpb.FieldMask{}, ApiKey: &apikeysv1.ApiKey{Label: "no"}}); err != nil || got.GetLabel() != "after" {
		t.Errorf("update with an empty mask: %v, %v", got, err)
	}
	stale, now := key.GetEtag(), got.GetEtag()
	zeroLimits := &apikeysv1.UpdateApiKeyRequest{ApiKey: &apikeysv1.ApiKey{RateLimit: &apikeysv1.RateLimit{}, Quota: &apikeysv1.Quota{Remaining: proto.Int64(0)}}}
	for name, c := range map[string]struct {
		req   *apikeysv1.UpdateApiKeyRequest
		paths []string
		want  string
		field string
	}{
		"no mask":                  {req: &apikeysv1.UpdateApiKeyRequest{ApiKey: &apikeysv1.ApiKey{Label: "x"}}, want: "INVALID_ARGUMENT", field: "update_mask"},
		"star":                     {paths: []string{"*"}, want: "INVALID_ARGUMENT", field: "update_mask"},
		"read-only":                {paths: []string{"description", "state"}, want: "INVALID_ARGUMENT", field: "update_mask"},
		"mode":                     {paths: []string{"mode"}, want: "INVALID_ARGUMENT", field: "update_mask"},
		"camel case":               {paths: []string{"ownerId"}, want: "INVALID_ARGUMENT", field: "update_mask"},
		"broken entry":             {paths: []string{"metadata.`a"}, want: "INVALID_ARGUMENT", field: "update_mask"},
		"other id":                 {req: &apikeysv1.UpdateApiKeyRequest{ApiKey: &apikeysv1.ApiKey{Id: "x"}}, paths: []string{}, want: "INVALID_ARGUMENT", field: "id"},
		"time":                     {req: &apikeysv1.UpdateApiKeyRequest{ApiKey: &apikeysv1.ApiKey{ExpiresAt: &timestamppb.Timestamp{Seconds: 1 << 40}}}, paths: []string{"expires_at"}, want: "INVALID_ARGUMENT", field: "expires_at"},
		"nanoseconds":              {req: &apikeysv1.UpdateApiKeyRequest{ApiKey: &apikeysv1.ApiKey{ExpiresAt: &timestamppb.Timestamp{Nanos: -1}}}, paths: []string{"expires_at"}, want: "INVALID_ARGUMENT", field: "expires_at"},
		"stale":                    {req: &apikeysv1.UpdateApiKeyRequest{Etag: stale}, paths: []string{}, want: "ETAG_MISMATCH"},
		"stale, in a key":          {req: &apikeysv1.UpdateApiKeyRequest{ApiKey: &apikeysv1.ApiKey{Etag: stale}}, paths: []string{}, want: "ETAG_MISMATCH"},
		"two etags":                {req: &apikeysv1.UpdateApiKeyRequest{Etag: now, ApiKey: &apikeysv1.ApiKey{Etag: stale}}, paths: []string{}, want: "INVALID_ARGUMENT", field: "etag"},
		"a limit of nothing":       {req: zeroLimits, paths: []string{"rate_limit"}, want: "INVALID_ARGUMENT", field: "rate_limit.requests rate_limit.window_seconds"},
		"a limit of zero requests": {req: zeroLimits, paths: []string{"rate_limit.requests"}, want: "INVALID_ARGUMENT", field: "rate_limit.requests rate_limit.window_seconds"},
		"no limit's window":        {paths: []string{"rate_limit.window_seconds"}, want: "INVALID_ARGUMENT", field: "rate_limit.requests rate_limit.window_seconds"},
		"a quota of nothing":       {req: zeroLimits, paths: []string{"quota"}, want: "INVALID_ARGUMENT", field: "quota.limit"},
		"a quota of zero":          {req: zeroLimits, paths: []string{"quota.limit"}, want: "INVALID_ARGUMENT", field: "quota.limit"},
		"what is left of no quota": {req: zeroLimits, paths: []string{"quota.remaining"}, want: "INVALID_ARGUMENT", field: "quota.limit"},
		"no quota's refill":        {paths: []string{"quota.refill"}, want: "INVALID_ARGUMENT", field: "quota.limit"},
		"no quota's day":           {paths: []string{"quota.refill_day"}, want: "INVALID_ARGUMENT", field: "quota.limit"},
		"an unknown refill": {req: &apikeysv1.UpdateApiKeyRequest{ApiKey: &apikeysv1.ApiKey{Quota: &apikeysv1.Quota{Limit: 1, Refill: 9}}}, paths: []string{"quota"},
			want: "INVALID_ARGUMENT", field: "quota.refill"},
		"all at once": {req: &apikeysv1.UpdateApiKeyRequest{ApiKey: &apikeysv1.ApiKey{Id: "x", Label: "\x01", Scopes: []string{"x"}, IpAllowList: []string{"y"}, ExpiresAt: &timestamppb.Timestamp{Nanos: -1}, Quota: &apikeysv1.Quota{}}},
			paths: []string{"label", "scopes", "ip_allow_list", "expires_at", "quota", "nothing"}, want: "INVALID_ARGUMENT", field: "id label scopes[0] ip_allow_list[0] expires_at quota.limit update_mask"},
	} {
		if c.req == nil {
			c.req = &apikeysv1.UpdateApiKeyRequest{}
		}
		c.req.Id = key.GetId()
		_, err := update(c.req, c.paths...)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		a := w.failure(t, err)
		fields := strings.Fields(c.field)
		slices.Sort(fields)
		if got := slices.Sorted(maps.Keys(a.validator)); a.reason != c.want || !slices.Equal(got, fields) {
			t.Errorf("%s: %s %v", name, a.reason, a.validator)
		}
	}
	hooks := apikeysv1.NewWebhooksServiceClient(w.Conn)
	hook, err := hooks.CreateWebhook(w.Context(t.Context()), &apikeysv1.CreateWebhookRequest{Label: "before", Url: "https://example.com", Events: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"*", "id", "headers.", "headers.`x-a", "headers.x-a`", "headers.`x-a`.b", "headers.x.a"} {
		_, err := hooks.UpdateWebhook(w.Context(t.Context()), &apikeysv1.UpdateWebhookRequest{
			Id: hook.GetWebhook().GetId(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{path}},
		})
		if a := w.failure(t, err); err == nil || a.reason != "INVALID_ARGUMENT" || a.validator["update_mask"] == "" {
			t.Errorf("%s of a webhook: %v", path, err)
		}
	}
	// What no mask names is not checked.
	if got, err := update(&apikeysv1.UpdateApiKeyRequest{Id: key.GetId(), ApiKey: &apikeysv1.ApiKey{Label: "\x01", Scopes: []string{""}}}, "description"); err != nil || got.GetEtag() != now {
		t.Errorf("update with values that no mask names: %v, %v", got, err)
	}
	if got, err := update(&apikeysv1.UpdateApiKeyRequest{Id: key.GetId(), Etag: now, ApiKey: &apikeysv1.ApiKey{Label: "x", Etag: now}}, "label"); err != nil || got.GetLabel() != "x" {
		t.Errorf("update with the etag twice: %v, %v", got, err)
	}
	for name, req := range map[string]*apikeysv1.CreateApiKeyRequest{"mode": {Label: "x", Mode: 9}, "rate_limit.requests": {Label: "x", RateLimit: &apikeysv1.RateLimit{}},
		"quota.limit": {Label: "x", Quota: &apikeysv1.Quota{}}, "expires_at": {Label: "x", ExpiresAt: &timestamppb.Timestamp{Seconds: -1}}} {
		_, err := w.Keys.CreateApiKey(w.Context(t.Context()), req)
		if a := w.failure(t, err); a.validator[name] == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
