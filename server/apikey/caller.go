package apikey

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Requirement is what a method asks of its caller.
type Requirement struct {
	// Scopes must all be held; none for a method that every caller may call.
	Scopes []string
	// AnyOrganization allows an operator to act in all organizations at once.
	AnyOrganization bool
	// CurrentSecret refuses the previous secret of a key.
	CurrentSecret bool
}

// Caller is whoever makes a call, and proved it. What the caller may do is checked
// twice: when the call begins, and inside the transaction of each change that the
// call makes, since the key that the caller is may have been ended or narrowed
// meanwhile: see [Caller.Admit]. The zero Caller may do nothing.
type Caller struct {
	Origin
	// Organization is the one that the call acts in; empty means all, which only
	// an operator can ask for, and only of methods that allow it.
	Organization string
	// Rights are what the caller may do and grant, as it was when the call began.
	Rights Rights
	// Requirement is what the method that is called asks for.
	Requirement Requirement
	// Addr is where the call comes from; the zero Addr is unknown.
	Addr netip.Addr
	// Generation tells which secret of its key the caller showed: the one that so many
	// rotations had made. Zero for callers that are no keys.
	Generation int64
	// StoredToken says that the caller is an operator whose access token is stored,
	// under the actor's id, and good for as long as it is there.
	StoredToken bool
}

// System returns the server itself as a caller, which makes the changes that time
// brings.
func System() *Caller {
	return &Caller{Origin: Origin{Actor: Actor{Kind: ActorSystem, ID: string(ActorSystem)}}, Rights: AllRights()}
}

// Resource returns the id of the resource whose row holds the caller's rights, and
// whose events tell of every change of them: its key. Empty where there is none.
func (c *Caller) Resource() string {
	if c.Actor.Kind == ActorKey {
		return c.Actor.ID
	}
	return ""
}

// Admit returns the rights that the caller has at now, or the error of a caller that
// may not do what the method that it calls asks for. k is the row of the caller's
// resource at now, nil where there is none.
func (c *Caller) Admit(k *Key, now time.Time) (Rights, error) {
	if c.Resource() != "" {
		v := Verification{Code: CodeNotFound}
		if k != nil && (c.Generation == k.Rotations || c.Generation == k.Rotations-1) {
			v.Key, v.Previous = k, c.Generation != k.Rotations
			v.Code = CheckCaller(k, &CheckRequest{
				Previous: v.Previous, Organization: c.Organization, Scopes: c.Requirement.Scopes, Addr: c.Addr,
			}, now)
		}
		return v.Admit(&c.Requirement)
	}
	if !c.Rights.In(c.Organization) || !c.Rights.Scopes.HasAll(c.Requirement.Scopes) || !now.Before(c.Rights.Until) {
		return Rights{}, Errorf(KindPermissionDenied, ReasonPermissionDenied, "The caller may not do this.")
	}
	return c.Rights, nil
}

// Check is an error unless the caller holds a scope that depends on what the call
// changes. The scopes that a method always asks for are in its [Requirement].
func (r *Rights) Check(scope string) error {
	if r.Scopes.Has(scope) {
		return nil
	}
	return errInsufficientScope([]string{scope})
}

// Admit returns the rights of whoever called a method with the secret that was
// verified, or what the caller is told who may not.
func (v *Verification) Admit(asked *Requirement) (Rights, error) {
	switch v.Code {
	case CodeValid:
		if v.Previous && asked.CurrentSecret {
			return Rights{}, errPreviousSecret()
		}
		return v.Rights(), nil
	case CodeWrongOrganization:
		return Rights{}, Errorf(KindPermissionDenied, ReasonWrongOrganization,
			"An API key acts in its own organization only; leave X-Organization-Id out.")
	case CodeIPNotAllowed:
		return Rights{}, Errorf(KindPermissionDenied, ReasonIPNotAllowed,
			"The API key may not be used from this address.")
	case CodeInsufficientScope:
		lacking := slices.DeleteFunc(slices.Clone(asked.Scopes), func(scope string) bool { return v.Key != nil && v.Key.Scopes.Has(scope) })
		return Rights{}, errInsufficientScope(lacking)
	case CodeRateLimited:
		err := Errorf(KindExhausted, ReasonRateLimited,
			"The API key is over its rate limit of %d requests; wait before trying again.", v.Limit.Limit)
		err.RetryAfter = v.RetryAfter
		return Rights{}, err
	case CodeQuotaExceeded:
		err := Errorf(KindExhausted, ReasonQuotaExceeded,
			"The API key has used up its quota of %d.", v.Quota.Limit)
		err.RetryAfter = v.RetryAfter // zero where it does not refill
		return Rights{}, err
	default:
		return Rights{}, ErrBadCredential()
	}
}

// ErrBadCredential returns the one answer for a credential that proves nothing,
// whatever the cause is.
func ErrBadCredential() *Error {
	return Errorf(KindUnauthenticated, ReasonUnauthenticated, "The credential is not valid.")
}

func errInsufficientScope(scopes []string) *Error {
	return Errorf(KindPermissionDenied, ReasonInsufficientScope, "The API key lacks the scope %s.", strings.Join(scopes, ", "))
}

func errPreviousSecret() *Error {
	return Errorf(KindPermissionDenied, ReasonPreviousSecret,
		"This was called with the key's previous secret, which may neither update nor rotate its own key, nor make or change a webhook, nor replay events; call with the current one.")
}
