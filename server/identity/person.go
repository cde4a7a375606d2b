package identity

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/operator"
)

// Person is whoever a token was given to: a person, or a workload.
type Person struct {
	// Actor is the person in the record: its id is the issuer, | and the subject.
	Actor apikey.Actor
	// Token is what the person's token is good for, as if it were an operator's: it is
	// admitted by the same rules. It has no secret, and is stored nowhere.
	Token operator.Token
}

// errNothing begins the error of a token that is genuine and good for nothing here.
func errNothing(format string, args ...any) error {
	return fmt.Errorf("%w (%s)", apikey.Errorf(apikey.KindPermissionDenied, apikey.ReasonPermissionDenied,
		"The access token gives no rights here."), fmt.Sprintf(format, args...))
}

// mapping is what the claims of an issuer's tokens mean on a server.
type mapping struct {
	issuer *Issuer
	// catalogue are the scopes that keys can have.
	catalogue []string
	secrets   *apikey.SecretFinder
}

// person returns whoever has a token with these claims.
func (m mapping) person(c claims, subject string, until time.Time) (*Person, error) {
	if m.secrets.In(subject) {
		return nil, errNothing("the claim sub holds a secret")
	}
	organizations, err := m.organizations(c)
	if err != nil {
		return nil, errNothing("%v", err)
	}
	scopes, err := m.scopes(c)
	if err != nil {
		return nil, errNothing("%v", err)
	}
	actor := apikey.Actor{Kind: apikey.ActorPerson, ID: m.issuer.URL + "|" + subject, Name: m.name(c)}
	return &Person{
		Actor: actor,
		Token: operator.Token{ID: actor.ID, Name: actor.Name, Scopes: scopes, Organizations: organizations, ExpiresAt: until},
	}, nil
}

// organizations returns those that a token is for: one at least, or
// [apikey.AllOrganizations] alone.
func (m mapping) organizations(c claims) ([]string, error) {
	path := m.issuer.OrganizationClaim
	if path == "" {
		return m.issuer.Organizations, nil
	}
	named, err := c.texts(path)
	switch {
	case err != nil:
		return nil, err
	case len(named) == 0:
		return nil, fmt.Errorf("the claim %s names no organization", path)
	}
	allowed := m.issuer.Organizations
	all := slices.Contains(allowed, apikey.AllOrganizations)
	var held []string
	for _, o := range apikey.Unique(named) {
		switch {
		case len(allowed) > 0 && !all && !slices.Contains(allowed, o):
			// One of another server, or of none.
		case o == apikey.AllOrganizations:
			if !all {
				return nil, fmt.Errorf("the claim %s says *, which it may where the setting organizations has * alone", path)
			}
			return []string{o}, nil
		case apikey.ValidateOrganizationID(o) != nil || m.secrets.In(o):
			return nil, fmt.Errorf("the claim %s names %q, which cannot be an organization", path, m.secrets.Excerpt(o))
		default:
			held = append(held, o)
		}
	}
	switch {
	case len(held) == 0:
		return nil, fmt.Errorf("the claim %s names no organization of the setting organizations", path)
	case len(held) > maxOrganizations:
		return nil, fmt.Errorf("the claim %s names %d organizations, more than %d", path, len(held), maxOrganizations)
	}
	return held, nil
}

// scopes returns the scopes that a token gives: one at least.
func (m mapping) scopes(c claims) (held apikey.Scopes, err error) {
	if path := m.issuer.ScopesClaim; path != "" {
		named, err := c.texts(path)
		if err != nil {
			return nil, err
		}
		if len(named) == 1 {
			named = strings.Fields(named[0])
		}
		for _, scope := range named {
			// What stands for several scopes is for the configuration to give.
			if slices.Contains(m.catalogue, scope) || slices.Contains(apikey.OperatorScopes(), scope) {
				held = append(held, scope)
			}
		}
	}
	if path := m.issuer.RolesClaim; path != "" {
		values, err := c.texts(path)
		if err != nil {
			return nil, err
		}
		for _, value := range values {
			held = append(held, m.issuer.Roles[value].scopes(m.catalogue)...)
		}
	}
	if len(held) == 0 {
		return nil, fmt.Errorf("the claims %s give no scope", strings.TrimSpace(m.issuer.ScopesClaim+" "+m.issuer.RolesClaim))
	}
	return apikey.Unique(held), nil
}

// maxName is how many characters of a name are kept.
const maxName = 255

// name returns what people call whoever has the token; "" where the token does not say.
func (m mapping) name(c claims) string {
	paths := []string{"name", "preferred_username", "email", "client_id"}
	if m.issuer.NameClaim != "" {
		paths = []string{m.issuer.NameClaim}
	}
	for _, path := range paths {
		text, err := c.text(path)
		if err != nil || m.secrets.In(text) {
			continue
		}
		// Whatever could be read otherwise than it stands there is left out.
		text = strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.Is(unicode.C, r) || r == utf8.RuneError || r == '\u2028' || r == '\u2029' {
				return -1
			}
			return r
		}, text))
		if runes := []rune(text); len(runes) > maxName {
			text = string(runes[:maxName])
		}
		if apikey.LabelProblem(text) == "" {
			return text
		}
	}
	return ""
}
