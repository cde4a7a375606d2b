package store

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/apikeys-dev/apikeys/ent"
	enttoken "github.com/apikeys-dev/apikeys/ent/accesstoken"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/operator"
)

// tokenOf returns the token of a row without its use. A row that does not decode is an
// error rather than a token that may do something else.
func tokenOf(row *ent.AccessToken) (operator.Token, error) {
	t := operator.Token{
		ID: row.ID, Name: row.Name, Description: row.Description,
		Scopes: row.Scopes, Organizations: row.Organizations,
		ExpiresAt: fromMicros(row.ExpiresAt), CreatedAt: fromMicros(&row.CreatedAt), UpdatedAt: fromMicros(row.UpdatedAt),
		CreatedBy:         apikey.Actor{Kind: apikey.ActorKind(row.CreatedByKind), ID: row.CreatedByID, Name: row.CreatedByName},
		Secret:            apikey.StoredSecret{PepperID: row.PepperID, Mask: row.SecretMask},
		PreviousExpiresAt: fromMicros(row.PreviousExpiresAt), Rotations: row.Rotations, Version: row.Version,
		CountedFor: row.CountedFor,
	}
	for _, text := range row.IPAllowList {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return operator.Token{}, fmt.Errorf("read operator token %s: %w", row.ID, err)
		}
		t.IPAllowList = append(t.IPAllowList, p)
	}
	hashes := []hashColumn{{row.SecretHash, &t.Secret.Hash}}
	if row.PreviousHash != nil {
		t.Previous = apikey.StoredSecret{PepperID: row.PreviousPepperID, Mask: row.PreviousMask}
		hashes = append(hashes, hashColumn{row.PreviousHash, &t.Previous.Hash})
	}
	for _, h := range hashes {
		var err error
		if *h.into, err = hashOf(h.column); err != nil {
			return operator.Token{}, fmt.Errorf("read operator token %s: %w", row.ID, err)
		}
	}
	return t, nil
}

// truncateTokenTimes is truncateTimes for a token.
func truncateTokenTimes(t *operator.Token) {
	for _, at := range []*time.Time{&t.ExpiresAt, &t.CreatedAt, &t.UpdatedAt, &t.PreviousExpiresAt} {
		*at = apikey.StoredTime(*at)
	}
}

// tokenSetter is what ent's builders of a create and of an update have in common.
type tokenSetter[B any] interface {
	SetName(string) B
	SetDescription(string) B
	SetScopes([]string) B
	SetOrganizations([]string) B
	SetIPAllowList([]string) B
	SetNillableExpiresAt(*int64) B
	SetNillableUpdatedAt(*int64) B
	SetSecretHash([]byte) B
	SetPepperID(string) B
	SetSecretMask(string) B
	SetPreviousPepperID(string) B
	SetPreviousMask(string) B
	SetNillablePreviousExpiresAt(*int64) B
	SetRotations(int64) B
	SetVersion(int64) B
	SetPreviousHash([]byte) B
}

// createAccessToken returns what inserts a token.
func createAccessToken(tokens *ent.AccessTokenClient, t *operator.Token) *ent.AccessTokenCreate {
	return setAccessToken(tokens.Create().SetID(t.ID).SetCreatedAt(t.CreatedAt.UnixMicro()).SetCountedFor(t.CountedFor).
		SetCreatedByKind(string(t.CreatedBy.Kind)).SetCreatedByID(t.CreatedBy.ID).SetCreatedByName(t.CreatedBy.Name), t)
}

// setAccessToken sets every column that can change.
func setAccessToken[B tokenSetter[B]](b B, t *operator.Token) B {
	ranges := make([]string, len(t.IPAllowList))
	for i, p := range t.IPAllowList {
		ranges[i] = p.String()
	}
	b.SetName(t.Name).SetDescription(t.Description).
		SetScopes(t.Scopes).SetOrganizations(t.Organizations).SetIPAllowList(ranges).
		SetNillableExpiresAt(micros(t.ExpiresAt)).SetNillableUpdatedAt(micros(t.UpdatedAt)).
		SetSecretHash(t.Secret.Hash[:]).SetPepperID(t.Secret.PepperID).SetSecretMask(t.Secret.Mask).
		SetPreviousPepperID(t.Previous.PepperID).SetPreviousMask(t.Previous.Mask).
		SetNillablePreviousExpiresAt(micros(t.PreviousExpiresAt)).
		SetRotations(t.Rotations).SetVersion(t.Version)
	if t.Previous.Mask != "" {
		b.SetPreviousHash(t.Previous.Hash[:])
	}
	return b
}

// updateAccessToken writes every column of a token that can change.
func (t *tx) updateAccessToken(ctx context.Context, token *operator.Token) error {
	update := setAccessToken(t.AccessToken.Update().Where(enttoken.ID(token.ID)), token)
	if token.ExpiresAt.IsZero() {
		update.ClearExpiresAt()
	}
	if token.Previous.Mask == "" {
		update.ClearPreviousHash()
	}
	if token.PreviousExpiresAt.IsZero() {
		update.ClearPreviousExpiresAt()
	}
	if err := update.Exec(ctx); err != nil {
		return fmt.Errorf("update operator token: %w", err)
	}
	return nil
}
