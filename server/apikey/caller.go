package apikey

import (
	"net/netip"
	"strings"
	"time"
)

// Requirement is what a method asks of its caller.
type Requirement struct {
	// Scopes must all be held; none for a method that every caller may call.
	Scopes []string
	// AnyOrganization allows an operator to act in all of its organizations at once.
	AnyOrganization bool
	// NoOrganization says that the call is in no organization: none need be named.
	NoOrganization bool
	// CurrentSecret refuses the previous secret of a credential.
	CurrentSecret bool
}

// Caller is whoever makes a call, and proved it. What the caller may do is checked
// twice: when the call begins, and inside the transaction of each change that the
// call makes, since the credential of the caller may have been ended or narrowed
// meanwhile: see [Caller.Admit]. The zero Caller may do nothing.
type Caller struct {
	Origin
	// Organization is the one that the call acts in. Empty means all that the caller
	// may act in, which only an operator can ask for, and only of methods that allow
	// it; or none, where the method is in no organization.
	Organization string
	// Rights are what the caller may do and grant, as it was when the call began.
	Rights Rights
	// Requirement is what the method that is called asks for.
	Requirement Requirement
	// Addr is where the call comes from; the zero Addr is unknown.
	Addr netip.Addr
	// Generation tells which of its secrets the caller showed: the one that so many
	// rotations had made. Zero for callers whose secrets are not rotated.
	Generation int64
	// StoredToken says that the caller is an operator whose root token is stored, under
	// the actor's id, and good for as long as it is there.
	StoredToken bool
	// Root says that the caller has a root token.
	Root bool
}

// CredentialKind is what a caller has proved itself with.
type CredentialKind string

// The kinds of credentials.
const (
	CredentialRootToken     CredentialKind = "root_token"
	CredentialOperatorToken CredentialKind = "operator_token"
	CredentialKey           CredentialKind = "api_key"
	CredentialIdentityToken CredentialKind = "identity_token"
)

// Credential returns what the caller has proved itself with; "" for the server itself.
func (c *Caller) Credential() CredentialKind {
	switch {
	case c.Root:
		return CredentialRootToken
	case c.HasToken():
		return CredentialOperatorToken
	case c.Actor.Kind == ActorKey:
		return CredentialKey
	case c.Actor.Kind == ActorPerson:
		return CredentialIdentityToken
	}
	return ""
}

// System returns the server itself as a caller, which makes the changes that time
// brings, in the course of a job that it is named after.
func System(job string) *Caller {
	return &Caller{Origin: Origin{Actor: Actor{Kind: ActorSystem, ID: string(ActorSystem), Name: job}}, Rights: AllRights()}
}

// TokenIDPrefix begins the id of every access token of an operator but root tokens.
const TokenIDPrefix = "operator_token_"

// Resource returns the id of the resource whose row holds the caller's rights, and
// whose events tell of every change of them: its key, or its access token. Empty where
// there is none.
func (c *Caller) Resource() string {
	if c.Actor.Kind == ActorKey || c.HasToken() {
		return c.Actor.ID
	}
	return ""
}

// HasToken reports whether the caller is an operator with an access token that is no
// root token. Such a caller is admitted by the row of that token, which package
// operator does.
func (c *Caller) HasToken() bool {
	return c.Actor.Kind == ActorOperator && strings.HasPrefix(c.Actor.ID, TokenIDPrefix)
}

// Among returns the organizations that the answer to a call is confined to which names
// none of them; nil where it names one, or the caller may see all.
func (c *Caller) Among() []string {
	switch {
	case c.Organization != "" || c.Rights.Organization == AllOrganizations:
		return nil
	case c.Rights.Organization != "":
		return []string{c.Rights.Organization}
	case c.Rights.Organizations == nil:
		return []string{} // which is none, unlike nil
	}
	return c.Rights.Organizations
}

// Admit returns the rights that the caller has at now, or the error of a caller that
// may not do what the method that it calls asks for. k is the row of the caller's
// key at now, nil where there is none.
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
	if c.Actor.Kind == ActorPerson && !now.Before(c.Rights.Until) {
		return Rights{}, ErrBadCredential() // The token has expired since the call began.
	}
	if !c.Requirement.NoOrganization && !c.Rights.In(c.Organization) || !c.Rights.Scopes.HasAll(c.Requirement.Scopes) || !now.Before(c.Rights.Until) {
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
