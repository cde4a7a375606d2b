package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
)

// Sealed is a value encrypted, with the id of the key that did it.
type Sealed struct {
	KeyID string
	Data  []byte
}

// Sealer encrypts what must be read again, with AES-256-GCM. The first of its
// keys seals; the others still open what was sealed under them.
//
// A value is bound to the id of its key and to its place: the id of its row, or
// what it is for. So it opens nowhere else: a row's value is of no use in another
// row. The nonce is random, so equal values have different forms, and a key is
// good for 2^32 of them (NIST SP 800-38D); a new key in front of the secrets
// file's list begins anew.
type Sealer struct{ keys []sealingKey }

type sealingKey struct {
	id   string
	aead cipher.AEAD
	// sum returns the HMAC of a text under a key that is derived from this one.
	sum func(text []byte) []byte
}

// Overhead is the number of bytes by which sealed data is longer than its value.
const Overhead = 12 + 16

// NewSealer returns a sealer of keys, newest first. It needs one at least, and
// each has 32 bytes.
func NewSealer(keys ...Key) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, errors.New("make a sealer: no keys")
	}
	s := &Sealer{}
	for _, k := range keys {
		key := k.bytes()
		if len(key) != keySize {
			return nil, fmt.Errorf("make a sealer: key %s has %d bytes, not %d", k.ID, len(key), keySize)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("make a sealer: key %s: %w", k.ID, err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("make a sealer: key %s: %w", k.ID, err)
		}
		s.keys = append(s.keys, sealingKey{k.ID, aead, summer(key)})
	}
	return s, nil
}

// Seal returns value encrypted for place.
func (s *Sealer) Seal(value []byte, place string) Sealed {
	return Sealed{s.keys[0].id, s.AppendSeal(nil, value, place)}
}

// Open returns the value of what [Sealer.Seal] returned for place.
func (s *Sealer) Open(sealed Sealed, place string) ([]byte, error) {
	for _, k := range s.keys {
		if k.id == sealed.KeyID {
			value, err := k.open(sealed.Data, place)
			if err != nil {
				return nil, fmt.Errorf("open what key %s sealed: %w", k.id, err)
			}
			return value, nil
		}
	}
	return nil, fmt.Errorf("there is no encryption key %s", sealed.KeyID)
}

// AppendSeal appends the data of [Sealer.Seal] to dst. It is for values that do
// not carry the id of their key: [Sealer.OpenAny] opens them.
func (s *Sealer) AppendSeal(dst, value []byte, place string) []byte {
	var bound [128]byte
	//nolint:gosec // G407: this AEAD makes a random nonce itself, and wants none
	return s.keys[0].aead.Seal(dst, nil, value, s.keys[0].bind(bound[:0], place))
}

// OpenAny returns the value of data that one of the keys sealed for place, or
// false where none did.
func (s *Sealer) OpenAny(data []byte, place string) (value []byte, ok bool) {
	for _, k := range s.keys {
		if value, err := k.open(data, place); err == nil {
			return value, true
		}
	}
	return nil, false
}

func (k sealingKey) open(data []byte, place string) ([]byte, error) {
	var bound [128]byte
	return k.aead.Open(nil, nil, data, k.bind(bound[:0], place))
}

// bind appends what a value is bound to. No id of a key has a zero byte.
func (k sealingKey) bind(dst []byte, place string) []byte {
	dst = append(dst, "apikeys v1\x00"...)
	dst = append(dst, k.id...)
	dst = append(dst, 0)
	return append(dst, place...)
}

// summer returns a function that holds the key for fingerprints which belongs to key.
func summer(key []byte) func(text []byte) []byte {
	derive := hmac.New(sha256.New, key)
	derive.Write([]byte("apikeys v1 fingerprints"))
	derived := derive.Sum(nil)
	return func(text []byte) []byte {
		mac := hmac.New(sha256.New, derived)
		mac.Write(text)
		return mac.Sum(nil)
	}
}

// Fingerprint returns what tells text from every other, and nothing of text: its
// HMAC-SHA-256, with the id of the key whose derived key made it.
func (s *Sealer) Fingerprint(text []byte) Sealed {
	return Sealed{s.keys[0].id, s.keys[0].sum(text)}
}

// IsFingerprint reports whether what [Sealer.Fingerprint] returned is of text.
func (s *Sealer) IsFingerprint(fingerprint Sealed, text []byte) (bool, error) {
	for _, k := range s.keys {
		if k.id == fingerprint.KeyID {
			return hmac.Equal(fingerprint.Data, k.sum(text)), nil
		}
	}
	return false, fmt.Errorf("there is no encryption key %s", fingerprint.KeyID)
}
