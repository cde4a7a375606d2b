package authn

import (
	"context"
	"net/netip"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// The metadata, and over REST the headers, that authentication reads.
const (
	headerAuthorization = "authorization"
	headerAPIKey        = "x-api-key"
	headerOrganization  = "x-organization-id"
)

// DefaultOrganization is the one that an operator acts in who names none.
const DefaultOrganization = "org_default"

// allOrganizations is how an operator asks for all organizations at once.
const allOrganizations = "*"

// Config says what an Authenticator works with.
type Config struct {
	// Verifier checks the credentials that are keys. Required.
	Verifier *verify.Verifier
	// Operators knows the access tokens of operators. Required.
	Operators *Operators
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
	secrets   *apikey.SecretFinder
	trusted   []netip.Prefix
}

// New returns an Authenticator.
func New(c Config) *Authenticator {
	return &Authenticator{verifier: c.Verifier, operators: c.Operators, secrets: c.Secrets, trusted: c.TrustedProxies}
}

// Authenticate returns the caller of a gRPC call, from the metadata and the peer
// of ctx. Its errors are of the kinds Unauthenticated, PermissionDenied,
// Exhausted and, for an organization that cannot be, Invalid.
func (a *Authenticator) Authenticate(ctx context.Context, need apikey.Requirement) (apikey.Caller, error) {
	return a.caller(ctx, need, a.verifier.Authenticate)
}

// Recheck is [Authenticator.Authenticate] for a call that is still under way:
// whether its credential is good for it now. That spends and counts nothing.
func (a *Authenticator) Recheck(ctx context.Context, need apikey.Requirement) (apikey.Caller, error) {
	return a.caller(ctx, need, a.verifier.Recheck)
}

// keyCheck decides about a credential that is a key.
type keyCheck func(context.Context, verify.Credential) (apikey.Verification, error)

// caller returns the caller of a call, whose credential check decides about where
// it is a key.
func (a *Authenticator) caller(ctx context.Context, need apikey.Requirement, check keyCheck) (apikey.Caller, error) {
	credential, err := credentialOf(
		metadata.ValueFromIncomingContext(ctx, headerAuthorization),
		metadata.ValueFromIncomingContext(ctx, headerAPIKey))
	if err != nil {
		return apikey.Caller{}, err
	}
	organization, ok := single(metadata.ValueFromIncomingContext(ctx, headerOrganization))
	if !ok {
		return apikey.Caller{}, apikey.InvalidField(headerOrganization, "was sent twice with different values")
	}
	if apikey.HasSecretForm(credential) {
		return key(ctx, check, verify.Credential{
			Secret: credential, Organization: organization, Scopes: need.Scopes, Addr: clientOf(ctx).address(a.trusted),
		}, need)
	}
	return a.operator(ctx, credential, organization, need)
}

// credentialOf returns the one credential of a call.
func credentialOf(authorization, apiKey []string) (string, error) {
	var found string
	take := func(credential string) bool {
		same := found == "" || credential == "" || found == credential
		if found == "" {
			found = credential
		}
		return same
	}
	same := true
	for _, value := range authorization {
		value = strings.TrimSpace(value)
		if scheme, rest, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Bearer") {
			value = strings.TrimSpace(rest)
		}
		same = take(value) && same
	}
	for _, value := range apiKey {
		same = take(strings.TrimSpace(value)) && same
	}
	switch {
	case !same:
		return "", apikey.Errorf(apikey.KindUnauthenticated, apikey.ReasonUnauthenticated,
			"The request carries two different credentials; send one.")
	case found == "":
		return "", apikey.Errorf(apikey.KindUnauthenticated, apikey.ReasonUnauthenticated,
			"The request carries no credential; send an access token or an API key as Authorization: Bearer.")
	case len(found) > apikey.MaxSecretLength:
		return "", apikey.ErrBadCredential()
	}
	return found, nil
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

// operator authenticates an access token.
func (a *Authenticator) operator(ctx context.Context, credential, organization string, need apikey.Requirement) (apikey.Caller, error) {
	id, err := a.operators.find(ctx, credential)
	if err != nil {
		return apikey.Caller{}, err
	}
	switch organization {
	case "":
		organization = DefaultOrganization
	case allOrganizations:
		if !need.AnyOrganization {
			return apikey.Caller{}, apikey.InvalidField(headerOrganization, "must name one organization for this call")
		}
		organization = ""
	default:
		if err := apikey.ValidateOrganizationID(organization); err != nil {
			return apikey.Caller{}, apikey.InvalidField(headerOrganization, "%v", err)
		}
		if a.secrets.In(organization) {
			return apikey.Caller{}, apikey.InvalidField(headerOrganization, "%s", apikey.Pasted)
		}
	}
	return apikey.Caller{
		Origin:       apikey.Origin{Actor: apikey.Actor{Kind: apikey.ActorOperator, ID: id}},
		Organization: organization, Rights: apikey.AllRights(), Requirement: need, StoredToken: id != RootID,
	}, nil
}

// key authenticates an API key, which acts in its own organization only.
func key(ctx context.Context, check keyCheck, c verify.Credential, need apikey.Requirement) (apikey.Caller, error) {
	v, err := check(ctx, c)
	if err != nil {
		return apikey.Caller{}, err
	}
	rights, err := v.Admit(&need)
	if err != nil {
		return apikey.Caller{}, err
	}
	caller := apikey.Caller{
		Origin:       apikey.Origin{Actor: apikey.Actor{Kind: apikey.ActorKey, ID: v.Key.ID}},
		Organization: v.Key.OrganizationID, Rights: rights, Requirement: need, Addr: c.Addr, Generation: v.Key.Rotations,
	}
	if v.Previous {
		caller.Generation--
	}
	return caller, nil
}
