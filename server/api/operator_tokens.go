package api

import (
	"context"
	"fmt"
	"io"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/operator"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// operatorTokens is the service of the access tokens of operators.
type operatorTokens struct {
	apikeysv1.UnimplementedOperatorTokensServiceServer

	store   *store.Store
	peppers *keyring.Peppers
	rules   operator.Rules
	random  io.Reader
	now     func() time.Time
}

// CreateOperatorToken makes a token.
func (s *operatorTokens) CreateOperatorToken(ctx context.Context, req *apikeysv1.CreateOperatorTokenRequest) (*apikeysv1.CreateOperatorTokenResponse, error) {
	asked, problems := wire.RequestedToken(req)
	found := append(ruleFaultsOf(ctx), problems...)
	if role := wire.Role(req.GetRole()); role != "" {
		if len(asked.Scopes) > 0 {
			found.add("role", "must not be given together with scopes")
		} else {
			asked.Scopes = role.Scopes(s.rules.Catalogue)
		}
	}
	if faulty(ctx) || len(found) > 0 {
		_, err := s.rules.Create(asked, s.now(), found...)
		return nil, withRefused(ctx, err)
	}
	secret, err := s.newSecret()
	if err != nil {
		return nil, err
	}
	asked.Secret = s.peppers.Stored(secret)
	return answer(ctx, func(t *operator.Token) (*apikeysv1.CreateOperatorTokenResponse, error) {
		return &apikeysv1.CreateOperatorTokenResponse{OperatorToken: s.revealed(t, secret)}, nil
	}, func() (operator.Token, error) {
		return s.store.CreateToken(ctx, s.author(ctx), func(count int, now time.Time) (operator.Token, error) {
			if err := s.rules.CheckNumber(count); err != nil {
				return operator.Token{}, err
			}
			return s.rules.Create(asked, now)
		})
	})
}

func (s *operatorTokens) newSecret() (apikey.Secret, error) {
	secret, err := apikey.NewSecret(apikey.TokenPrefix, s.random)
	if err != nil {
		return apikey.Secret{}, fmt.Errorf("make a secret: %w", err)
	}
	return secret, nil
}

// author returns who makes the changes of a call, which are in no organization.
func (s *operatorTokens) author(ctx context.Context) *apikey.Caller {
	by := *authorOf(ctx)
	by.Organization = ""
	return &by
}

// message returns the message of a token.
func (s *operatorTokens) message(t *operator.Token) *apikeysv1.OperatorToken {
	m := wire.Token(t, s.now())
	wire.SetRole(m, t, s.rules.Catalogue)
	return m
}

// revealed returns the message of a token with its whole secret, for the two answers
// that show it.
func (s *operatorTokens) revealed(t *operator.Token, secret apikey.Secret) *apikeysv1.OperatorToken {
	m := s.message(t)
	m.Secret = secret.Reveal()
	return m
}

// ListOperatorTokens lists the tokens that the caller may know of.
func (s *operatorTokens) ListOperatorTokens(ctx context.Context, req *apikeysv1.ListOperatorTokensRequest) (*apikeysv1.ListOperatorTokensResponse, error) {
	found := faultsOf(ctx)
	after := found.pageToken(apikey.TokenIDPrefix, req.GetPageToken())
	if err := found.err(); err != nil {
		return nil, err
	}
	rights := &callerOf(ctx).Rights
	list, next, err := s.store.Tokens(ctx, store.TokenFilter{
		CreatedBy: req.GetCreatedBy(),
		Visible:   func(t *operator.Token) bool { return t.Within(rights) },
	}, after, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	var page page[*apikeysv1.OperatorToken]
	for i := range list {
		if !page.add(s.message(&list[i])) {
			next = list[i-1].ID
			break
		}
	}
	return &apikeysv1.ListOperatorTokensResponse{OperatorTokens: page.rows, NextPageToken: encodePageToken(next)}, nil
}

// GetOperatorToken returns one token.
func (s *operatorTokens) GetOperatorToken(ctx context.Context, req *apikeysv1.GetOperatorTokenRequest) (*apikeysv1.GetOperatorTokenResponse, error) {
	token, err := s.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &apikeysv1.GetOperatorTokenResponse{OperatorToken: s.message(&token)}, nil
}

// find returns a token that the caller may know of.
func (s *operatorTokens) find(ctx context.Context, id string) (operator.Token, error) {
	if !apikey.IsID(apikey.TokenIDPrefix, id) {
		return operator.Token{}, operator.ErrNotFound
	}
	token, err := s.store.Token(ctx, id)
	if err == nil && !token.Within(&callerOf(ctx).Rights) {
		err = operator.ErrNotFound
	}
	return token, err
}

// UpdateOperatorToken changes the fields that the mask names.
func (s *operatorTokens) UpdateOperatorToken(ctx context.Context, req *apikeysv1.UpdateOperatorTokenRequest) (*apikeysv1.UpdateOperatorTokenResponse, error) {
	caller := callerOf(ctx)
	if err := caller.Rights.CheckSecret(apikey.TokenUpdated, caller.Actor, apikey.Actor{Kind: apikey.ActorOperator, ID: req.GetId()}); err != nil {
		return nil, err // before what is wrong with the fields
	}
	found := ruleFaultsOf(ctx)
	if err := found.target(req, req.GetOperatorToken()); err != nil {
		return nil, withRefused(ctx, err)
	}
	patch, problems := wire.TokenPatch(req)
	found = append(found, problems...)
	update := func(t *operator.Token, now time.Time) error {
		etag := t.ETag()
		if err := s.rules.Update(t, patch, now, found...); err != nil {
			return err
		}
		return checkETag(req, req.GetOperatorToken(), etag)
	}
	if faulty(ctx) || len(found) > 0 {
		token, err := s.find(ctx, req.GetId())
		if err == nil {
			err = update(&token, s.now())
		}
		if err := withRefused(ctx, err); err != nil {
			return nil, err
		}
	}
	return answer(ctx, func(t *operator.Token) (*apikeysv1.UpdateOperatorTokenResponse, error) {
		return &apikeysv1.UpdateOperatorTokenResponse{OperatorToken: s.message(t)}, nil
	}, func() (operator.Token, error) {
		return s.change(ctx, req.GetId(), apikey.TokenUpdated, update)
	})
}

// RotateOperatorToken gives a token a new secret.
func (s *operatorTokens) RotateOperatorToken(ctx context.Context, req *apikeysv1.RotateOperatorTokenRequest) (*apikeysv1.RotateOperatorTokenResponse, error) {
	overlap := time.Duration(req.GetOverlapSeconds()) * time.Second
	secret, err := s.newSecret()
	if err != nil {
		return nil, err
	}
	return answer(ctx, func(t *operator.Token) (*apikeysv1.RotateOperatorTokenResponse, error) {
		return &apikeysv1.RotateOperatorTokenResponse{OperatorToken: s.revealed(t, secret)}, nil
	}, func() (operator.Token, error) {
		return s.change(ctx, req.GetId(), apikey.TokenRotated, func(t *operator.Token, now time.Time) error {
			if req.GetEndPrevious() {
				t.EndPrevious()
			}
			return s.rules.Rotate(t, s.peppers.Stored(secret), overlap, now)
		})
	})
}

// change applies a rule to a token that the caller may know of.
func (s *operatorTokens) change(ctx context.Context, id string, event apikey.EventType,
	rule func(*operator.Token, time.Time) error,
) (operator.Token, error) {
	if !apikey.IsID(apikey.TokenIDPrefix, id) {
		return operator.Token{}, operator.ErrNotFound
	}
	return s.store.ChangeToken(ctx, s.author(ctx), id, event, rule)
}

// DeleteOperatorToken ends a token and takes it out of every list and read.
func (s *operatorTokens) DeleteOperatorToken(ctx context.Context, req *apikeysv1.DeleteOperatorTokenRequest) (*apikeysv1.DeleteOperatorTokenResponse, error) {
	if !apikey.IsID(apikey.TokenIDPrefix, req.GetId()) {
		return nil, operator.ErrNotFound
	}
	if err := s.store.DeleteToken(ctx, s.author(ctx), req.GetId()); err != nil {
		return nil, err
	}
	return &apikeysv1.DeleteOperatorTokenResponse{Id: req.GetId()}, nil
}
