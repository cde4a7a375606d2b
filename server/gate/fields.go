package gate

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// The headers that every answer has, in the order of fieldNames. Those of the key are
// for the request that is passed on, and the rest for the client too.
const (
	fieldKeyID = iota
	fieldOrganization
	fieldScopes
	fieldOwner
	fieldLabel
	identityFields // how many tell of the key
)

const (
	fieldError = iota + identityFields
	fieldLimit
	fieldLimitPolicy
	fieldOldLimit
	fieldOldRemaining
	fieldOldReset
	answerFields // how many there are
)

var fieldNames = [answerFields]field{
	fieldKeyID:        newField("X-Api-Key-Id"),
	fieldOrganization: newField("X-Organization-Id"),
	fieldScopes:       newField("X-Api-Key-Scopes"),
	fieldOwner:        newField("X-Api-Key-Owner"),
	fieldLabel:        newField("X-Api-Key-Label"),
	fieldError:        newField("X-Api-Key-Error"),
	fieldLimit:        newField("RateLimit"),
	fieldLimitPolicy:  newField("RateLimit-Policy"),
	fieldOldLimit:     newField("X-RateLimit-Limit"),
	fieldOldRemaining: newField("X-RateLimit-Remaining"),
	fieldOldReset:     newField("X-RateLimit-Reset"),
}

// fields returns the values of the headers that every answer has. One that is not known
// is empty.
func (a *answer) fields() (values [answerFields]string) {
	if a.refusal == nil {
		values[fieldKeyID] = a.Key.ID
		values[fieldOrganization] = a.Key.OrganizationID
		values[fieldScopes] = headerText(strings.Join(a.Key.Scopes, " "))
		values[fieldOwner] = headerText(a.Key.OwnerID)
		values[fieldLabel] = headerText(a.Key.Label)
	} else {
		values[fieldError] = a.code
	}
	limits := a.LimitFields()
	values[fieldLimit], values[fieldLimitPolicy] = limits.RateLimit, limits.Policy
	values[fieldOldLimit], values[fieldOldRemaining], values[fieldOldReset] = limits.Limit, limits.Remaining, limits.Reset
	return values
}

// retryAfter returns after how many seconds the request can be sent again; zero for no
// time.
func (a *answer) retryAfter() int64 {
	wait := a.refusal.RetryAfter
	if a.refusal.Kind == apikey.KindUnavailable {
		wait = max(wait, time.Second) // time is all that helps
	}
	return apikey.WholeSeconds(wait)
}

// headerText returns text as a header can hold it: what is no visible ASCII character is
// percent-encoded, and so are a percent sign and spaces at the ends.
func headerText(text string) string {
	plain := true
	for i := range len(text) {
		c := text[i]
		if c < ' ' || c > '~' || c == '%' || c == ' ' && (i == 0 || i == len(text)-1) {
			plain = false
			break
		}
	}
	if plain {
		return text
	}
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ' || c > '~' || c == '%' || c == ' ' && (i == 0 || i == len(text)-1):
			out.WriteByte('%')
			out.WriteByte(digits[c>>4])
			out.WriteByte(digits[c&15])
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

func envelopeEnd(env string) []byte { return wirejson.AppendEnvelopeEnd(nil, env) }

// envelope returns the body of a refusal.
func (g *Gate) envelope(a *answer) []byte {
	f := wirejson.Failure{
		Status: a.status(), Reason: string(a.refusal.Reason), Text: g.Secrets.Redact(a.refusal.Message),
		Fields: a.refusal.Fields, RequestID: "request_" + a.id, SupportID: a.supportID(),
	}
	return append(f.AppendEnvelope(make([]byte, 0, 512)), g.end...)
}

// refusalFields are the headers that a refusal has besides.
func (a *answer) refusalFields(set func(name, value string)) {
	set("Content-Type", "application/json")
	if challenge := a.refusal.Challenge("apikeys", a.need.scopes); challenge != "" {
		set("WWW-Authenticate", challenge)
	}
	if wait := a.retryAfter(); wait > 0 {
		set("Retry-After", strconv.FormatInt(wait, 10))
	}
}

// setFields puts the headers that every answer has into header.
func (a *answer) setFields(header http.Header) {
	values := a.fields()
	all := make([]string, answerFields)
	copy(all, values[:])
	for i := range all {
		header[fieldNames[i].canonical] = all[i : i+1 : i+1]
	}
}
