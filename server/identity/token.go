package identity

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// MaxToken is how many bytes a token may have.
const MaxToken = 8 << 10

// The bounds of parts of a token.
const (
	maxKeyID         = 256
	maxSubject       = 255
	maxOrganizations = 100
)

// token is a token that was read and not yet believed.
type token struct {
	text   string
	header header
	claims claims
}

// header is what the header of a token says.
type header struct {
	algorithm, keyID, typ string
}

// refuse returns the error of a token that proves nothing. Why, is for the log.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w (%s)", apikey.ErrBadCredential(), fmt.Sprintf(format, args...))
}

// parse reads a token.
func parse(text string) (*token, error) {
	if len(text) > MaxToken {
		return nil, refuse("the token has %d bytes, more than %d", len(text), MaxToken)
	}
	if strings.ContainsFunc(text, notInToken) {
		return nil, refuse("the token holds characters that are not of base64url")
	}
	parts := strings.Split(text, ".")
	switch len(parts) {
	case 3:
	case 5:
		return nil, refuse("the token is encrypted: have the issuer sign it alone")
	default:
		return nil, refuse("the token has %d parts, not 3", len(parts))
	}
	members, err := object(parts[0])
	if err != nil {
		return nil, refuse("the header of the token %v", err)
	}
	t := &token{text: text}
	if t.header, err = headerOf(members); err != nil {
		return nil, err
	}
	if t.claims, err = object(parts[1]); err != nil {
		return nil, refuse("the claims of the token %v", err)
	}
	// The library takes a last character with bits that mean nothing.
	if _, err := base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil || parts[2] == "" {
		return nil, refuse("the token is not signed, or not in base64url")
	}
	return t, nil
}

// notInToken reports whether a character is none of base64url and no dot.
func notInToken(r rune) bool {
	letterOrDigit := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letterOrDigit && r != '-' && r != '_' && r != '.'
}

// object reads a part of a token: a JSON object in base64url, no name twice in it.
func object(part string) (claims, error) {
	text, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, fmt.Errorf("are not base64url")
	}
	var members claims
	if jsontext.Value(text).Kind() != '{' {
		return nil, fmt.Errorf("are no JSON object")
	}
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, fmt.Errorf("are no JSON object that has each name once")
	}
	return members, nil
}

// headerOf reads a header. What would have this server look for a key where the token
// says is refused, and so are extensions, since this server knows none.
func headerOf(members claims) (h header, err error) {
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "b64", "enc", "zip"} {
		if _, there := members[name]; there {
			return header{}, refuse("the header of the token has %s", name)
		}
	}
	for name, field := range map[string]*string{"alg": &h.algorithm, "kid": &h.keyID, "typ": &h.typ} {
		value, there := members[name]
		if !there {
			continue
		}
		if err := json.Unmarshal(value, field); err != nil {
			return header{}, refuse("the %s of the token is no text", name)
		}
	}
	if value, there := members["cty"]; there {
		return header{}, refuse("the token holds another: its cty is %s", apikey.Excerpt(string(value)))
	}
	if len(h.keyID) > maxKeyID {
		return header{}, refuse("the key id of the token has %d bytes, more than %d", len(h.keyID), maxKeyID)
	}
	return h, nil
}

// checkHeader reports why an issuer's token cannot have this header.
func (i *Issuer) checkHeader(h header) error {
	if !slices.Contains(i.Algorithms, h.algorithm) {
		return refuse("the token is signed with %q, which is none of %s", apikey.Excerpt(h.algorithm), strings.Join(i.Algorithms, ", "))
	}
	typ := h.typ
	if typ == "" {
		typ = "JWT"
	}
	if !slices.ContainsFunc(i.Types, func(t string) bool { return strings.EqualFold(mediaType(t), mediaType(typ)) }) {
		return refuse("the type of the token is %q, which is none of %s", apikey.Excerpt(typ), strings.Join(i.Types, ", "))
	}
	return nil
}

// mediaType returns a type without the application/ that may stand in front of it.
func mediaType(typ string) string {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		return typ[len(prefix):]
	}
	return typ
}

