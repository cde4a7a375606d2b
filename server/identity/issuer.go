package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/operator"
)

// The bounds of a configuration.
const (
	// MaxIssuers is how many issuers there may be.
	MaxIssuers = 20
	// MaxClockSkew bounds how far the clock of an issuer may be ahead.
	MaxClockSkew = 5 * time.Minute

	defaultClockSkew = time.Minute
	maxIssuerLength  = 255
	maxAudiences     = 20
	maxTypes         = 10
	maxRoles         = 1000
	maxText          = 255 // of a name, a path or a value
)

// algorithms are those that a token may be signed with: all that prove its signer by a key
// that is public.
var algorithms = []string{"RS256", "ES256", "EdDSA", "PS256", "RS384", "RS512", "ES384", "ES512", "PS384", "PS512"}

// Issuer is what a server is told of an issuer of tokens.
type Issuer struct {
	// URL names the issuer, to the character as its tokens do. Its keys are found by
	// discovery, below this URL. Required.
	URL string
	// Audience are the names by which this server is meant; a token must be for one of
	// them. Required.
	Audience []string
	// Algorithms are those that tokens may be signed with. Empty means RS256, ES256,
	// EdDSA and PS256.
	Algorithms []string
	// Types are the types that the header of a token may say, its typ. Empty means
	// at+jwt and JWT, each with or without application/ in front. A header without a type
	// says JWT.
	Types []string
	// OrganizationClaim is the path of the claim that names the organizations to act in:
	// a text, or a list of texts. Empty means that Organizations are those of every token.
	OrganizationClaim string
	// Organizations are those to act in, or [apikey.AllOrganizations] for all. Beside an
	// OrganizationClaim they are those that the claim may name, where
	// [apikey.AllOrganizations] lets the claim name any, and * for all.
	Organizations []string
	// ScopesClaim is the path of the claim that names scopes: a text with spaces between
	// them, or a list. Those that the server does not know are passed over. Empty means
	// none.
	ScopesClaim string
	// RolesClaim is the path of the claim whose value, or values, Roles give scopes to.
	RolesClaim string
	// Roles are what the values of the claim RolesClaim are good for. Others are passed
	// over.
	Roles map[string]Grant
	// NameClaim is the path of the claim that holds what people call the caller. Empty
	// means the first there is of name, preferred_username, email and client_id.
	NameClaim string
	// ClockSkew is how far the clock of the issuer may be ahead of this server's: it is
	// granted to the times from which a token is good, never to its expiry. Zero means a
	// minute, a negative one none.
	ClockSkew time.Duration
	// JWKSFile is a file that holds the issuer's keys, for machines that cannot reach the
	// issuer. Empty means that they are fetched.
	JWKSFile string
}

// Grant is what a value of a claim is good for: the scopes of a role, or those listed.
type Grant struct {
	Role   operator.Role
	Scopes []string
}

// scopes returns the scopes of g on a server with a catalogue.
func (g Grant) scopes(catalogue []string) apikey.Scopes {
	if g.Role != "" {
		return g.Role.Scopes(catalogue)
	}
	return g.Scopes
}

// withDefaults returns i with every unset field at its default.
func (i Issuer) withDefaults() Issuer {
	if len(i.Algorithms) == 0 {
		i.Algorithms = algorithms[:4]
	}
	if len(i.Types) == 0 {
		i.Types = []string{"at+jwt", "JWT"}
	}
	if i.ClockSkew == 0 {
		i.ClockSkew = defaultClockSkew
	}
	i.ClockSkew = max(i.ClockSkew, 0)
	return i
}

// Check returns what is wrong with issuers, under the names that their fields have in the
// file of settings, such as oidc[0].issuer. plain allows issuers on this machine whose
// URL is http. catalogue are the scopes that keys can have.
func Check(issuers []Issuer, plain bool, catalogue []string) []apikey.FieldProblem {
	var found []apikey.FieldProblem
	if len(issuers) > MaxIssuers {
		return []apikey.FieldProblem{{Field: "oidc", Problem: fmt.Sprintf("must have %d issuers at most, not %d", MaxIssuers, len(issuers))}}
	}
	for n, i := range issuers {
		report := func(field, format string, args ...any) {
			found = append(found, apikey.FieldProblem{Field: fmt.Sprintf("oidc[%d].%s", n, field), Problem: fmt.Sprintf(format, args...)})
		}
		if err := checkURL(i.URL, plain); err != nil {
			report("issuer", "%v", err)
		} else if slices.ContainsFunc(issuers[:n], func(other Issuer) bool { return other.URL == i.URL }) {
			report("issuer", "is there twice: %s", apikey.Excerpt(i.URL))
		}
		i.checkToken(report)
		i.checkMeaning(report, catalogue)
	}
	return found
}

type reporter func(field, format string, args ...any)

