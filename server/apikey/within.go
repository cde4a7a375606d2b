package apikey

import (
	"slices"
	"strings"
)

// A right is one of the four things in which a key can exceed another.
type right struct {
	name    string
	exceeds func(k, caller *Key) bool
}

// rights lists the four, under the names of the fields that hold them.
var rights = []right{
	{"scopes", func(k, caller *Key) bool { return !caller.Scopes.HasAll(k.Scopes) }},
	{"ip_allow_list", func(k, caller *Key) bool { return !k.IPAllowList.Within(caller.IPAllowList) }},
	{"expires_at", func(k, caller *Key) bool {
		return !caller.ExpiresAt.IsZero() && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(caller.ExpiresAt))
	}},
	{"mode", func(k, caller *Key) bool { return caller.Mode == ModeTest && k.Mode != ModeTest }},
}

// Within reports whether k grants nothing beyond caller, the key with which a
// call is made: its scopes a subset, its address ranges inside, its expiry no
// later, its mode test if the caller's is. The error is EXCEEDS_CALLER and names
// every right that is exceeded.
func (k *Key) Within(caller *Key) error {
	return k.within(caller, func(string) bool { return true })
}

// UpdateWithin is [Key.Within] for an update that changed the named fields: it
// judges those, and all four where the update enabled the key or moved its
// expiry, since either hands out again all that the key holds.
func (k *Key) UpdateWithin(caller *Key, changes []string) error {
	if k.ID == caller.ID && (slices.Contains(changes, "rate_limit") || slices.Contains(changes, "quota")) {
		return Errorf(KindPermissionDenied, ReasonOwnLimits, "A key cannot change its own limits.")
	}
	if slices.Contains(changes, "expires_at") || slices.Contains(changes, "enabled") && k.Enabled {
		return k.Within(caller)
	}
	return k.within(caller, func(name string) bool { return slices.Contains(changes, name) })
}

func (k *Key) within(caller *Key, judged func(name string) bool) error {
	var exceeded []string
	for _, r := range rights {
		if judged(r.name) && r.exceeds(k, caller) {
			exceeded = append(exceeded, r.name)
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
