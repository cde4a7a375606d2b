package webhook

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The bounds of custom headers.
const (
	maxHeaders     = 20
	maxHeaderBytes = 4 << 10 // of a name and its value
)

// Header is a header that the owner of a webhook adds to its deliveries.
type Header struct {
	// Name is in its canonical form: X-Tenant.
	Name  string
	Value HeaderValue
}

// NewHeaders returns the headers that values names, in canonical form and
// ascending by name.
func NewHeaders(values map[string]string) []Header {
	list := make([]Header, 0, len(values))
	for name, value := range values {
		list = append(list, Header{textproto.CanonicalMIMEHeaderKey(name), NewHeaderValue(value)})
	}
	sortHeaders(list)
	return list
}

// sortHeaders puts headers in the order in which they are stored and compared.
// Two of one name, which are refused afterwards, have one order as well.
func sortHeaders(list []Header) {
	slices.SortFunc(list, func(a, b Header) int {
		if n := strings.Compare(a.Name, b.Name); n != 0 {
			return n
		}
		return strings.Compare(a.Value.Reveal(), b.Value.Reveal())
	})
}

// equalHeaders reports whether both lists say the same.
func equalHeaders(a, b []Header) bool {
	return slices.EqualFunc(a, b, func(x, y Header) bool {
		return x.Name == y.Name && x.Value.Reveal() == y.Value.Reveal()
	})
}

// reservedNames are the headers that are not the owner's to set: HTTP's own,
// between here and the next hop, and those whose meaning the client relies on.
var reservedNames = map[string]bool{
	"host": true, "connection": true, "keep-alive": true, "te": true, "trailer": true,
	"transfer-encoding": true, "upgrade": true, "expect": true, "http2-settings": true,
	"accept-encoding": true,
}

// reservedPrefixes begin the names that deliveries carry themselves.
var reservedPrefixes = []string{"webhook-", "x-webhook-", "content-", "proxy-"}

// headerProblems checks the headers of a webhook when they are set, so that
// nothing is left to fail when they are sent.
func headerProblems(list []Header) []apikey.FieldProblem {
	var found []apikey.FieldProblem
	if len(list) > maxHeaders {
		found = append(found, apikey.FieldProblem{Field: "headers", Problem: fmt.Sprintf("must have at most %d entries", maxHeaders)})
	}
	for i, h := range list {
		problem := nameProblem(h.Name)
		if i > 0 && list[i-1].Name == h.Name {
			problem = "is there twice: upper and lower case are alike"
		}
		if problem == "" {
			problem = valueProblem(h.Name, h.Value)
		}
		if problem != "" {
			field := strings.TrimSuffix("headers."+apikey.Excerpt(h.Name), ".")
			found = append(found, apikey.FieldProblem{Field: field, Problem: problem})
		}
	}
	return found
}

func nameProblem(name string) string {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !isToken(c) }) {
		return "must have a name of letters, digits and !#$%&'*+-.^_`|~"
	}
	// Many receivers take an underscore for a hyphen, and would see ours twice.
	plain := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	if reservedNames[plain] {
		return "must not be set: it is HTTP's own"
	}
	for _, prefix := range reservedPrefixes {
		if strings.HasPrefix(plain, prefix) {
			return "must not be set: names that begin with " + prefix + " are reserved"
		}
	}
	return ""
}

func isToken(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c < 0x80 && strings.ContainsRune("!#$%&'*+-.^_`|~", c)
}

func valueProblem(name string, value HeaderValue) string {
	text := value.Reveal()
	switch {
	case len(name)+len(text) > maxHeaderBytes:
		return fmt.Sprintf("must have at most %d bytes with its name", maxHeaderBytes)
	case strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return "must not hold control characters"
	case strings.Trim(text, " ") != text:
		return "must not begin or end with a space"
	case text == HeaderMask:
		return "must be a value; " + HeaderMask + " is what is shown in place of one"
	}
	return ""
}

// ClassicTime is the form of X-Webhook-Timestamp, and of the timestamp of a
// classic body.
const ClassicTime = "2006-01-02 15:04:05.000"

// Header returns the headers of an attempt that sends body for d at a time. The
// webhook's own headers come first: nothing that they could say replaces ours.
func (w *Webhook) Header(d *Delivery, body []byte, at time.Time) http.Header {
	at = at.UTC()
	h := make(http.Header, len(w.Headers)+9)
	h["User-Agent"] = []string{"apikeys-webhooks/1"}
	h["Accept"] = []string{"*/*"}
	for _, own := range w.Headers {
		h[own.Name] = []string{own.Value.Reveal()}
	}
	h["Content-Type"] = []string{contentTypes[d.Format]}
	secrets := w.signing(at)
	if len(secrets) > 0 {
		h[hooks.HeaderClassicSignature] = []string{hooks.SignClassic(secrets[0], body)}
		h[hooks.HeaderSignature] = []string{hooks.Sign(secrets, d.ID, at, body)}
	}
	h[hooks.HeaderClassicTimestamp] = []string{at.Format(ClassicTime)}
	h[hooks.HeaderEvent] = []string{string(d.Event)}
	h[hooks.HeaderDelivery] = []string{d.ID}
	h[hooks.HeaderID] = []string{d.ID}
	h[hooks.HeaderTimestamp] = []string{strconv.FormatInt(at.Unix(), 10)}
	return h
}

// signing returns the secrets that sign at a time, newest first.
func (w *Webhook) signing(at time.Time) []hooks.Secret {
	var list []hooks.Secret
	for _, s := range w.Secrets {
		if s.ExpiresAt.IsZero() || at.Before(s.ExpiresAt) {
			list = append(list, s.Secret)
		}
	}
	return list
}
