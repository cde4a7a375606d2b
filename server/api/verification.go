package api

import (
	"context"
	"net/netip"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/verify"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// VerifyApiKey judges a secret.
func (s *apiKeys) VerifyApiKey(ctx context.Context, req *apikeysv1.VerifyApiKeyRequest) (*apikeysv1.VerifyApiKeyResponse, error) {
	v, err := s.verifier.Verify(ctx, question(ctx, req))
	if err != nil {
		return nil, err
	}
	return wire.Verification(&v), nil
}

// BatchVerifyApiKeys judges secrets one after the other.
func (s *apiKeys) BatchVerifyApiKeys(ctx context.Context, req *apikeysv1.BatchVerifyApiKeysRequest) (*apikeysv1.BatchVerifyApiKeysResponse, error) {
	questions := make([]verify.Request, len(req.GetKeys()))
	for i, k := range req.GetKeys() {
		questions[i] = question(ctx, k)
	}
	found, err := s.verifier.VerifyBatch(ctx, questions)
	if err != nil {
		return nil, err
	}
	resp := &apikeysv1.BatchVerifyApiKeysResponse{Results: make([]*apikeysv1.VerifyApiKeyResponse, len(found))}
	for i := range found {
		resp.Results[i] = wire.Verification(&found[i])
	}
	return resp, nil
}

// question returns what a request asks.
func question(ctx context.Context, req *apikeysv1.VerifyApiKeyRequest) verify.Request {
	cost := 1
	if req.Cost != nil {
		cost = int(req.GetCost())
	}
	return verify.Request{
		Secret:       req.GetKey(),
		Organization: callerOf(ctx).Organization,
		Scopes:       req.GetScopes(),
		Addr:         address(req.GetIp()),
		Cost:         cost,
	}
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
