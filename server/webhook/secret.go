package webhook

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
)

// SigningSecret is a secret of a webhook and until when it signs. The zero time
// stands for the newest secret, which has no end.
type SigningSecret struct {
	Secret    hooks.Secret
	ExpiresAt time.Time
}

// maxSecrets bounds the signatures that one delivery carries.
const maxSecrets = 5

// HeaderValue is the value of a custom header, which may well be a credential.
// Every way of formatting it shows [HeaderMask]. The text is behind a pointer: fmt
// calls no methods on unexported fields of other packages, and would print the
// text itself there.
type HeaderValue struct{ text *string }

// HeaderMask is what is shown of the value of a custom header.
const HeaderMask = "********"

var (
	_ slog.LogValuer = HeaderValue{}
	_ fmt.Formatter  = HeaderValue{}
)

// NewHeaderValue returns the value that text is.
func NewHeaderValue(text string) HeaderValue { return HeaderValue{&text} }

// Reveal returns the whole text.
func (v HeaderValue) Reveal() string {
	if v.text == nil {
		return ""
	}
	return *v.text
}

// String returns the mask.
func (v HeaderValue) String() string { return HeaderMask }

// Format writes the mask, whatever the verb.
func (v HeaderValue) Format(s fmt.State, _ rune) { fmt.Fprint(s, HeaderMask) }

// LogValue returns the mask.
func (v HeaderValue) LogValue() slog.Value { return slog.StringValue(HeaderMask) }

// MarshalText returns the mask, for JSON and all other encodings of text.
func (v HeaderValue) MarshalText() ([]byte, error) { return []byte(HeaderMask), nil }
