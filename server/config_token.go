package server

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// minTokenLength keeps a person's password from becoming the root token.
const minTokenLength = 24

// Token is the text of a root token. It prints as a mask, so that a Config can be
// logged; Reveal tells it.
type Token struct{ masked.Text }

// NewToken returns the token that text is. [Config] says which ones are good.
func NewToken(text string) Token { return Token{masked.New(text)} }

var _ encoding.TextUnmarshaler = (*Token)(nil)

// UnmarshalText sets t to text, for readers of settings.
func (t *Token) UnmarshalText(text []byte) error {
	*t = NewToken(string(text))
	return nil
}

// check reports why t cannot be a root token, never t itself.
func (t Token) check() error {
	text := t.Reveal()
	if len(text) < minTokenLength {
		return fmt.Errorf("must have at least %d characters, not %d", minTokenLength, len(text))
	}
	if len(text) > apikey.MaxSecretLength {
		return fmt.Errorf("must have at most %d characters", apikey.MaxSecretLength)
	}
	for _, r := range text {
		// It travels in a header, where anything else is refused or altered.
		if r <= ' ' || r > '~' {
			return errors.New("may hold only visible ASCII characters, no spaces")
		}
	}
	// The prefix is how the two kinds of credentials are told apart.
	if strings.HasPrefix(text, "sk_") {
		return errors.New("must not begin with sk_, as the secrets of API keys do")
	}
	return nil
}

// rootToken returns the root token that c sets, itself or by a file, or the zero Token.
func (c Config) rootToken() (Token, error) {
	if c.RootTokenFile == "" {
		return c.RootToken, nil
	}
	f, err := os.Open(c.RootTokenFile)
	if err != nil {
		return Token{}, fmt.Errorf("root_token_file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return Token{}, fmt.Errorf("root_token_file: %w", err)
	}
	token := NewToken(strings.TrimSpace(string(text)))
	if err := token.check(); err != nil {
		return Token{}, fmt.Errorf("root_token_file: the token in %s %w", c.RootTokenFile, err)
	}
	return token, nil
}

// ParseTrustedProxy reads one entry of trusted_proxies: an address or a CIDR
// range, in the forms that a key's allow list has.
func ParseTrustedProxy(text string) (netip.Prefix, error) { return apikey.ParseAllowed(text) }
