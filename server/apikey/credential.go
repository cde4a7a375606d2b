package apikey

import (
	"encoding/base64"
	"strings"
)

// The ways in which a request has no credential that could be good.
var (
	ErrNoCredential = Errorf(KindUnauthenticated, ReasonUnauthenticated,
		"The request carries no credential; send an access token or an API key as Authorization: Bearer.")
	// ErrNoKey is ErrNoCredential where only a key would be good.
	ErrNoKey = Errorf(KindUnauthenticated, ReasonUnauthenticated,
		"The request carries no API key; send one as Authorization: Bearer.")
	ErrTwoCredentials = Errorf(KindUnauthenticated, ReasonUnauthenticated,
		"The request carries two different credentials; send one.")
)

// Credential collects what a request shows as its credential, from all places where it
// may stand. Two that differ are an error, whichever is good. The zero Credential is
// empty and ready.
type Credential struct {
	text   string
	differ bool
}

// add adds one value. An empty one is none.
func (c *Credential) add(value string) {
	value = BareSecret(strings.TrimSpace(value))
	switch {
	case value == "" || value == c.text:
	case c.text == "":
		c.text = value
	default:
		c.differ = true
	}
}

// Add adds the values of a header, or of a parameter, that holds a credential bare.
func (c *Credential) Add(values []string) {
	for _, value := range values {
		c.add(value)
	}
}

// AddAuthorization adds the values of a header Authorization: of the scheme Bearer, or
// bare. A value of another scheme is a credential too, which is not good.
func (c *Credential) AddAuthorization(values []string) {
	for _, value := range values {
		value = strings.TrimSpace(value)
		if rest, ok := ofScheme(value, "Bearer"); ok {
			value = rest
		}
		c.add(value)
	}
}

// Basic is the part of the scheme Basic that holds a credential.
type Basic int8

// The parts.
const (
	BasicUser Basic = iota
	BasicPassword
)

// maxBasic bounds what is decoded. The largest credential fits, which is a token of an
// issuer.
const maxBasic = 16 << 10

// AddBasic adds a part of the values of a header Authorization that have the scheme
// Basic; others are passed over. What cannot be decoded is a credential that is not good.
func (c *Credential) AddBasic(values []string, part Basic) {
	for _, value := range values {
		encoded, ok := ofScheme(strings.TrimSpace(value), "Basic")
		if !ok {
			continue
		}
		user, password, ok := parseBasic(encoded)
		switch {
		case !ok:
			c.add(encoded)
		case part == BasicUser:
			c.add(user)
		default:
			c.add(password)
		}
	}
}

// BearersOf returns the values of a header Authorization with the scheme Bearer in the
// place of Basic, whose password is the credential then.
func BearersOf(values []string) []string {
	bearers := make([]string, len(values))
	for i, value := range values {
		bearers[i] = value
		if encoded, ok := ofScheme(strings.TrimSpace(value), "Basic"); ok {
			if _, password, ok := parseBasic(encoded); ok {
				bearers[i] = "Bearer " + password
			}
		}
	}
	return bearers
}

// HasScheme reports whether a value of a header Authorization has a scheme.
func HasScheme(value, scheme string) bool {
	_, ok := ofScheme(strings.TrimSpace(value), scheme)
	return ok
}

// ofScheme returns what follows a scheme, and whether the value has that scheme.
func ofScheme(value, scheme string) (rest string, ok bool) {
	n := len(scheme)
	if len(value) > n && value[n] == ' ' && strings.EqualFold(value[:n], scheme) {
		return strings.TrimSpace(value[n:]), true
	}
	return "", false
}

// parseBasic returns the two parts of an encoded user-pass (RFC 7617).
func parseBasic(encoded string) (user, password string, ok bool) {
	if len(encoded) > maxBasic {
		return "", "", false
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(decoded), ":")
}

// Text returns the credential. Its errors are [ErrNoCredential], [ErrTwoCredentials] and,
// for one that is too long to be any, that of a bad one.
func (c *Credential) Text() (string, error) {
	switch {
	case c.differ:
		return "", ErrTwoCredentials
	case c.text == "":
		return "", ErrNoCredential
	case len(c.text) > MaxSecretLength && !HasIdentityTokenForm(c.text): // These have a bound of their own.
		return "", ErrBadCredential()
	}
	return c.text, nil
}
