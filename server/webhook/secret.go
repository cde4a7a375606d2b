package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/masked"
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
// Every way of printing it shows [HeaderMask].
type HeaderValue struct{ masked.Text }

// HeaderMask is what is shown of the value of a custom header.
const HeaderMask = masked.Mask

// NewHeaderValue returns the value that text is.
func NewHeaderValue(text string) HeaderValue { return HeaderValue{masked.New(text)} }

// private is the form of what is sealed.
type private struct {
	Secrets []privateSecret   `json:"secrets"`
	Headers map[string]string `json:"headers,omitempty"`
}

type privateSecret struct {
	Text      string    `json:"secret"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Private returns the secrets and headers of w, to be sealed: nothing else shows
// them whole.
func (w *Webhook) Private() ([]byte, error) {
	p := private{Headers: make(map[string]string, len(w.Headers))}
	for _, secret := range w.Secrets {
		p.Secrets = append(p.Secrets, privateSecret{secret.Secret.Reveal(), secret.ExpiresAt})
	}
	for _, h := range w.Headers {
		p.Headers[h.Name] = h.Value.Reveal()
	}
	plaintext, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode the secrets of a webhook: %w", err)
	}
	return plaintext, nil
}

// SetPrivate fills in the secrets and headers of w from what [Webhook.Private]
// returned. No error repeats a part of it.
func (w *Webhook) SetPrivate(plaintext []byte) error {
	var p private
	// The decoder's errors quote what they stumble over.
	if json.Unmarshal(plaintext, &p) != nil || len(p.Secrets) == 0 {
		return errors.New("not the secrets of a webhook")
	}
	secrets := make([]SigningSecret, len(p.Secrets))
	for i, stored := range p.Secrets {
		secret, err := hooks.ParseSecret(stored.Text)
		if err != nil {
			return err
		}
		secrets[i] = SigningSecret{secret, stored.ExpiresAt}
	}
	w.setSecrets(secrets)
	w.Headers = NewHeaders(p.Headers)
	return nil
}
