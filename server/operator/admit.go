package operator

import (
	"net/netip"
	"slices"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Request is what a call with a token asks of it.
type Request struct {
	// Previous says that the secret is the one before the last rotation.
	Previous bool
	// Organization is the one that the call acts in; empty for all of the token's, or
	// for none.
	Organization string
	// Addr is where the call came from; the zero Addr is unknown.
	Addr netip.Addr
	// Requirement is what the method asks for.
	Requirement apikey.Requirement
}

// Admit returns the rights of a call with t at now, or what the caller is told who may
// not make it. t is nil where the secret is no token's, or the token is gone. The order
// of checks is that of keys.
func Admit(t *Token, r *Request, now time.Time) (apikey.Rights, error) {
	switch {
	case t == nil, r.Previous && !t.PreviousWorks(now), t.expired(now):
		return apikey.Rights{}, apikey.ErrBadCredential()
	}
	rights := t.Rights(r.Previous)
	switch {
	case r.Organization != "" && !rights.In(r.Organization):
		return apikey.Rights{}, apikey.Refusal(apikey.CodeWrongOrganization)
	case !t.IPAllowList.Allows(r.Addr):
		return apikey.Rights{}, apikey.Refusal(apikey.CodeIPNotAllowed)
	case !t.Scopes.HasAll(r.Requirement.Scopes):
		return apikey.Rights{}, apikey.Refusal(apikey.CodeInsufficientScope, t.Scopes.Lacking(r.Requirement.Scopes)...)
	case r.Previous && r.Requirement.CurrentSecret:
		return apikey.Rights{}, apikey.ErrPreviousSecret()
	}
	return rights, nil
}

// Readmit is [Admit] for a caller who was admitted when the call began, by the row of
// its token as it is now.
func Readmit(by *apikey.Caller, t *Token, now time.Time) (apikey.Rights, error) {
	r := Request{Organization: by.Organization, Addr: by.Addr, Requirement: by.Requirement}
	if t != nil {
		if by.Generation != t.Rotations && by.Generation != t.Rotations-1 {
			t = nil // A secret that rotations have ended.
		} else {
			r.Previous = by.Generation != t.Rotations
		}
	}
	return Admit(t, &r, now)
}

// Rights returns the rights of whoever holds a secret of t. Those of the previous one
// end with its overlap.
func (t *Token) Rights(previous bool) apikey.Rights {
	r := apikey.Rights{
		Organizations: t.Organizations, Scopes: t.Scopes,
		AnyAddress: len(t.IPAllowList) == 0, Addresses: t.IPAllowList,
		Mode: apikey.ModeLive, Until: t.ExpiresAt, Previous: previous,
	}
	if len(t.Organizations) == 1 {
		r.Organization, r.Organizations = t.Organizations[0], nil
	}
	// AllOrganizations beside others is no list that can be made; it grants nothing.
	r.Organizations = slices.DeleteFunc(slices.Clone(r.Organizations), func(o string) bool { return o == apikey.AllOrganizations })
	if r.Until.IsZero() {
		r.Until = apikey.Endless
	}
	if previous && t.PreviousExpiresAt.Before(r.Until) {
		r.Until = t.PreviousExpiresAt
	}
	return r
}