// checkClaims reports why an issuer's token with these claims proves nothing at now. It
// returns the subject and the expiry.
func (i *Issuer) checkClaims(c claims, now time.Time) (subject string, until time.Time, err error) {
	if err := i.checkAudience(c); err != nil {
		return "", time.Time{}, err
	}
	if err := checkUse(c); err != nil {
		return "", time.Time{}, err
	}
	if subject, err = c.text("sub"); err != nil {
		return "", time.Time{}, refuse("%v", err)
	}
	if len(subject) > maxSubject || subject != strings.TrimSpace(subject) || strings.ContainsFunc(subject, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", time.Time{}, refuse("the claim sub must be 1 to %d printable ASCII characters", maxSubject)
	}
	until, there, err := c.time("exp")
	switch {
	case err != nil:
		return "", time.Time{}, refuse("%v", err)
	case !there:
		return "", time.Time{}, refuse("the claim exp is missing")
	case !now.Before(until):
		return "", time.Time{}, refuse("the token expired at %s", until.UTC().Format(time.RFC3339))
	}
	for _, name := range []string{"nbf", "iat"} {
		from, there, err := c.time(name)
		if err != nil {
			return "", time.Time{}, refuse("%v", err)
		}
		if there && from.After(now.Add(i.ClockSkew)) {
			return "", time.Time{}, refuse("the token is good from %s on, by its %s; clocks may differ by %s", from.UTC().Format(time.RFC3339), name, i.ClockSkew)
		}
	}
	return subject, until, nil
}

func (i *Issuer) checkAudience(c claims) error {
	audience, err := c.texts("aud")
	if err != nil {
		return refuse("%v", err)
	}
	for _, a := range audience {
		if slices.Contains(i.Audience, a) {
			return nil
		}
	}
	if len(audience) == 0 {
		return refuse("the claim aud is missing")
	}
	return refuse("the audience of the token is %q, which is not this server", apikey.Excerpt(audience[0]))
}

// checkUse refuses tokens that are no access tokens and cannot be told by their type:
// those that tell a client who has logged in, and those that get other tokens.
func checkUse(c claims) error {
	use, _ := c.text("typ")
	for _, name := range []string{"nonce", "at_hash", "c_hash", "s_hash", "events"} {
		// Versions of Keycloak have the nonce in access tokens, which say what they are.
		if _, there := c[name]; there && !(name == "nonce" && use == "Bearer") {
			return refuse("the token is an ID token or a logout token, by its claim %s; send the access token", name)
		}
	}
	for name, others := range map[string][]string{"typ": {"ID", "Refresh", "Offline", "Logout"}, "token_use": {"id"}} {
		if use, err := c.text(name); err == nil && slices.ContainsFunc(others, func(o string) bool { return strings.EqualFold(o, use) }) {
			return refuse("the token is no access token, by its claim %s; send the access token", name)
		}
	}
	return nil
}

// claims are the members of a JSON object.
type claims map[string]jsontext.Value

// find returns the claim at a path: one of that name, or one within others, with a dot
// between the names.
func (c claims) find(path string) (value jsontext.Value, there bool) {
	if value, there = c[path]; there {
		return value, true
	}
	first, rest, nested := strings.Cut(path, ".")
	if !nested || c[first].Kind() != '{' {
		return nil, false
	}
	var inner claims
	if json.Unmarshal(c[first], &inner) != nil {
		return nil, false
	}
	return inner.find(rest)
}

// text returns the text of the claim at a path. One that is missing, or no text, or the
// empty one, is an error.
func (c claims) text(path string) (text string, err error) {
	value, there := c.find(path)
	switch {
	case !there:
		return "", fmt.Errorf("the claim %s is missing", path)
	case json.Unmarshal(value, &text) != nil || value.Kind() != '"':
		return "", fmt.Errorf("the claim %s is no text", path)
	case text == "":
		return "", fmt.Errorf("the claim %s is empty", path)
	}
	return text, nil
}

// texts returns the texts of the claim at a path, which is a text or a list of texts;
// none of one that is missing.
func (c claims) texts(path string) (texts []string, err error) {
	value, there := c.find(path)
	if !there {
		return nil, nil
	}
	switch value.Kind() {
	case '"':
		texts = make([]string, 1)
		err = json.Unmarshal(value, &texts[0])
	case '[':
		var all []jsontext.Value
		err = json.Unmarshal(value, &all)
		texts = make([]string, len(all))
		for n := range all {
			if all[n].Kind() != '"' {
				return nil, fmt.Errorf("the claim %s holds what is no text", path)
			}
			err = json.Unmarshal(all[n], &texts[n])
		}
	default:
		return nil, fmt.Errorf("the claim %s is neither a text nor a list of texts", path)
	}
	if err != nil {
		return nil, fmt.Errorf("the claim %s cannot be read", path)
	}
	return texts, nil
}

// latest is the last time that a claim can say: the end of the year 9999.
const latest = 253402300799

// time returns the time of a claim, cut to whole seconds.
func (c claims) time(name string) (at time.Time, there bool, err error) {
	value, there := c[name]
	if !there {
		return time.Time{}, false, nil
	}
	if value.Kind() != '0' {
		return time.Time{}, true, fmt.Errorf("the claim %s is no number", name)
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	if err != nil || !(seconds >= 0 && seconds <= latest) {
		return time.Time{}, true, fmt.Errorf("the claim %s is no time", name)
	}
	return time.Unix(int64(math.Floor(seconds)), 0).UTC(), true, nil
}
