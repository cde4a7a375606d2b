package api

import (
	"context"
	"fmt"
	"io"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/verify"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// apiKeys is the service of keys.
type apiKeys struct {
	apikeysv1.UnimplementedApiKeysServiceServer

	store    *store.Store
	verifier *verify.Verifier
	meter    *meter.Meter
	peppers  *keyring.Peppers
	rules    apikey.Rules
	random   io.Reader
	now      func() time.Time
	scopes   []*apikeysv1.Scope
}

// CreateApiKey makes a key.
func (s *apiKeys) CreateApiKey(ctx context.Context, req *apikeysv1.CreateApiKeyRequest) (*apikeysv1.CreateApiKeyResponse, error) {
	asked, problems := wire.RequestedKey(req, callerOf(ctx).Organization)
	found := append(ruleFaultsOf(ctx), problems...)
	if s.rules.AbsentScopesMeanAll && len(asked.Scopes) == 0 && !req.GetEmptyScopes() {
		asked.Scopes = apikey.Scopes{apikey.AllScopes}
	}
	format, problem := s.rules.Formats.Choose(asked.Format, asked.Mode)
	if faulty(ctx) || len(found) > 0 || problem != nil {
		_, err := s.rules.Create(asked, s.now(), found...)
		return nil, withRefused(ctx, err)
	}
	secret, err := apikey.NewSecret(format.Prefix, s.random)
	if err != nil {
		return nil, fmt.Errorf("make a secret: %w", err)
	}
	asked.Secret = s.peppers.Stored(secret)
	return answer(ctx, func(k *apikey.Key) (*apikeysv1.CreateApiKeyResponse, error) {
		return &apikeysv1.CreateApiKeyResponse{ApiKey: s.revealed(k, secret)}, nil
	}, func() (apikey.Key, error) {
		return s.store.AddKey(ctx, authorOf(ctx), s.rules.MaxKeys, s.rules.TooManyKeys(), func(now time.Time) (apikey.Key, error) {
			return s.rules.Create(asked, now)
		})
	})
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
	s.meter.FillRemaining(k)
	return wire.Key(k, s.now())
}

// ListApiKeys lists keys.
func (s *apiKeys) ListApiKeys(ctx context.Context, req *apikeysv1.ListApiKeysRequest) (*apikeysv1.ListApiKeysResponse, error) {
	found := faultsOf(ctx)
	filter := found.keyFilter(ctx, "", req)
	filter.Descending = req.GetOrder() == apikeysv1.SortOrder_SORT_ORDER_DESC
	token := bindToken(req)
	after := found.boundToken(token, req.GetPageToken(), !filter.Descending)
	if err := found.err(); err != nil {
		return nil, err
	}
	keys, next, err := s.store.Keys(ctx, filter, after, pageSize(req.GetPageSize()))
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
	return &apikeysv1.ListApiKeysResponse{ApiKeys: page.rows, NextPageToken: token.encode(next)}, nil
}

// GetApiKey returns one key.
func (s *apiKeys) GetApiKey(ctx context.Context, req *apikeysv1.GetApiKeyRequest) (*apikeysv1.GetApiKeyResponse, error) {
	key, err := s.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &apikeysv1.GetApiKeyResponse{ApiKey: s.message(&key)}, nil
}

// find returns a key of the caller's organization.
func (s *apiKeys) find(ctx context.Context, id string) (apikey.Key, error) {
	if !apikey.IsID(apikey.IDPrefix, id) {
		return apikey.Key{}, apikey.ErrNotFound
	}
	return s.store.Key(ctx, callerOf(ctx).Organization, id)
}

// UpdateApiKey changes the fields that the mask names.
func (s *apiKeys) UpdateApiKey(ctx context.Context, req *apikeysv1.UpdateApiKeyRequest) (*apikeysv1.UpdateApiKeyResponse, error) {
	caller := callerOf(ctx)
	if err := caller.Rights.CheckSecret(apikey.KeyUpdated, caller.Actor, apikey.Actor{Kind: apikey.ActorKey, ID: req.GetId()}); err != nil {
		return nil, err // before what is wrong with the fields
	}
	found := ruleFaultsOf(ctx)
	if err := found.target(req, req.GetApiKey()); err != nil {
		return nil, withRefused(ctx, err)
	}
	patch, problems := wire.KeyPatch(req)
	found = append(found, problems...)
	update := func(k *apikey.Key, now time.Time) error {
		etag := k.ETag()
		if err := s.rules.Update(k, patch, now, found...); err != nil {
			return err
		}
		return checkETag(req, req.GetApiKey(), etag)
	}
	if faulty(ctx) || len(found) > 0 {
		key, err := s.find(ctx, req.GetId())
		if err == nil {
			err = update(&key, s.now())
		}
		if err := withRefused(ctx, err); err != nil {
			return nil, err
		}
	}
	if patch.Names("quota") {
		resume, err := s.pauseQuota(ctx, req.GetId())
		if err != nil {
			return nil, err
		}
		defer resume()
	}
	return answer(ctx, func(k *apikey.Key) (*apikeysv1.UpdateApiKeyResponse, error) {
		return &apikeysv1.UpdateApiKeyResponse{ApiKey: s.message(k)}, nil
	}, func() (apikey.Key, error) {
		if patch.Disables() && apikey.IsID(apikey.IDPrefix, req.GetId()) {
			return s.store.DisableKey(ctx, authorOf(ctx), caller.Organization, req.GetId(), update)
		}
		return s.change(ctx, req.GetId(), apikey.KeyUpdated, update)
	})
}

// pauseQuota makes what is stored of a key's quota all there is, until resume is
// called: what is left is checked, and set, in storage.
func (s *apiKeys) pauseQuota(ctx context.Context, id string) (resume func(), err error) {
	if _, err := s.find(ctx, id); err != nil {
		return nil, err
	}
	return s.meter.PauseQuota(ctx, id)
}

// RotateApiKey gives a key a new secret.
func (s *apiKeys) RotateApiKey(ctx context.Context, req *apikeysv1.RotateApiKeyRequest) (*apikeysv1.RotateApiKeyResponse, error) {
	overlap := time.Duration(req.GetOverlapSeconds()) * time.Second
	var secret apikey.Secret
	return answer(ctx, func(k *apikey.Key) (*apikeysv1.RotateApiKeyResponse, error) {
		return &apikeysv1.RotateApiKeyResponse{ApiKey: s.revealed(k, secret)}, nil
	}, func() (apikey.Key, error) {
		return s.change(ctx, req.GetId(), apikey.KeyRotated, func(k *apikey.Key, now time.Time) (err error) {
			format := s.rules.Formats.Next(k)
			if secret, err = apikey.NewSecret(format.Prefix, s.random); err != nil {
				return fmt.Errorf("make a secret: %w", err)
			}
			if req.GetEndPrevious() {
				k.EndPrevious()
			}
			return s.rules.Rotate(k, format, s.peppers.Stored(secret), overlap, now)
		})
	})
}

// RevokeApiKey ends a key for good.
func (s *apiKeys) RevokeApiKey(ctx context.Context, req *apikeysv1.RevokeApiKeyRequest) (*apikeysv1.RevokeApiKeyResponse, error) {
	return answer(ctx, func(k *apikey.Key) (*apikeysv1.RevokeApiKeyResponse, error) {
		return &apikeysv1.RevokeApiKeyResponse{ApiKey: s.message(k)}, nil
	}, func() (apikey.Key, error) {
		return s.change(ctx, req.GetId(), apikey.KeyRevoked, func(k *apikey.Key, now time.Time) error {
			s.rules.Revoke(k, wire.RevokeReason(req.GetReason()), now)
			return nil
		})
	})
}

// change applies a rule to a key of the caller's organization.
func (s *apiKeys) change(ctx context.Context, id string, event apikey.EventType,
	rule func(*apikey.Key, time.Time) error,
) (apikey.Key, error) {
	if !apikey.IsID(apikey.IDPrefix, id) {
		return apikey.Key{}, apikey.ErrNotFound
	}
	return s.store.ChangeKey(ctx, authorOf(ctx), callerOf(ctx).Organization, id, event, rule)
}

// DeleteApiKey ends a key and takes it out of every list and read.
func (s *apiKeys) DeleteApiKey(ctx context.Context, req *apikeysv1.DeleteApiKeyRequest) (*apikeysv1.DeleteApiKeyResponse, error) {
	if !apikey.IsID(apikey.IDPrefix, req.GetId()) {
		return nil, apikey.ErrNotFound
	}
	if err := s.store.DeleteKey(ctx, authorOf(ctx), callerOf(ctx).Organization, req.GetId()); err != nil {
		return nil, err
	}
	return &apikeysv1.DeleteApiKeyResponse{Id: req.GetId()}, nil
}
