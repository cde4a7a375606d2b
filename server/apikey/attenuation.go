package apikey

import (
	"slices"
	"strings"
)

// A right is one of the four things in which a key can exceed its maker.
type right struct {
	name  string
	holds func(r *Rights, k *Key) bool
}

// rights lists the four, under the names of the fields that hold them.
var rights = []right{
	{"scopes", func(r *Rights, k *Key) bool { return r.Scopes.HasAll(k.Scopes) }},
	{"ip_allow_list", func(r *Rights, k *Key) bool { return r.holdsRange(k.IPAllowList) }},
	{"expires_at", func(r *Rights, k *Key) bool { return r.holdsUntil(k.ExpiresAt) }},
	{"mode", func(r *Rights, k *Key) bool { return r.holdsMode(k.Mode) }},
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
	}
	return Errorf(KindPermissionDenied, ReasonPermissionDenied, "The caller may not make an event %s.", event)
}

// CheckSecret is an error where a caller with the previous secret of a key would
// update or rotate that key, which has the given id: the holder of the current secret
// decides about both.
func (r *Rights) CheckSecret(event EventType, by Actor, id string) error {
	if r.Previous && by == (Actor{ActorKey, id}) && (event == KeyUpdated || event == KeyRotated) {
		return errPreviousSecret()
	}
	return nil
}

// CheckGrant is an error unless k grants nothing beyond the rights of the caller
// that makes it: its scopes a subset, its address ranges inside, its expiry no
// later, its mode test if the caller's is. The error is EXCEEDS_CALLER and names
// every right that is exceeded.
func (r *Rights) CheckGrant(k *Key) error {
	return r.checkGrant(k, func(string) bool { return true })
}

// CheckUpdate is [Rights.CheckGrant] for an update by a caller that changed the
// named fields: it checks those, and all four where the update enabled the key or
// moved its expiry, since either hands out again all that the key holds.
func (r *Rights) CheckUpdate(k *Key, by Actor, changes []string) error {
	if by == (Actor{ActorKey, k.ID}) && (slices.Contains(changes, "rate_limit") || slices.Contains(changes, "quota")) {
		return Errorf(KindPermissionDenied, ReasonOwnLimits, "A key cannot change its own limits.")
	}
	if slices.Contains(changes, "expires_at") || slices.Contains(changes, "enabled") && k.Enabled {
		return r.CheckGrant(k)
	}
	return r.checkGrant(k, func(name string) bool { return slices.Contains(changes, name) })
}

func (r *Rights) checkGrant(k *Key, checked func(name string) bool) error {
	var exceeded []string
	for _, right := range rights {
		if checked(right.name) && !right.holds(r, k) {
			exceeded = append(exceeded, right.name)
		}
	}
	if len(exceeded) == 0 {
		return nil
	}
	return &Error{
		Kind:    KindPermissionDenied,
		Reason:  ReasonExceedsCaller,
		Message: "The key would hold more than the key that you call with: " + strings.Join(exceeded, ", ") + ".",
		Details: map[string]string{"exceeded": strings.Join(exceeded, ",")},
	}
}
