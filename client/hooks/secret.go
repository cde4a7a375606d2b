package hooks

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	secretPrefix = "whsec_"
	secretBytes  = 32
	// The keys that Standard Webhooks allows.
	minSecretBytes = 24
	maxSecretBytes = 64
)

// Secret signs the deliveries of a webhook. Its text is whsec_ and the base64 of
// its key. A Secret does not print its text: fmt, log/slog and encoding/json show
// its mask. The zero Secret signs nothing and verifies nothing.
type Secret struct {
	// The texts are behind pointers: fmt calls no methods on unexported fields of
	// other packages, and would print the text itself there. They are pointers to
	// strings: those to structs fmt follows where a verb does not fit.
	text, key *string // key is what text decodes to
}

var (
	_ slog.LogValuer = Secret{}
	_ fmt.Formatter  = Secret{}
)

// NewSecret makes a secret with 256 bits from random, which is crypto/rand's
// reader where it is nil.
func NewSecret(random io.Reader) (Secret, error) {
	if random == nil {
		random = rand.Reader
	}
	key := make([]byte, secretBytes)
	if _, err := io.ReadFull(random, key); err != nil {
		return Secret{}, fmt.Errorf("make a webhook secret: %w", err)
	}
	return newSecret(secretPrefix+base64.StdEncoding.EncodeToString(key), string(key)), nil
}

// ParseSecret returns the secret that text is. The error does not repeat text.
func ParseSecret(text string) (Secret, error) {
	key := decodeKey(text)
	if n := len(key); n < minSecretBytes || n > maxSecretBytes {
		return Secret{}, errors.New("a webhook secret is whsec_ and the base64 of 24 to 64 bytes")
	}
	return newSecret(text, string(key)), nil
}

func newSecret(text, key string) Secret { return Secret{&text, &key} }

// decodeKey returns the key that a secret's text holds, or nil where it holds none.
func decodeKey(text string) []byte {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	// The decoder skips line ends; a text with some is another text.
	if !ok || err != nil || strings.ContainsAny(encoded, "\r\n") {
		return nil
	}
	return key
}

// Reveal returns the whole text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Mask returns what may be shown: the first 10 characters and the last 5.
func (s Secret) Mask() string {
	if s.text == nil {
		return ""
	}
	return (*s.text)[:10] + "..." + (*s.text)[len(*s.text)-5:]
}

// String returns the mask.
func (s Secret) String() string { return s.Mask() }

// Format writes the mask, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.Mask()) }

// LogValue returns the mask.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.Mask()) }

// MarshalText returns the mask, for JSON and all other encodings of text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.Mask()), nil }
