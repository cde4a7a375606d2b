package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
)

// oidcSetting is the setting that is a list of issuers, which have fields of their own.
const oidcSetting = "oidc"

// issuers returns the issuers that the environment sets or, where it does not, the file.
func (s *sources) issuers() ([]identity.Issuer, error) {
	if text := s.env[envName(oidcSetting)]; text != "" {
		var doc yaml.Node
		if err := yaml.NewDecoder(bytes.NewReader([]byte(text))).Decode(&doc); err != nil {
			return nil, usageError{fmt.Errorf("%s is %w", envName(oidcSetting), notYAML(err))}
		}
		all, err := readIssuers(doc.Content[0])
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", envName(oidcSetting), err)}
		}
		return all, nil
	}
	value, set := s.file[oidcSetting]
	if !set {
		return nil, nil
	}
	all, err := readIssuers(value.node)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", s.path, err)}
	}
	return all, nil
}

// A field is one of an issuer: how its value is read.
type field struct {
	name string
	read func(i *identity.Issuer, n *yaml.Node) error
}

// issuerFields are the fields of an issuer.
var issuerFields = []field{
	{"issuer", text(func(i *identity.Issuer) *string { return &i.URL })},
	{"audience", func(i *identity.Issuer, n *yaml.Node) error {
		if n.Kind == yaml.ScalarNode {
			i.Audience = make([]string, 1)
			return readText(n, &i.Audience[0])
		}
		return readTexts(n, &i.Audience)
	}},
	{"algorithms", texts(func(i *identity.Issuer) *[]string { return &i.Algorithms })},
	{"typ", texts(func(i *identity.Issuer) *[]string { return &i.Types })},
	{"organization_claim", text(func(i *identity.Issuer) *string { return &i.OrganizationClaim })},
	{"organizations", texts(func(i *identity.Issuer) *[]string { return &i.Organizations })},
	{"scopes_claim", text(func(i *identity.Issuer) *string { return &i.ScopesClaim })},
	{"roles_claim", text(func(i *identity.Issuer) *string { return &i.RolesClaim })},
	{"roles", readRoles},
	{"name_claim", text(func(i *identity.Issuer) *string { return &i.NameClaim })},
	{"clock_skew", readSkew},
	{"jwks_file", text(func(i *identity.Issuer) *string { return &i.JWKSFile })},
}

// readIssuers reads the list of issuers. It takes nothing that it does not know.
func readIssuers(list *yaml.Node) (all []identity.Issuer, err error) {
	if list = resolved(list); list.Kind != yaml.SequenceNode {
		return nil, errors.New("oidc must be a list of issuers, such as [{issuer: https://login.example.com, audience: apikeys, ...}]")
	}
	for n, item := range list.Content {
		var i identity.Issuer
		place := fmt.Sprintf("oidc[%d]", n)
		if item = resolved(item); item.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("%s must be an issuer with its fields, such as {issuer: https://login.example.com, audience: apikeys, ...}", place)
		}
		if err := readIssuer(&i, item, place); err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

func readIssuer(i *identity.Issuer, item *yaml.Node, place string) error {
	var names, seen []string
	for _, f := range issuerFields {
		names = append(names, f.name)
	}
	for at := 0; at < len(item.Content); at += 2 {
		name, value := item.Content[at].Value, resolved(item.Content[at+1])
		f := slices.IndexFunc(issuerFields, func(f field) bool { return f.name == name })
		switch {
		case f < 0:
			hint := "; the fields are " + strings.Join(names, ", ")
			if meant, ok := nearest(name, names); ok {
				hint = fmt.Sprintf("; did you mean %q?", meant)
			}
			return fmt.Errorf("%s: unknown field %q on line %d%s", place, apikey.Excerpt(name), item.Content[at].Line, hint)
		case slices.Contains(seen, name):
			return fmt.Errorf("%s.%s stands on line %d a second time", place, name, item.Content[at].Line)
		}
		seen = append(seen, name)
		if isNull(value) {
			continue
		}
		if err := issuerFields[f].read(i, value); err != nil {
			return fmt.Errorf("%s.%s%w", place, name, err)
		}
	}
	return nil
}

func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func text(of func(*identity.Issuer) *string) func(*identity.Issuer, *yaml.Node) error {
	return func(i *identity.Issuer, n *yaml.Node) error { return readText(n, of(i)) }
}

func texts(of func(*identity.Issuer) *[]string) func(*identity.Issuer, *yaml.Node) error {
	return func(i *identity.Issuer, n *yaml.Node) error { return readTexts(n, of(i)) }
}

// The errors that follow begin behind the name of the field.

func readText(n *yaml.Node, text *string) error {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		return errors.New(" must be one text")
	}
	*text = n.Value
	return nil
}

func readTexts(n *yaml.Node, texts *[]string) error {
	if n.Kind != yaml.SequenceNode {
		return errors.New(" must be a list of texts")
	}
	for at, item := range n.Content {
		var text string
		if err := readText(resolved(item), &text); err != nil {
			return fmt.Errorf("[%d]%w", at, err)
		}
		*texts = append(*texts, text)
	}
	return nil
}

// readRoles reads what the values of a claim are good for: the name of a role, or a list
// of scopes.
func readRoles(i *identity.Issuer, n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return errors.New(" must map values of the claim to roles, such as {admins: admin}")
	}
	i.Roles = make(map[string]identity.Grant)
	for at := 0; at < len(n.Content); at += 2 {
		name, value := n.Content[at].Value, resolved(n.Content[at+1])
		if _, twice := i.Roles[name]; twice {
			return fmt.Errorf(".%s stands on line %d a second time", apikey.Excerpt(name), n.Content[at].Line)
		}
		var grant identity.Grant
		var err error
		if value.Kind == yaml.ScalarNode {
			err = readText(value, (*string)(&grant.Role))
		} else {
			err = readTexts(value, &grant.Scopes)
		}
		if err != nil {
			return fmt.Errorf(".%s must be the name of a role or a list of scopes", apikey.Excerpt(name))
		}
		i.Roles[name] = grant
	}
	return nil
}

func readSkew(i *identity.Issuer, n *yaml.Node) error {
	var p period
	if n.Kind != yaml.ScalarNode {
		return errors.New(" must be a time span such as 30s")
	}
	if err := p.UnmarshalText([]byte(n.Value)); err != nil {
		return fmt.Errorf(" %w", err)
	}
	if i.ClockSkew = time.Duration(p); p == 0 {
		i.ClockSkew = -1 // The Issuer's zero is its default.
	}
	return nil
}
