package apikey

import (
	"slices"
	"time"
)

// AllOrganizations as the organization of rights stands for every one.
const AllOrganizations = "*"

// Endless is the end of rights that have none. It is later than any time that a
// key can have.
var Endless = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)

// Rights are what a caller may do, and so what it may grant at most. The zero
// Rights allow nothing: whoever may do everything says so in every field.
type Rights struct {
	// Organization is the one to act in, or AllOrganizations. It is empty where there
	// are several, which are Organizations then.
	Organization  string
	Organizations []string
	// Scopes are the scopes that are held. None are where it is empty.
	Scopes Scopes
	// AnyAddress allows every address, and unknown ones; else Addresses are the
	// ranges to act from, and none are where it is empty.
	AnyAddress bool
	Addresses  AllowList
	// Mode is the widest mode of keys that may be made: live stands for both.
	Mode Mode
	// Until is when the rights end, or Endless.
	Until time.Time
	// Previous says that they are those of a previous secret, which may not change the
	// key that it is of.
	Previous bool
}

// AllRights returns the rights of an operator.
func AllRights() Rights {
	return Rights{
		Organization: AllOrganizations, Scopes: Scopes{AllScopes, AllOperatorScopes}, AnyAddress: true, Mode: ModeLive, Until: Endless,
	}
}

// Home returns the organization that a caller with these rights is counted for where it
// acts in none: its own, or the first of its own; empty for one of all.
func (r *Rights) Home() string {
	switch {
	case r.Organization == AllOrganizations:
		return ""
	case r.Organization == "" && len(r.Organizations) > 0:
		return r.Organizations[0]
	}
	return r.Organization
}

// Rights returns the rights of whoever presented the secret: those of its key where
// the verification is valid, else none. Those of a previous secret end with its
// overlap.
func (v *Verification) Rights() Rights {
	if v.Code != CodeValid {
		return Rights{}
	}
	k := v.Key
	r := Rights{
		Organization: k.OrganizationID, Scopes: k.Scopes,
		AnyAddress: len(k.IPAllowList) == 0, Addresses: k.IPAllowList,
		Mode: k.Mode, Until: k.ExpiresAt, Previous: v.Previous,
	}
	if r.Until.IsZero() {
		r.Until = Endless
	}
	if v.Previous && k.PreviousExpiresAt.Before(r.Until) {
		r.Until = k.PreviousExpiresAt
	}
	return r
}

// In reports whether the rights allow to act in an organization.
func (r *Rights) In(organization string) bool {
	if r.Organization == AllOrganizations {
		return true
	}
	return organization != "" && (r.Organization == organization || slices.Contains(r.Organizations, organization))
}

// HoldsOrganizations reports whether each of organizations, which may be
// AllOrganizations, is one to act in.
func (r *Rights) HoldsOrganizations(organizations []string) bool {
	for _, o := range organizations {
		if r.Organization != AllOrganizations && (o == AllOrganizations || !r.In(o)) {
			return false
		}
	}
	return true
}

// holdsRange reports whether every address of a key's list is one to act from. An
// empty list is every address.
func (r *Rights) holdsRange(l AllowList) bool {
	return r.AnyAddress || len(r.Addresses) > 0 && l.Within(r.Addresses)
}

// holdsUntil reports whether the rights last as long as a key that expires at t,
// where the zero time is never.
func (r *Rights) holdsUntil(t time.Time) bool {
	if t.IsZero() {
		t = Endless
	}
	return !t.After(r.Until)
}

// holdsMode reports whether keys of a mode may be made.
func (r *Rights) holdsMode(m Mode) bool {
	return r.Mode == ModeLive || r.Mode == ModeTest && m == ModeTest
}