// checkToken checks what is asked of a token before its claims mean anything.
func (i *Issuer) checkToken(report reporter) {
	if len(i.Audience) == 0 {
		report("audience", "is required: the name by which the issuer's tokens mean this server")
	}
	if len(i.Audience) > maxAudiences {
		report("audience", "must have %d names at most", maxAudiences)
	}
	for _, a := range i.Audience {
		if problem := textProblem(a); problem != "" {
			report("audience", "%s", problem)
		}
	}
	for _, a := range i.Algorithms {
		switch {
		case slices.Contains(algorithms, a):
		case a == "none" || strings.HasPrefix(a, "HS"):
			report("algorithms", "must not name %s: whoever can check such a token can make one; name some of %s", a, strings.Join(algorithms, ", "))
		default:
			report("algorithms", "must be of %s, not %q", strings.Join(algorithms, ", "), apikey.Excerpt(a))
		}
	}
	if len(i.Types) > maxTypes {
		report("typ", "must have %d types at most", maxTypes)
	}
	for _, t := range i.Types {
		if problem := textProblem(t); problem != "" {
			report("typ", "%s", problem)
		}
	}
	if i.ClockSkew > MaxClockSkew {
		report("clock_skew", "must be at most %s", MaxClockSkew)
	}
}

// checkMeaning checks what the claims of a token are to mean.
func (i *Issuer) checkMeaning(report reporter, catalogue []string) {
	for _, claim := range []struct{ field, path string }{
		{"organization_claim", i.OrganizationClaim}, {"scopes_claim", i.ScopesClaim}, {"roles_claim", i.RolesClaim}, {"name_claim", i.NameClaim},
	} {
		if claim.path != "" && (textProblem(claim.path) != "" || slices.Contains(strings.Split(claim.path, "."), "")) {
			report(claim.field, "must be the name of a claim, or names with a dot between them, such as realm_access.roles")
		}
	}
	if i.OrganizationClaim == "" && len(i.Organizations) == 0 {
		report("organizations", "must name the organizations of every token, or * for all, where organization_claim is not set")
	}
	if len(i.Organizations) > maxOrganizations {
		report("organizations", "must be %d at most", maxOrganizations)
	}
	for n, o := range i.Organizations {
		if o == apikey.AllOrganizations {
			if len(i.Organizations) > 1 {
				report("organizations", "must have * alone, since it stands for all of them")
			}
		} else if err := apikey.ValidateOrganizationID(o); err != nil {
			report(fmt.Sprintf("organizations[%d]", n), "%s", strings.TrimSpace(err.Error()))
		}
	}
	switch {
	case i.ScopesClaim == "" && i.RolesClaim == "":
		report("scopes_claim", "must be set, or roles_claim with roles: without either the tokens are good for nothing")
	case i.RolesClaim == "" && len(i.Roles) > 0:
		report("roles_claim", "must be set together with roles")
	case i.RolesClaim != "" && len(i.Roles) == 0:
		report("roles", "must be set together with roles_claim: it gives scopes to the values of that claim")
	}
	if len(i.Roles) > maxRoles {
		report("roles", "must be %d at most", maxRoles)
	}
	i.checkRoles(report, catalogue)
}

func (i *Issuer) checkRoles(report reporter, catalogue []string) {
	known := slices.Concat(catalogue, apikey.OperatorScopes(), []string{apikey.AllScopes, apikey.AllApplicationScopes, apikey.AllOperatorScopes})
	values := make([]string, 0, len(i.Roles))
	for value := range i.Roles {
		values = append(values, value)
	}
	slices.Sort(values)
	for _, value := range values {
		grant, field := i.Roles[value], "roles."+apikey.Excerpt(value)
		if problem := textProblem(value); problem != "" {
			report(field, "is of a value that %s", problem)
		}
		switch {
		case grant.Role != "" && !slices.Contains(operator.Roles(), grant.Role):
			report(field, "must be %s, or a list of scopes, not %q", roleNames(), apikey.Excerpt(string(grant.Role)))
		case grant.Role == "" && len(grant.Scopes) == 0:
			report(field, "must be %s, or a list of scopes", roleNames())
		}
		for _, scope := range grant.Scopes {
			if !slices.Contains(known, scope) {
				report(field, "must not name %q, which is no scope of this server", apikey.Excerpt(scope))
			}
		}
	}
}

func roleNames() string {
	var names []string
	for _, r := range operator.Roles() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// textProblem returns what is wrong with a text of the configuration, "" if nothing is.
func textProblem(text string) string {
	switch {
	case text == "" || len(text) > maxText:
		return fmt.Sprintf("must have 1 to %d characters", maxText)
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "must hold no control characters"
	}
	return ""
}

// checkURL reports why text is no issuer.
func checkURL(text string, plain bool) error {
	if text == "" {
		return errors.New("is required: the URL that the issuer's tokens have in the claim iss")
	}
	// | stands between an issuer and a subject in the id of an actor.
	if len(text) > maxIssuerLength || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '|' }) {
		return fmt.Errorf("must be a URL of up to %d visible ASCII characters without |", maxIssuerLength)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("must be a URL such as https://login.example.com, not %q", apikey.Excerpt(text))
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return errors.New("must be a URL without user, query and fragment")
	case u.Scheme == "https", u.Scheme == "http" && plain && onLoopback(u.Hostname()):
		return nil
	case u.Scheme == "http":
		return errors.New("must begin with https://; http is for issuers on this machine alone, in env development")
	}
	return fmt.Errorf("must begin with https://, unlike %q", apikey.Excerpt(text))
}

// onLoopback reports whether a host is this machine.
func onLoopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback()
	}
	return host == "localhost"
}
