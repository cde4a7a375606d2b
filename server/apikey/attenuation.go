package apikey

import (
	"slices"
	"strings"
	"time"
)

// Grant is what a credential holds, or would hold after a change.
type Grant struct {
	// Organizations are those to act in; [AllOrganizations] stands for every one. Nil
	// for a key, whose one organization is fixed, and checked where its event is
	// written.
	Organizations []string
	Scopes        Scopes
	IPAllowList   AllowList
	ExpiresAt     time.Time
	Mode          Mode
}

// grant returns what k holds.
func (k *Key) grant() *Grant {
	return &Grant{Scopes: k.Scopes, IPAllowList: k.IPAllowList, ExpiresAt: k.ExpiresAt, Mode: k.Mode}
}

// A right is one of the things in which a credential can exceed its maker.
type right struct {
	name  string
	holds func(r *Rights, g *Grant) bool
}

// rights lists them, under the names of the fields that hold them.
var rights = []right{
	{"scopes", func(r *Rights, g *Grant) bool { return r.Scopes.HasAll(g.Scopes) }},
	{"organizations", func(r *Rights, g *Grant) bool { return r.HoldsOrganizations(g.Organizations) }},
	{"ip_allow_list", func(r *Rights, g *Grant) bool { return r.holdsRange(g.IPAllowList) }},
	{"expires_at", func(r *Rights, g *Grant) bool { return r.holdsUntil(g.ExpiresAt) }},
	{"mode", func(r *Rights, g *Grant) bool { return r.holdsMode(g.Mode) }},
}

// CheckChange checks the change of a key that event tells of: k is the key as it
// would stand afterwards, and changes are the names of the fields that differ. Whoever
// ends a key grants nothing. An event that the rule does not know is refused.
func (r *Rights) CheckChange(event EventType, by Actor, k *Key, changes []string) error {
	switch event {
	case KeyCreated, KeyRotated:
		return r.CheckGrant(k)
	case KeyUpdated:
		return r.CheckUpdate(k, by, changes)
	case KeyRevoked, KeyDeleted:
		return nil
	case KeyExpiring, KeyExpired:
		if by.Kind == ActorSystem {
			return nil
		}
	default:
	}
	return Errorf(KindPermissionDenied, ReasonPermissionDenied, "The caller may not make an event %s.", event)
}

// CheckSecret is an error where a caller with the previous secret of a credential
// would update or rotate that credential, which is self: the holder of the current
// secret decides about both.
func (r *Rights) CheckSecret(event EventType, by, self Actor) error {
	if !r.Previous || !by.Is(self) {
		return nil
	}
	switch event {
	case KeyUpdated, KeyRotated, TokenUpdated, TokenRotated:
		return ErrPreviousSecret()
	default:
		return nil
	}
}

// CheckGrant is an error unless k grants nothing beyond the rights of the caller
// that makes it: its scopes a subset, its address ranges inside, its expiry no
// later, its mode test if the caller's is. The error is EXCEEDS_CALLER and names
// every right that is exceeded.
func (r *Rights) CheckGrant(k *Key) error { return r.CheckWhole(k.grant()) }

// CheckWhole is [Rights.CheckGrant] for any credential.
func (r *Rights) CheckWhole(g *Grant) error {
	return r.checkGrant(g, func(string) bool { return true })
}

// CheckChanged is [Rights.CheckWhole] for the change of some fields of a credential: it
// checks those, and all where the change moved the credential's expiry, which hands out
// again all that the credential holds.
func (r *Rights) CheckChanged(g *Grant, changes []string) error {
	if slices.Contains(changes, "expires_at") {
		return r.CheckWhole(g)
	}
	return r.checkGrant(g, func(name string) bool { return slices.Contains(changes, name) })
}

// CheckUpdate is [Rights.CheckGrant] for an update by a caller that changed the
// named fields: it checks those, and all four where the update enabled the key or
// moved its expiry, since either hands out again all that the key holds.
func (r *Rights) CheckUpdate(k *Key, by Actor, changes []string) error {
	if by.Is(Actor{Kind: ActorKey, ID: k.ID}) && (slices.Contains(changes, "rate_limit") || slices.Contains(changes, "quota")) {
		return Errorf(KindPermissionDenied, ReasonOwnLimits, "A key cannot change its own limits.")
	}
	if slices.Contains(changes, "enabled") && k.Enabled {
		return r.CheckGrant(k)
	}
	return r.CheckChanged(k.grant(), changes)
}

func (r *Rights) checkGrant(g *Grant, checked func(name string) bool) error {
	var exceeded []string
	for _, right := range rights {
		if checked(right.name) && !right.holds(r, g) {
			exceeded = append(exceeded, right.name)
		}
	}
	if len(exceeded) == 0 {
		return nil
	}
	return &Error{
		Kind:    KindPermissionDenied,
		Reason:  ReasonExceedsCaller,
		Message: "It would hold more than the credential that you call with: " + strings.Join(exceeded, ", ") + ".",
		Details: map[string]string{"exceeded": strings.Join(exceeded, ",")},
	}
}
