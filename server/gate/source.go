package gate

import (
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// field is the name of a header as each protocol spells it.
type field struct{ canonical, lower string }

func newField(name string) field {
	return field{textproto.CanonicalMIMEHeaderKey(name), strings.ToLower(name)}
}

// headers are those of the original request.
type headers interface {
	// values returns the lines of a header in their order.
	values(field) []string
}

type httpHeaders http.Header

func (h httpHeaders) values(f field) []string { return h[f.canonical] }

// source is one place where a request may carry its key.
type source struct {
	field field
	kind  sourceKind
}

type sourceKind int8

const (
	bareSource sourceKind = iota
	authorizationSource
	userSource
	passwordSource
)

// Sources are where requests carry their keys: headers, and a parameter of the query.
type Sources struct {
	all []source
	// basic says that the scheme Basic is one of the sources, so that a header
	// Authorization of it is no key.
	basic bool
	query string
}

// maxSources bounds the setting.
const maxSources = 16

var authorization = newField("Authorization")

// ParseSources returns the sources that the names of headers are, and query, the name of
// a parameter, or "" for none. Besides names of headers there are basic:user and
// basic:password, the parts of the scheme Basic.
func ParseSources(names []string, query string) (Sources, error) {
	s := Sources{query: query}
	if len(names) > maxSources {
		return s, fmt.Errorf("must be %d names at most", maxSources)
	}
	seen := make(map[string]bool)
	for i, name := range names {
		if seen[strings.ToLower(name)] {
			return s, fmt.Errorf("names number %d a second time", i+1)
		}
		seen[strings.ToLower(name)] = true
		switch {
		case strings.EqualFold(name, "basic:user"):
			s.all, s.basic = append(s.all, source{authorization, userSource}), true
		case strings.EqualFold(name, "basic:password"):
			s.all, s.basic = append(s.all, source{authorization, passwordSource}), true
		case strings.EqualFold(name, authorization.lower):
			s.all = append(s.all, source{authorization, authorizationSource})
		case !httpguts.ValidHeaderFieldName(name) || len(name) > 64:
			return s, fmt.Errorf("number %d must be the name of a header, basic:user or basic:password", i+1)
		case isReservedField(name):
			return s, fmt.Errorf("number %d is a header that gateways set", i+1)
		default:
			s.all = append(s.all, source{newField(name), bareSource})
		}
	}
	return s, nil
}

// isReservedField reports whether a header says something else than what the client's
// key is.
func isReservedField(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "x-forwarded-") || strings.HasPrefix(lower, "x-original-") ||
		lower == "host" || lower == "connection" || lower == "cookie" || lower == "content-length"
}

// find returns the one credential of a request.
func (s *Sources) find(h headers, uri func() string) (string, error) {
	var shown apikey.Credential
	for i := range s.all {
		switch from := &s.all[i]; from.kind {
		case userSource:
			shown.AddBasic(h.values(from.field), apikey.BasicUser)
		case passwordSource:
			shown.AddBasic(h.values(from.field), apikey.BasicPassword)
		case authorizationSource:
			values := h.values(from.field)
			if s.basic {
				values = withoutBasic(values)
			}
			shown.AddAuthorization(values)
		default:
			shown.Add(h.values(from.field))
		}
	}
	if s.query != "" {
		shown.Add(parameters(uri(), s.query))
	}
	return shown.Text()
}

// withoutBasic returns values without those of the scheme Basic.
func withoutBasic(values []string) (others []string) {
	for _, value := range values {
		if !apikey.HasScheme(value, "Basic") {
			others = append(others, value)
		}
	}
	return others
}

// parameters returns the values of a parameter of the query of an original URI. A query
// that cannot be read has one value, which is no key.
func parameters(uri, name string) []string {
	if len(uri) > maxURI {
		return []string{"?"}
	}
	_, query := splitURI(uri)
	query, _, _ = strings.Cut(query, "#")
	values, err := url.ParseQuery(query)
	if err != nil {
		return []string{"?"}
	}
	return values[name]
}
