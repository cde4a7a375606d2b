package operator

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Token is an access token of an operator as it is stored. The zero time stands for
// "not" or "never" in every field.
//
// A Token handed out by a store or a cache is shared: change a copy, and replace its
// slices, never their elements.
type Token struct {
	ID          string
	Name        string
	Description string
	Scopes      apikey.Scopes
	// Organizations are those to act in, or [apikey.AllOrganizations] alone.
	Organizations []string
	IPAllowList   apikey.AllowList
	ExpiresAt     time.Time
	CreatedAt     time.Time
	UpdatedAt     time.Time
	CreatedBy     apikey.Actor
	// Secret is the current one; Previous is the one before the last rotation, which
	// works until PreviousExpiresAt. They have no hash for programs at the edge.
	Secret            apikey.StoredSecret
	Previous          apikey.StoredSecret
	PreviousExpiresAt time.Time
	// Rotations counts the token's rotations.
	Rotations int64
	// Version counts the token's changes from 1; the etag is made of it.
	Version int64
	// CountedFor is the id of the delegate whose bound the token counts towards: see
	// [Delegate]. Empty means its maker.
	CountedFor string
	// Use is the latest call that was made with the token.
	Use Use
}

// Use is when, and from where, a token was used.
type Use struct {
	At time.Time
	// Addr is where the call came from; the zero Addr is unknown.
	Addr netip.Addr
}

// ETag names this version of the token.
func (t *Token) ETag() string { return strconv.FormatInt(t.Version, 10) }

// Actor returns the token as whoever makes a change.
func (t *Token) Actor() apikey.Actor {
	return apikey.Actor{Kind: apikey.ActorOperator, ID: t.ID, Name: t.Name}
}

// Within reports whether every organization of the token is one of r: whoever has the
// rights r may know of it then.
func (t *Token) Within(r *apikey.Rights) bool { return r.HoldsOrganizations(t.Organizations) }

// expired reports whether the token's time is over: from expires_at on, that instant
// included.
func (t *Token) expired(now time.Time) bool {
	return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt)
}

// PreviousWorks reports whether the secret before the last rotation is still good at
// now.
func (t *Token) PreviousWorks(now time.Time) bool { return now.Before(t.PreviousExpiresAt) }

// EndPrevious ends the secret before the last rotation.
func (t *Token) EndPrevious() { t.Previous, t.PreviousExpiresAt = apikey.StoredSecret{}, time.Time{} }

// boundPrevious keeps the previous secret from outliving the token.
func (t *Token) boundPrevious() {
	if !t.ExpiresAt.IsZero() && t.PreviousExpiresAt.After(t.ExpiresAt) {
		t.PreviousExpiresAt = t.ExpiresAt
	}
}

// grant returns what t holds. A token may make keys of both modes.
func (t *Token) grant() *apikey.Grant {
	return &apikey.Grant{
		Organizations: t.Organizations, Scopes: t.Scopes, IPAllowList: t.IPAllowList, ExpiresAt: t.ExpiresAt, Mode: apikey.ModeLive,
	}
}

// CheckChange checks the change of a token that event tells of: t is the token as it
// would stand afterwards, and changes are the names of the fields that differ. Whoever
// ends a token grants nothing. An event that the rule does not know is refused.
func CheckChange(r *apikey.Rights, event apikey.EventType, t *Token, changes []string) error {
	switch event {
	case apikey.TokenCreated, apikey.TokenRotated:
		return r.CheckWhole(t.grant())
	case apikey.TokenUpdated:
		return r.CheckChanged(t.grant(), changes)
	case apikey.TokenDeleted:
		return nil
	default:
		return apikey.Errorf(apikey.KindPermissionDenied, apikey.ReasonPermissionDenied, "The caller may not make an event %s.", event)
	}
}

// Changes returns the names of the resource's fields whose values differ between before
// and after, in the resource's order. updated_at and etag, which every change moves,
// and the latest use, which no change moves, are left out.
func Changes(before, after *Token) []string {
	var names []string
	differs := func(name string, differ bool) {
		if differ {
			names = append(names, name)
		}
	}
	differs("name", before.Name != after.Name)
	differs("description", before.Description != after.Description)
	differs("secret", before.Secret.Hash != after.Secret.Hash)
	differs("scopes", !slices.Equal(before.Scopes, after.Scopes))
	differs("organizations", !slices.Equal(before.Organizations, after.Organizations))
	differs("ip_allow_list", !slices.Equal(before.IPAllowList, after.IPAllowList))
	differs("expires_at", !before.ExpiresAt.Equal(after.ExpiresAt))
	differs("previous_secret_expires_at", !before.PreviousExpiresAt.Equal(after.PreviousExpiresAt))
	return names
}
