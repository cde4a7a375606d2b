package webhook

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Sealed is what is stored of a webhook's secrets and header values: encrypted,
// with the id of the key that did it.
type Sealed struct {
	KeyID string
	Data  []byte
}

// Sealer encrypts what must be read again (AES-256-GCM). The first of its keys
// seals; the others still open what was sealed under them.
type Sealer struct {
	newest string
	aeads  map[string]cipher.AEAD
}

// NewSealer returns a sealer of keys, newest first. It needs one at least, and
// each has 32 bytes.
func NewSealer(keys []apikey.NamedKey) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("make a sealer: no keys")
	}
	s := &Sealer{newest: keys[0].ID, aeads: make(map[string]cipher.AEAD, len(keys))}
	for _, k := range keys {
		if len(k.Key) != 32 {
			return nil, fmt.Errorf("make a sealer: key %s has %d bytes, not 32", k.ID, len(k.Key))
		}
		block, err := aes.NewCipher(k.Key)
		if err != nil {
			return nil, fmt.Errorf("make a sealer: key %s: %w", k.ID, err)
		}
		if s.aeads[k.ID], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, fmt.Errorf("make a sealer: key %s: %w", k.ID, err)
		}
	}
	return s, nil
}

// private is the form of what is sealed.
type private struct {
	Secrets []privateSecret   `json:"secrets"`
	Headers map[string]string `json:"headers,omitempty"`
}

type privateSecret struct {
	Text      string    `json:"secret"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Seal returns the secrets and headers of w, which has its id, encrypted. They
// open for no other webhook: a row's value is of no use in another row.
func (s *Sealer) Seal(w *Webhook) (Sealed, error) {
	p := private{Headers: make(map[string]string, len(w.Headers))}
	for _, secret := range w.Secrets {
		p.Secrets = append(p.Secrets, privateSecret{secret.Secret.Reveal(), secret.ExpiresAt})
	}
	for _, h := range w.Headers {
		p.Headers[h.Name] = h.Value.Reveal()
	}
	plaintext, err := json.Marshal(p)
	if err != nil {
		return Sealed{}, fmt.Errorf("seal webhook %s: %w", w.ID, err)
	}
	//nolint:gosec // G407: this AEAD makes a random nonce itself, and wants none
	return Sealed{s.newest, s.aeads[s.newest].Seal(nil, nil, plaintext, []byte(w.ID))}, nil
}

// Open fills in the secrets and headers of w, which has its id, from what
// [Sealer.Seal] returned.
func (s *Sealer) Open(w *Webhook, sealed Sealed) error {
	aead, ok := s.aeads[sealed.KeyID]
	if !ok {
		return fmt.Errorf("open webhook %s: there is no encryption key %s", w.ID, sealed.KeyID)
	}
	plaintext, err := aead.Open(nil, nil, sealed.Data, []byte(w.ID))
	if err != nil {
		return fmt.Errorf("open webhook %s under key %s: %w", w.ID, sealed.KeyID, err)
	}
	var p private
	// The decoder's errors quote what they stumble over.
	if json.Unmarshal(plaintext, &p) != nil || len(p.Secrets) == 0 {
		return fmt.Errorf("open webhook %s: not what was sealed", w.ID)
	}
	secrets := make([]SigningSecret, len(p.Secrets))
	for i, stored := range p.Secrets {
		secret, err := hooks.ParseSecret(stored.Text)
		if err != nil {
			return fmt.Errorf("open webhook %s: %w", w.ID, err)
		}
		secrets[i] = SigningSecret{secret, stored.ExpiresAt}
	}
	w.setSecrets(secrets)
	w.Headers = NewHeaders(p.Headers)
	return nil
}
