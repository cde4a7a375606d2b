package api

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/verify"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// apiKeys is the service of keys.
type apiKeys struct {
	apikeysv1.UnimplementedApiKeysServiceServer

	store    *store.Store
	verifier *verify.Verifier
	peppers  *keyring.Peppers
	rules    apikey.Rules
	random   io.Reader
	now      func() time.Time
}

// CreateApiKey makes a key.
func (s *apiKeys) CreateApiKey(ctx context.Context, req *apikeysv1.CreateApiKeyRequest) (*apikeysv1.CreateApiKeyResponse, error) {
	caller := callerOf(ctx)
	ranges, err := allowList(req.GetIpAllowList())
	if err != nil {
		return nil, err
	}
	expiresAt, err := timeOf("expires_at", req.GetExpiresAt())
	if err != nil {
		return nil, err
	}
	if err := wholeRateLimit(req.GetRateLimit()); err != nil {
		return nil, err
	}
	asked := apikey.Key{
		OrganizationID: caller.Organization,
		Label:          req.GetLabel(),
		Description:    req.GetDescription(),
		Scopes:         req.GetScopes(),
		IPAllowList:    ranges,
		ExpiresAt:      expiresAt,
		Enabled:        req.Enabled == nil || req.GetEnabled(),
		Mode:           wire.Mode(req.GetMode()),
		OwnerID:        req.GetOwnerId(),
		Metadata:       req.GetMetadata(),
		RateLimit:      rateLimit(req.GetRateLimit()),
		Quota:          wire.Quota(req.GetQuota()),
	}
	if s.rules.AbsentScopesMeanAll && len(asked.Scopes) == 0 && !req.GetEmptyScopes() {
		asked.Scopes = apikey.Scopes{apikey.AllScopes}
	}
	secret, err := apikey.NewSecret(asked.Mode, s.random)
	if err != nil {
		return nil, fmt.Errorf("make a secret: %w", err)
	}
	asked.Secret = s.peppers.Stored(secret)
	key, err := s.store.CreateKey(ctx, originOf(ctx), func(now time.Time) (apikey.Key, error) {
		key, err := s.rules.Create(asked, now)
		if err != nil || caller.Key == nil {
			return key, err
		}
		return key, key.Within(caller.Key)
	})
	if err != nil {
		return nil, err
	}
	return &apikeysv1.CreateApiKeyResponse{ApiKey: s.revealed(&key, secret)}, nil
}

// revealed returns the message of k with its whole secret, for the two answers
// that show it.
func (s *apiKeys) revealed(k *apikey.Key, secret apikey.Secret) *apikeysv1.ApiKey {
	m := s.message(k)
	m.Secret = secret.Reveal()
	return m
}

// message returns the message of a key that was read from storage.
func (s *apiKeys) message(k *apikey.Key) *apikeysv1.ApiKey {
	s.verifier.Reckon(k)
	return wire.Key(k, s.now())
}

