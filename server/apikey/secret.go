package apikey

import (
	"crypto/rand"
	"hash/crc32"
	"io"
	"log/slog"
)

// The form of a secret: a prefix by mode, 43 base62 characters of randomness
// (62^43 is more than 2^256), and 6 of CRC-32 over all that precedes.
const (
	prefixLive    = "sk_live_"
	prefixTest    = "sk_test_"
	randomLength  = 43
	checksumStart = len(prefixLive) + randomLength
	secretLength  = checksumStart + 6

	// MaxSecretLength bounds what is looked at as a secret at all.
	MaxSecretLength = 512
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Secret is the whole secret of a key. It cannot print itself: every way of
// formatting it shows the mask, so that it cannot slip into a log or an error.
// Only [Secret.Reveal] tells it.
type Secret struct{ text string }

var (
	_ slog.LogValuer = Secret{}
)

// NewSecret makes a secret with 256 bits from random, which is crypto/rand's
// reader where it is nil.
func NewSecret(mode Mode, random io.Reader) (Secret, error) {
	if random == nil {
		random = rand.Reader
	}
	prefix := prefixLive
	if mode == ModeTest {
		prefix = prefixTest
	}
	token, err := RandomToken(prefix, random)
	return Secret{token}, err
}

// RandomToken returns prefix, 43 random base62 characters and their checksum:
// the form of every credential made here.
func RandomToken(prefix string, random io.Reader) (string, error) {
	text := make([]byte, 0, len(prefix)+randomLength+6)
	text = append(text, prefix...)
	var pool [64]byte
	for len(text) < len(prefix)+randomLength {
		if _, err := io.ReadFull(random, pool[:]); err != nil {
			return "", err
		}
		for _, b := range pool {
			// Six bits, and the two values past 61 are thrown away: taking a
			// remainder would make some characters likelier than others.
			if b &= 63; int(b) < len(base62) && len(text) < len(prefix)+randomLength {
				text = append(text, base62[b])
			}
		}
	}
	return string(appendChecksum(text)), nil
}

// appendChecksum appends the CRC-32 (IEEE) of text as 6 base62 digits, most
// significant first.
func appendChecksum(text []byte) []byte {
	sum := crc32.ChecksumIEEE(text)
	var digits [6]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = base62[sum%62]
		sum /= 62
	}
	return append(text, digits[:]...)
}

// ParseSecret returns the secret that text is, or false where text cannot be
// one: another form, or a checksum that does not fit. It tells a typing error
// or junk from a key without any look-up.
func ParseSecret(text string) (Secret, bool) {
	if len(text) != secretLength {
		return Secret{}, false
	}
	if p := text[:len(prefixLive)]; p != prefixLive && p != prefixTest {
		return Secret{}, false
	}
	for i := len(prefixLive); i < len(text); i++ {
		c := text[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return Secret{}, false
		}
	}
	var want [secretLength]byte
	if string(appendChecksum(append(want[:0], text[:checksumStart]...))) != text {
		return Secret{}, false
	}
	return Secret{text}, true
}

// Reveal returns the whole secret. The callers are the answers of create and
// rotate, and the hash.
func (s Secret) Reveal() string { return s.text }

// Mask returns the first 20 characters, "...", and the last 5.
func (s Secret) Mask() string {
	if len(s.text) < 25 {
		return "..."
	}
	return s.text[:20] + "..." + s.text[len(s.text)-5:]
}

// String returns the mask.
func (s Secret) String() string { return s.Mask() }

// GoString returns the mask.
func (s Secret) GoString() string { return s.Mask() }

// LogValue returns the mask.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.Mask()) }

// MarshalText returns the mask, for JSON and all other encodings of text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.Mask()), nil }
