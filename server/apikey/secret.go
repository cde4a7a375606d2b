package apikey

import (
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/apikeys-dev/apikeys/server/masked"
)

// The form of a secret: a prefix by mode, 43 base62 characters of randomness
// (62^43 is more than 2^256), and 6 of CRC-32 over all that precedes.
const (
	prefixLive     = "sk_live_"
	prefixTest     = "sk_test_"
	randomLength   = 43
	checksumLength = 6
	checksumStart  = len(prefixLive) + randomLength

	// SecretLength is the length of every secret.
	SecretLength = checksumStart + checksumLength

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

// Secret is the whole secret of a key. Every way of printing it shows its first 20
// characters, "..." and its last 5; only its Reveal tells it. The callers of that
// are the answers of create and rotate, and the hash.
type Secret struct{ masked.Text }

func newSecret(text string) Secret { return Secret{masked.NewWithEnds(text, 20, 5)} }

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

// appendDigits appends a checksum to dst.
func appendDigits(dst []byte, sum uint32) []byte {
	var digits [checksumLength]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = base62[sum%62]
		sum /= 62
	}
	return append(dst, digits[:]...)
}

// ParseSecret returns the secret that text is, or false where text cannot be
// one: another form, or a checksum that does not fit. It tells a typing error
// or junk from a key without any look-up.
//
// It is small so that it is inlined: a caller that needs the verdict alone then
// allocates nothing.
func ParseSecret(text string) (Secret, bool) {
	if !wellFormed(text) {
		return Secret{}, false
	}
	return newSecret(text), true
}

func wellFormed(text string) bool {
	if len(text) != SecretLength {
		return false
	}
	if p := text[:len(prefixLive)]; p != prefixLive && p != prefixTest {
		return false
	}
	for i := len(prefixLive); i < len(text); i++ {
		if !inBase62[text[i]] {
			return false
		}
	}
	var want [SecretLength]byte
	return string(appendChecksum(append(want[:0], text[:checksumStart]...))) == text
}
