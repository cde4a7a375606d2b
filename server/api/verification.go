package api

import (
	"context"
	"net/netip"
	"slices"

	"google.golang.org/grpc"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/verify"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// VerifyApiKey decides about a secret.
func (s *apiKeys) VerifyApiKey(ctx context.Context, req *apikeysv1.VerifyApiKeyRequest) (*apikeysv1.VerifyApiKeyResponse, error) {
	v, err := s.verifier.Verify(ctx, request(ctx, req))
	if err != nil {
		return nil, err
	}
	return wire.Verification(&v), nil
}

// encodedVerification returns the service of keys with its VerifyApiKey answered
// in bytes: this is the call that every request of every customer waits for.
func (s *apiKeys) encodedVerification() *grpc.ServiceDesc {
	desc := apikeysv1.ApiKeysService_ServiceDesc
	desc.Methods = slices.Clone(desc.Methods)
	for i := range desc.Methods {
		if m := &desc.Methods[i]; m.MethodName == "VerifyApiKey" {
			m.Handler = s.verifyEncoded
		}
	}
	return &desc
}

// verifyEncoded is what protoc-gen-go-grpc generates for VerifyApiKey, but for the
// form of the answer.
func (s *apiKeys) verifyEncoded(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // The signature is grpc's.
	in := new(apikeysv1.VerifyApiKeyRequest)
	if err := decode(in); err != nil {
		return nil, err
	}
	v, err := s.verifier.Verify(ctx, request(ctx, in))
	if err != nil {
		return nil, err
	}
	return encodedMessage(wire.AppendVerification(nil, &v)), nil
}

// IntrospectToken tells whether a secret is that of an active key.
func (s *apiKeys) IntrospectToken(ctx context.Context, req *apikeysv1.IntrospectTokenRequest) (*apikeysv1.IntrospectTokenResponse, error) {
	v, err := s.verifier.Inspect(ctx, verify.Request{
		Secret: req.GetToken(), Organization: callerOf(ctx).Organization, Among: callerOf(ctx).Among(),
	})
	if err != nil {
		return nil, err
	}
	return wire.Introspection(&v), nil
}

// BatchVerifyApiKeys decides about secrets one after the other.
func (s *apiKeys) BatchVerifyApiKeys(ctx context.Context, req *apikeysv1.BatchVerifyApiKeysRequest) (*apikeysv1.BatchVerifyApiKeysResponse, error) {
	requests := make([]verify.Request, len(req.GetKeys()))
	for i, k := range req.GetKeys() {
		requests[i] = request(ctx, k)
	}
	found, err := s.verifier.VerifyBatch(ctx, requests)
	if err != nil {
		return nil, err
	}
	resp := &apikeysv1.BatchVerifyApiKeysResponse{Results: make([]*apikeysv1.VerifyApiKeyResponse, len(found))}
	for i := range found {
		resp.Results[i] = wire.Verification(&found[i])
	}
	return resp, nil
}

// request returns what a request asks.
func request(ctx context.Context, req *apikeysv1.VerifyApiKeyRequest) verify.Request {
	cost := 1
	if req.Cost != nil {
		cost = int(req.GetCost())
	}
	return verify.Request{
		Secret:       req.GetKey(),
		Organization: callerOf(ctx).Organization,
		Among:        callerOf(ctx).Among(),
		Scopes:       req.GetScopes(),
		Addr:         address(req.GetIp()),
		UserAgent:    req.GetUserAgent(),
		Caller:       &callerOf(ctx).Actor,
		Cost:         cost,
		Way:          wayOf(ctx),
	}
}

// wayOf returns the way in which a call came.
func wayOf(ctx context.Context) verify.Way {
	if callOf(ctx).wire.IsRequest() {
		return verify.WayREST
	}
	return verify.WayGRPC
}

// address returns the address that text is; one that does not parse is unknown.
func address(text string) netip.Addr {
	if text == "" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return addr
}
