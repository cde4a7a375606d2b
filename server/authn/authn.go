package authn

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/operator"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// The metadata, and over REST the headers, that authentication reads.
const (
	headerAuthorization = "authorization"
	headerAPIKey        = "x-api-key"
	headerOrganization  = "x-organization-id"
	headerUserAgent     = "user-agent"
)

// DefaultOrganization is the one that an operator acts in who names none.
const DefaultOrganization = "org_default"

// allOrganizations is how an operator asks for all organizations at once.
const allOrganizations = "*"

// ErrIssuerUnavailable is the failure of a call whose credential cannot be checked, since
// the keys of the issuer of a token are not to be had. That is told by itself, once.
var ErrIssuerUnavailable = identity.ErrUnavailable

// Config says what an Authenticator works with.
type Config struct {
	// Verifier checks the credentials that are keys. Required.
	Verifier *verify.Verifier
	// Operators knows the root tokens. Required.
	Operators *Operators
	// Tokens knows the other access tokens of operators. Required.
	Tokens *Tokens
	// People knows the access tokens of people and workloads. Nil knows none.
	People *identity.Issuers
	// Secrets finds secrets in the names of organizations. Nil knows those alone
	// that have a form.
	Secrets *apikey.SecretFinder
	// TrustedProxies are the networks whose X-Forwarded-For is believed. Defaults
	// to none.
	TrustedProxies []netip.Prefix
}

// Authenticator turns the credential of a call into its Caller.
type Authenticator struct {
	verifier  *verify.Verifier
	operators *Operators
	tokens    *Tokens
	people    *identity.Issuers
	secrets   *apikey.SecretFinder
	trusted   []netip.Prefix
}

// New returns an Authenticator.
func New(c Config) *Authenticator {
	return &Authenticator{verifier: c.Verifier, operators: c.Operators, tokens: c.Tokens, people: c.People, secrets: c.Secrets, trusted: c.TrustedProxies}
}

// Drop drops what is cached of keys and operator tokens, by their ids, from before a
// position of the log, so that whoever is answered now finds them as they are there.
func (a *Authenticator) Drop(ids []string, position int64) {
	isToken := func(id string) bool { return strings.HasPrefix(id, apikey.TokenIDPrefix) }
	a.tokens.Drop(slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !isToken(id) }))
	a.verifier.Drop(slices.DeleteFunc(slices.Clone(ids), isToken), position)
}

// Authenticate returns the caller of a gRPC call, from the metadata and the peer
// of ctx. Its errors are of the kinds Unauthenticated, PermissionDenied, Exhausted,
// for an organization that cannot be, Invalid, and for a credential that cannot be
// checked now, Unavailable.
func (a *Authenticator) Authenticate(ctx context.Context, need apikey.Requirement) (apikey.Caller, error) {
	caller, e, err := a.caller(ctx, need, keyCheck{a.verifier.Authenticate, true})
	if e != nil {
		a.tokens.note(e, a.tokens.now(), caller.Addr)
	}
	return caller, err
}

// Recheck is [Authenticator.Authenticate] for a call that is still under way:
// whether its credential is good for it now. That spends and counts nothing.
func (a *Authenticator) Recheck(ctx context.Context, need apikey.Requirement) (apikey.Caller, error) {
	caller, _, err := a.caller(ctx, need, keyCheck{a.verifier.Recheck, false})
	return caller, err
}

// keyCheck decides about a credential that is a key.
type keyCheck struct {
	check func(context.Context, verify.Credential) (apikey.Verification, error)
	// counts says that what it decides is counted, and refusals put on record.
	counts bool
}

// caller returns the caller of a call, whose credential check decides about where
// it is a key. used is the entry of the caller's token, nil where there is none.
func (a *Authenticator) caller(ctx context.Context, need apikey.Requirement, check keyCheck) (caller apikey.Caller, used *tokenEntry, err error) {
	var shown apikey.Credential
	shown.AddAuthorization(metadata.ValueFromIncomingContext(ctx, headerAuthorization))
	shown.Add(metadata.ValueFromIncomingContext(ctx, headerAPIKey))
	credential, err := shown.Text()
	if err != nil {
		return apikey.Caller{}, nil, err
	}
	organization, ok := single(metadata.ValueFromIncomingContext(ctx, headerOrganization))
	if !ok {
		return apikey.Caller{}, nil, apikey.InvalidField(headerOrganization, "was sent twice with different values")
	}
	switch {
	case apikey.HasSecretForm(credential):
		caller, err = a.key(ctx, check, verify.Credential{
			Secret: credential, Organization: organization, Scopes: need.Scopes, Addr: clientOf(ctx).address(a.trusted), UserAgent: userAgentOf(ctx),
		}, need)
	case apikey.HasTokenForm(credential):
		return a.token(ctx, credential, organization, need, clientOf(ctx).address(a.trusted))
	case apikey.HasIdentityTokenForm(credential):
		caller, err = a.person(ctx, credential, organization, need, clientOf(ctx).address(a.trusted))
	default:
		caller, err = a.root(ctx, credential, organization, need)
	}
	return caller, nil, err
}

// userAgentOf returns the name that the program gives itself which makes a call.
func userAgentOf(ctx context.Context) string {
	if values := metadata.ValueFromIncomingContext(ctx, headerUserAgent); len(values) > 0 {
		return values[0]
	}
	return ""
}

// RefusePrevious puts on the record of the key that makes a call that the call was
// refused because it was made with the previous secret.
func (a *Authenticator) RefusePrevious(ctx context.Context, caller *apikey.Caller) {
	if caller.Actor.Kind == apikey.ActorKey {
		a.verifier.RefusePrevious(caller.Actor, verify.Credential{Addr: caller.Addr, UserAgent: userAgentOf(ctx)})
	}
}

