package apikey

import (
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unsafe"

	"github.com/apikeys-dev/apikeys/server/masked"
)

// The form of a secret: the prefix of a format, 43 base62 characters of randomness
// (62^43 is more than 2^256), and 6 of CRC-32 over all that precedes. So a secret is
// recognised from its end, whatever the prefix is.
const (
	randomLength   = 43
	checksumLength = 6
	// TailLength is the length of what follows the prefix.
	TailLength = randomLength + checksumLength

	// The ends of a secret that its mask shows, besides the prefix.
	shownAfterPrefix, shownAtEnd = 12, 5

	// MaxSecretLength bounds what is looked at as a secret at all.
	MaxSecretLength = 512
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// inBase62 is base62 as a table: comparing ranges would mispredict a branch at
// nearly every character.
var inBase62 = func() (in [256]bool) {
	for _, c := range []byte(base62) {
		in[c] = true
	}
	return in
}()

// Secret is the whole secret of a key. Every way of printing it shows its prefix and
// 12 characters, "..." and its last 5; only its Reveal tells it. The callers of that
// are the answers of create and rotate, and the hash.
type Secret struct{ masked.Text }

func newSecret(text string) Secret {
	return Secret{masked.NewWithEnds(text, len(text)-TailLength+shownAfterPrefix, shownAtEnd)}
}

// NewSecret makes a secret of a prefix with 256 bits from random, which is
// crypto/rand's reader where it is nil.
func NewSecret(prefix string, random io.Reader) (Secret, error) {
	if random == nil {
		random = rand.Reader
	}
	token, err := RandomToken(prefix, random)
	if err != nil {
		return Secret{}, fmt.Errorf("make secret: %w", err)
	}
	return newSecret(token), nil
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
	return appendDigits(text, crc32.ChecksumIEEE(text))
}

// hasChecksum reports whether digits are the checksum of text.
func hasChecksum(text, digits string) bool {
	// A conversion would copy text to the heap, since nothing tells the compiler that
	// crc32 keeps no slice.
	sum := crc32.ChecksumIEEE(unsafe.Slice(unsafe.StringData(text), len(text))) //nolint:gosec // It is only read.
	var want [checksumLength]byte
	return string(appendDigits(want[:0], sum)) == digits
}

// appendDigits appends a checksum to dst.
func appendDigits(dst []byte, sum uint32) []byte {
	var digits [checksumLength]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = base62[sum%62]
		sum /= 62
	}
	return append(dst, digits[:]...)
}

// ParseSecret returns the secret that text is, or false where [IsSecret] says that
// it is none.
func ParseSecret(text string) (Secret, bool) {
	if !IsSecret(text) {
		return Secret{}, false
	}
	return newSecret(text), true
}

// IsSecret reports whether text can be a secret, of whatever prefix: its form and its
// checksum are right. It tells a typing error or junk from a key without any look-up,
// and allocates nothing.
func IsSecret(text string) bool {
	return HasSecretForm(text) && hasChecksum(text[:len(text)-checksumLength], text[len(text)-checksumLength:])
}

// HasSecretForm reports whether text has the form of a secret, whatever its checksum
// is: a prefix that a key can have, and as many base62 characters as follow it. No
// access token has that form.
func HasSecretForm(text string) bool {
	if !MayBeSecret(text) {
		return false
	}
	prefix := text[:len(text)-TailLength]
	for i := len(prefix); i < len(text); i++ {
		if !inBase62[text[i]] {
			return false
		}
	}
	return isPrefix(prefix) && !isReserved(prefix)
}

// MayBeSecret reports whether text has a length that a secret can have, and an
// underscore where a secret has its last. It is what a look-up asks before it spends
// a hash on a text.
func MayBeSecret(text string) bool {
	n := len(text) - TailLength
	return n > 1 && n <= maxPrefix && text[n-1] == '_'
}

// secretTokenScheme begins a secret that is written as a URI (RFC 8959).
const secretTokenScheme = "secret-token:"

// BareSecret returns a credential that was presented, without the scheme secret-token in
// front. Whatever takes a credential in takes that form too; nothing here shows it.
func BareSecret(text string) string {
	n := len(secretTokenScheme)
	if len(text) >= n && text[n-1] == ':' && strings.EqualFold(text[:n], secretTokenScheme) {
		return text[n:]
	}
	return text
}

// TokenPrefix begins the secret of every access token of an operator that was made
// through the API.
const TokenPrefix = "opt_"

// HasTokenForm reports whether text has the form of such a secret, whatever its checksum
// is. No secret of a key has that form.
func HasTokenForm(text string) bool {
	tail, ok := strings.CutPrefix(text, TokenPrefix)
	if !ok || len(tail) != TailLength {
		return false
	}
	for i := range len(tail) {
		if !inBase62[tail[i]] {
			return false
		}
	}
	return true
}

// IsToken reports whether text can be the secret of an access token of an operator: its
// form and its checksum are right.
func IsToken(text string) bool {
	return HasTokenForm(text) && hasChecksum(text[:len(text)-checksumLength], text[len(text)-checksumLength:])
}

// identityTokenPrefix is how every token of an issuer begins: with a brace and a quote in
// base64url.
const identityTokenPrefix = "eyJ"

// HasIdentityTokenForm reports whether text has the form of a token of an OpenID Connect
// issuer, a JSON Web Token. No other credential has that form.
func HasIdentityTokenForm(text string) bool {
	return strings.HasPrefix(text, identityTokenPrefix) && strings.Count(text, ".") >= 2
}