// ListApiKeys lists keys.
func (s *apiKeys) ListApiKeys(ctx context.Context, req *apikeysv1.ListApiKeysRequest) (*apikeysv1.ListApiKeysResponse, error) {
	after, err := decodePageToken(apikey.IDPrefix, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	expiresBefore, err := timeOf("expires_before", req.GetExpiresBefore())
	if err != nil {
		return nil, err
	}
	unusedSince, err := timeOf("unused_since", req.GetUnusedSince())
	if err != nil {
		return nil, err
	}
	keys, next, err := s.store.Keys(ctx, store.KeyFilter{
		Organization:  callerOf(ctx).Organization,
		State:         wire.State(req.GetState()),
		OwnerID:       req.GetOwnerId(),
		Label:         req.GetQ(),
		ExpiresBefore: expiresBefore,
		UnusedSince:   unusedSince,
	}, after, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	var page page[*apikeysv1.ApiKey]
	for i := range keys {
		if !page.add(s.message(&keys[i])) {
			next = keys[i-1].ID
			break
		}
	}
	return &apikeysv1.ListApiKeysResponse{ApiKeys: page.rows, NextPageToken: encodePageToken(next)}, nil
}

// GetApiKey returns one key.
func (s *apiKeys) GetApiKey(ctx context.Context, req *apikeysv1.GetApiKeyRequest) (*apikeysv1.GetApiKeyResponse, error) {
	if !apikey.IsID(apikey.IDPrefix, req.GetId()) {
		return nil, apikey.ErrNotFound
	}
	key, err := s.store.Key(ctx, callerOf(ctx).Organization, req.GetId())
	if err != nil {
		return nil, err
	}
	return &apikeysv1.GetApiKeyResponse{ApiKey: s.message(&key)}, nil
}

// UpdateApiKey changes the fields that the mask names.
func (s *apiKeys) UpdateApiKey(ctx context.Context, req *apikeysv1.UpdateApiKeyRequest) (*apikeysv1.UpdateApiKeyResponse, error) {
	patch, err := patchOf(req)
	if err != nil {
		return nil, err
	}
	if patch.Names("quota") {
		resume, err := s.recallQuota(ctx, req.GetId())
		if err != nil {
			return nil, err
		}
		defer resume()
	}
	caller := callerOf(ctx)
	key, err := s.change(ctx, req.GetId(), apikey.KeyUpdated,
		func(k *apikey.Key, now time.Time) error {
			if err := checkETag(cmp.Or(req.GetEtag(), req.GetApiKey().GetEtag()), k.ETag()); err != nil {
				return err
			}
			return s.rules.Update(k, patch, now)
		},
		func(k *apikey.Key, changes []string) error {
			if caller.Key == nil {
				return nil
			}
			return k.UpdateWithin(caller.Key, changes)
		})
	if err != nil {
		return nil, err
	}
	return &apikeysv1.UpdateApiKeyResponse{ApiKey: s.message(&key)}, nil
}

// recallQuota makes what is stored of a key's quota all there is, until resume is
// called: what is left is judged, and set, in storage.
func (s *apiKeys) recallQuota(ctx context.Context, id string) (resume func(), err error) {
	if !apikey.IsID(apikey.IDPrefix, id) {
		return nil, apikey.ErrNotFound
	}
	if _, err := s.store.Key(ctx, callerOf(ctx).Organization, id); err != nil {
		return nil, err
	}
	return s.verifier.RecallQuota(ctx, id)
}

// patchOf returns the change that an update asks for.
func patchOf(req *apikeysv1.UpdateApiKeyRequest) (apikey.Patch, error) {
	values := req.GetApiKey()
	if values.GetId() != "" && values.GetId() != req.GetId() {
		return apikey.Patch{}, apikey.InvalidField("id", "must be the id of the key that is updated")
	}
	if etag := values.GetEtag(); etag != "" && req.GetEtag() != "" && etag != req.GetEtag() {
		return apikey.Patch{}, apikey.InvalidField("etag", "is not the one of the key that is sent")
	}
	if req.GetUpdateMask() == nil {
		return apikey.Patch{}, errNoMask()
	}
	ranges, err := allowList(values.GetIpAllowList())
	if err != nil {
		return apikey.Patch{}, err
	}
	expiresAt, err := timeOf("expires_at", values.GetExpiresAt())
	if err != nil {
		return apikey.Patch{}, err
	}
	if slices.Contains(req.GetUpdateMask().GetPaths(), "rate_limit") {
		if err := wholeRateLimit(values.GetRateLimit()); err != nil {
			return apikey.Patch{}, err
		}
	}
	return apikey.Patch{
		Paths: req.GetUpdateMask().GetPaths(),
		Values: apikey.Key{
			Label:       values.GetLabel(),
			Description: values.GetDescription(),
			Scopes:      values.GetScopes(),
			IPAllowList: ranges,
			ExpiresAt:   expiresAt,
			Enabled:     values.GetEnabled(),
			OwnerID:     values.GetOwnerId(),
			Metadata:    values.GetMetadata(),
			RateLimit:   rateLimit(values.GetRateLimit()),
			Quota:       wire.Quota(values.GetQuota()),
		},
	}, nil
}

// RotateApiKey gives a key a new secret.
func (s *apiKeys) RotateApiKey(ctx context.Context, req *apikeysv1.RotateApiKeyRequest) (*apikeysv1.RotateApiKeyResponse, error) {
	caller := callerOf(ctx)
	overlap := time.Duration(req.GetOverlapSeconds()) * time.Second
	var secret apikey.Secret
	key, err := s.change(ctx, req.GetId(), apikey.KeyRotated,
		func(k *apikey.Key, now time.Time) (err error) {
			if secret, err = apikey.NewSecret(k.Mode, s.random); err != nil {
				return fmt.Errorf("make a secret: %w", err)
			}
			return s.rules.Rotate(k, s.peppers.Stored(secret), overlap, now)
		},
		func(k *apikey.Key, _ []string) error {
			if caller.Key == nil {
				return nil
			}
			return k.Within(caller.Key)
		})
	if err != nil {
		return nil, err
	}
	return &apikeysv1.RotateApiKeyResponse{ApiKey: s.revealed(&key, secret)}, nil
}

// RevokeApiKey ends a key for good.
func (s *apiKeys) RevokeApiKey(ctx context.Context, req *apikeysv1.RevokeApiKeyRequest) (*apikeysv1.RevokeApiKeyResponse, error) {
	key, err := s.change(ctx, req.GetId(), apikey.KeyRevoked,
		func(k *apikey.Key, now time.Time) error {
			s.rules.Revoke(k, wire.RevokeReason(req.GetReason()), now)
			return nil
		}, nil)
	if err != nil {
		return nil, err
	}
	return &apikeysv1.RevokeApiKeyResponse{ApiKey: s.message(&key)}, nil
}

// change applies a rule to a key of the caller's organization.
func (s *apiKeys) change(ctx context.Context, id string, event apikey.EventType,
	rule func(*apikey.Key, time.Time) error, judge func(*apikey.Key, []string) error,
) (apikey.Key, error) {
	if !apikey.IsID(apikey.IDPrefix, id) {
		return apikey.Key{}, apikey.ErrNotFound
	}
	return s.store.ChangeKey(ctx, originOf(ctx), callerOf(ctx).Organization, id, event, rule, judge)
}

// DeleteApiKey ends a key and takes it out of every list and read.
func (s *apiKeys) DeleteApiKey(ctx context.Context, req *apikeysv1.DeleteApiKeyRequest) (*apikeysv1.DeleteApiKeyResponse, error) {
	if !apikey.IsID(apikey.IDPrefix, req.GetId()) {
		return nil, apikey.ErrNotFound
	}
	if err := s.store.DeleteKey(ctx, originOf(ctx), callerOf(ctx).Organization, req.GetId()); err != nil {
		return nil, err
	}
	return &apikeysv1.DeleteApiKeyResponse{Id: req.GetId()}, nil
}

// allowList reads a list of ranges and names each entry that is none.
func allowList(texts []string) (apikey.AllowList, error) {
	var list apikey.AllowList
	var problems []apikey.FieldProblem
	for i, text := range texts {
		p, err := apikey.ParseAllowed(text)
		if err != nil {
			problems = append(problems, apikey.FieldProblem{Field: fmt.Sprintf("ip_allow_list[%d]", i), Problem: err.Error()})
			continue
		}
		list = append(list, p)
	}
	if err := apikey.InvalidFields(problems); err != nil {
		return nil, err
	}
	return list, nil
}

// timeOf returns the time of a field as it can be stored and compared; an unset
// one is the zero time.
func timeOf(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if !t.IsValid() || t.GetSeconds() < 0 {
		return time.Time{}, apikey.InvalidField(field, "must be a time of the years 1970 to 9999")
	}
	return t.AsTime().Truncate(time.Microsecond), nil
}

// rateLimit returns the limit of a message, as far as an update names its parts.
func rateLimit(m *apikeysv1.RateLimit) apikey.RateLimit {
	return apikey.RateLimit{Requests: int(m.GetRequests()), WindowSeconds: int(m.GetWindowSeconds())}
}

// wholeRateLimit is an error for a limit that is there and says nothing, which
// must not be taken for none.
func wholeRateLimit(m *apikeysv1.RateLimit) error {
	if m != nil && rateLimit(m) == (apikey.RateLimit{}) {
		return apikey.InvalidFields([]apikey.FieldProblem{
			{Field: "rate_limit.requests", Problem: "is required"},
			{Field: "rate_limit.window_seconds", Problem: "is required"},
		})
	}
	return nil
}