// single returns the value of a header that may have one, and whether it has no
// more.
func single(values []string) (value string, ok bool) {
	for i, v := range values {
		v = strings.TrimSpace(v)
		if i > 0 && v != value {
			return "", false
		}
		value = v
	}
	return value, true
}

// root authenticates a root token.
func (a *Authenticator) root(ctx context.Context, credential, organization string, need apikey.Requirement) (apikey.Caller, error) {
	id, err := a.operators.find(ctx, credential)
	if err != nil {
		return apikey.Caller{}, err
	}
	if organization == "" {
		organization = DefaultOrganization
	} else if organization, err = a.organization(organization, need); err != nil {
		return apikey.Caller{}, err
	}
	return apikey.Caller{
		Origin:       apikey.Origin{Actor: apikey.Actor{Kind: apikey.ActorOperator, ID: id, Name: RootID}},
		Organization: organization, Rights: apikey.AllRights(), Requirement: need, Addr: clientOf(ctx).address(a.trusted),
		StoredToken: id != RootID, Root: true,
	}, nil
}

// organization returns the organization that an operator acts in who names one, or asks
// for all, which is the empty one.
func (a *Authenticator) organization(named string, need apikey.Requirement) (string, error) {
	if named == allOrganizations {
		if !need.AnyOrganization && !need.NoOrganization {
			return "", apikey.InvalidField(headerOrganization, "must name one organization for this call")
		}
		return "", nil
	}
	if err := apikey.ValidateOrganizationID(named); err != nil {
		return "", apikey.InvalidField(headerOrganization, "%v", err)
	}
	if a.secrets.In(named) {
		return "", apikey.InvalidField(headerOrganization, "%s", apikey.Pasted)
	}
	return named, nil
}

// OperatorToken returns the caller that acts with an access token of an operator which
// the server itself was given, in an organization, or in all of the token's where it is
// "*". from is where the call comes from that the caller is for.
func (a *Authenticator) OperatorToken(ctx context.Context, secret, organization string, need apikey.Requirement, from netip.Addr) (apikey.Caller, error) {
	caller, e, err := a.token(ctx, secret, organization, need, from)
	if e != nil {
		a.tokens.note(e, a.tokens.now(), from)
	}
	return caller, err
}

// token authenticates an access token of an operator.
func (a *Authenticator) token(ctx context.Context, credential, organization string, need apikey.Requirement, from netip.Addr) (apikey.Caller, *tokenEntry, error) {
	e, err := a.tokens.find(ctx, credential)
	if err != nil {
		return apikey.Caller{}, nil, err
	}
	if e == nil {
		return apikey.Caller{}, nil, apikey.ErrBadCredential()
	}
	caller, err := a.admit(&e.token, e.previous, organization, need, from)
	if err != nil {
		return apikey.Caller{}, nil, err
	}
	caller.Actor, caller.Generation = e.token.Actor(), e.token.Rotations
	if e.previous {
		caller.Generation--
	}
	return caller, e, nil
}

// person authenticates an access token of a person or a workload.
func (a *Authenticator) person(ctx context.Context, credential, organization string, need apikey.Requirement, from netip.Addr) (apikey.Caller, error) {
	p, err := a.people.Find(ctx, credential)
	if err != nil {
		return apikey.Caller{}, err
	}
	caller, err := a.admit(&p.Token, false, organization, need, from)
	if err != nil {
		return apikey.Caller{}, err
	}
	caller.Actor = p.Actor
	return caller, nil
}

// admit returns the caller of a call with an access token, who acts in the organizations
// of the token only. Who that is, is for the one who knows the kind of the token.
func (a *Authenticator) admit(t *operator.Token, previous bool, organization string, need apikey.Requirement, from netip.Addr) (apikey.Caller, error) {
	asked := operator.Request{Previous: previous, Addr: from, Requirement: need}
	if organization != allOrganizations {
		asked.Organization = organization
	}
	rights, err := operator.Admit(t, &asked, a.tokens.now())
	if err != nil {
		return apikey.Caller{}, err
	}
	named := organization != ""
	if named {
		if organization, err = a.organization(organization, need); err != nil {
			return apikey.Caller{}, err
		}
	}
	switch {
	case organization != "":
	case rights.Organization != "" && rights.Organization != apikey.AllOrganizations:
		organization = rights.Organization // the one, whether it was named or all were asked for
	case !named && !need.NoOrganization:
		return apikey.Caller{}, apikey.InvalidField(headerOrganization,
			"must name the organization of this call, since the access token is for several")
	}
	return apikey.Caller{Organization: organization, Rights: rights, Requirement: need, Addr: from}, nil
}

// key authenticates an API key, which acts in its own organization only.
func (a *Authenticator) key(ctx context.Context, check keyCheck, c verify.Credential, need apikey.Requirement) (apikey.Caller, error) {
	v, err := check.check(ctx, c)
	if err != nil {
		return apikey.Caller{}, err
	}
	rights, err := v.Admit(&need)
	if err != nil {
		if v.Code == apikey.CodeValid && check.counts {
			a.verifier.RefusePrevious(apikey.Actor{Kind: apikey.ActorKey, ID: v.Key.ID, Name: v.Key.Label}, c)
		}
		return apikey.Caller{}, err
	}
	caller := apikey.Caller{
		Origin:       apikey.Origin{Actor: apikey.Actor{Kind: apikey.ActorKey, ID: v.Key.ID, Name: v.Key.Label}},
		Organization: v.Key.OrganizationID, Rights: rights, Requirement: need, Addr: c.Addr, Generation: v.Key.Rotations,
	}
	if v.Previous {
		caller.Generation--
	}
	return caller, nil
}
