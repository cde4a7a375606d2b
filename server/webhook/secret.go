package webhook

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

const (
	secretPrefix = "whsec_"
	secretBytes  = 32
	// The keys that Standard Webhooks allows.
	minSecretBytes = 24
	maxSecretBytes = 64
)

// Secret signs the deliveries of a webhook: whsec_ and the base64 of its key.
// It cannot print itself.
type Secret struct{ hidden }

// NewSecret makes a secret with 256 bits from random, which is crypto/rand's
// reader where it is nil.
func NewSecret(random io.Reader) (Secret, error) {
	if random == nil {
		random = rand.Reader
	}
	var key [secretBytes]byte
	if _, err := io.ReadFull(random, key[:]); err != nil {
		return Secret{}, fmt.Errorf("make a webhook secret: %w", err)
	}
	return newSecret(secretPrefix + base64.StdEncoding.EncodeToString(key[:])), nil
}

// ParseSecret returns the secret that text is. The error does not repeat text.
func ParseSecret(text string) (Secret, error) {
	if n := len(keyOf(text)); n < minSecretBytes || n > maxSecretBytes {
		return Secret{}, errors.New("a webhook secret is whsec_ and the base64 of 24 to 64 bytes")
	}
	return newSecret(text), nil
}

func newSecret(text string) Secret {
	return Secret{hidden{text: &text, mask: text[:10] + "..." + text[len(text)-5:]}}
}

// keyOf returns the key that a secret's text holds, or nil where it holds none.
func keyOf(text string) []byte {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	// The decoder skips line ends; a text with some is another text.
	if !ok || err != nil || strings.ContainsAny(encoded, "\r\n") {
		return nil
	}
	return key
}

// SigningSecret is a secret of a webhook and until when it signs. The zero time
// stands for the newest secret, which has no end.
type SigningSecret struct {
	Secret    Secret
	ExpiresAt time.Time
}

// maxSecrets bounds the signatures that one delivery carries.
const maxSecrets = 5

// HeaderValue is the value of a custom header, which may well be a credential.
// It cannot print itself.
type HeaderValue struct{ hidden }

// HeaderMask is what is shown of the value of a custom header.
const HeaderMask = "********"

// NewHeaderValue returns the value that text is.
func NewHeaderValue(text string) HeaderValue {
	return HeaderValue{hidden{text: &text, mask: HeaderMask}}
}

// hidden is a text that every way of formatting it shows as its mask. The text
// is behind a pointer: fmt calls no methods on unexported fields of others, and
// would print the text itself there.
type hidden struct {
	text *string
	mask string
}

var (
	_ slog.LogValuer = hidden{}
	_ fmt.Formatter  = hidden{}
)

// Reveal returns the whole text.
func (h hidden) Reveal() string {
	if h.text == nil {
		return ""
	}
	return *h.text
}

// Mask returns what may be shown.
func (h hidden) Mask() string { return h.mask }

// String returns the mask.
func (h hidden) String() string { return h.mask }

// Format writes the mask, whatever the verb.
func (h hidden) Format(s fmt.State, _ rune) { fmt.Fprint(s, h.mask) }

// LogValue returns the mask.
func (h hidden) LogValue() slog.Value { return slog.StringValue(h.mask) }

// MarshalText returns the mask, for JSON and all other encodings of text.
func (h hidden) MarshalText() ([]byte, error) { return []byte(h.mask), nil }
