package apikey

import (
	"net/netip"
	"slices"
	"time"
)

// CheckRequest is what a secret is presented for.
type CheckRequest struct {
	// Secret is the text that was presented. It is looked at only where it belongs
	// to no key.
	Secret string
	// Previous says that it is the secret before the key's last rotation.
	Previous bool
	// Organization confines the answer to keys of one; empty means any, or Among.
	Organization string
	// Among confines the answer to keys of some organizations; nil does not.
	Among []string
	// Scopes must all be held by the key.
	Scopes []string
	// Addr is where the secret came from; the zero Addr is unknown.
	Addr netip.Addr

	// Nothing is decided by what follows, which is for the record.

	// UserAgent is the program that the secret came from, empty where that is unknown.
	UserAgent string
	// Caller is whoever asks about the secret; nil where a call on this server is made
	// with it.
	Caller *Actor
}

// Check is the order of checks of a verification, as far as they need neither a
// counter nor storage: it returns the code of the first that fails, else
// [CodeValid], and limits come after it. k is the key that the secret belongs to,
// nil for none. Check depends on nothing but its arguments, so a client that holds
// keys itself decides as the server does.
func Check(k *Key, r *CheckRequest, now time.Time) Code {
	if code := CheckActive(k, r, now); code != CodeValid {
		return code
	}
	return k.checkUse(r)
}

// CheckActive is [Check] without what a key may be used for: whether the secret is one
// that works, of a key that the one who asks may know of, and the key is active.
func CheckActive(k *Key, r *CheckRequest, now time.Time) Code {
	switch {
	case k == nil:
		return checkForm(r.Secret)
	case k.secretEnded(r, now), k.otherOrganization(r):
		return CodeNotFound
	}
	return k.checkState(now)
}

// CheckCaller is [Check] for a key that its holder calls this server with: a key of
// another organization than the one that the call names is known then, and refused
// as such, after its state.
func CheckCaller(k *Key, r *CheckRequest, now time.Time) Code {
	switch {
	case k == nil:
		return checkForm(r.Secret)
	case k.secretEnded(r, now):
		return CodeNotFound
	}
	if code := k.checkState(now); code != CodeValid {
		return code
	}
	if k.otherOrganization(r) {
		return CodeWrongOrganization
	}
	if code := k.checkUse(r); code != CodeValid || !slices.ContainsFunc(r.Scopes, IsOperatorScope) {
		return code
	}
	return CodeInsufficientScope // Whatever is stored of it, no key holds such a scope.
}

// Found reports whether a code is of a key that whoever asked may know of.
func (c Code) Found() bool { return c != CodeMalformed && c != CodeNotFound }

// checkForm tells a secret that belongs to no key from a text that is none.
func checkForm(text string) Code {
	if !IsSecret(text) {
		return CodeMalformed
	}
	return CodeNotFound
}

// secretEnded reports whether the secret is one that a rotation has ended.
func (k *Key) secretEnded(r *CheckRequest, now time.Time) bool {
	return r.Previous && !k.PreviousWorks(now)
}

// InReach reports whether the key is of an organization that may be told of it.
func (k *Key) InReach(r *CheckRequest) bool { return !k.otherOrganization(r) }

func (k *Key) otherOrganization(r *CheckRequest) bool {
	return r.Organization != "" && k.OrganizationID != r.Organization ||
		r.Among != nil && !slices.Contains(r.Among, k.OrganizationID)
}

// checkState returns the code of the key's state.
func (k *Key) checkState(now time.Time) Code {
	switch k.State(now) {
	case StateRevoked:
		return CodeRevoked
	case StateDisabled:
		return CodeDisabled
	case StateExpired:
		return CodeExpired
	case StateActive:
	}
	return CodeValid
}

// checkUse checks what an active key may be used for, and from where.
func (k *Key) checkUse(r *CheckRequest) Code {
	switch {
	case !k.IPAllowList.Allows(r.Addr):
		return CodeIPNotAllowed
	case !k.Scopes.HasAll(r.Scopes):
		return CodeInsufficientScope
	default:
		return CodeValid
	}
}

// CheckCost returns [CodeValid] for a cost that the limits of k can meet when they
// are whole. Else it returns the code of the first limit that the cost is above,
// and an error that names it. Waiting does not help then.
func (k *Key) CheckCost(cost int) (Code, error) {
	switch {
	case k.RateLimit != (RateLimit{}) && cost > k.RateLimit.Requests:
		return CodeRateLimited, InvalidField("cost", "must not be above the key's rate limit of %d requests", k.RateLimit.Requests)
	case k.Quota.Limit > 0 && int64(cost) > k.Quota.Limit:
		return CodeQuotaExceeded, InvalidField("cost", "must not be above the key's quota of %d", k.Quota.Limit)
	default:
		return CodeValid, nil
	}
}
