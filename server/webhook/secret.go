package webhook

import (
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
