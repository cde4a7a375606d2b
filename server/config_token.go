package server

import (
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

// checkToken reports why token cannot be a root token, never the token itself.
func (c Config) checkToken(token masked.Text) error {
	t := token.Reveal()
	if len(t) < minTokenLength {
		return fmt.Errorf("must have at least %d characters, not %d", minTokenLength, len(t))
	}
	if len(t) > apikey.MaxSecretLength {
		return fmt.Errorf("must have at most %d characters", apikey.MaxSecretLength)
	}
	for _, r := range t {
		// It travels in a header, where anything else is refused or altered.
		if r <= ' ' || r > '~' {
			return errors.New("may hold only visible ASCII characters, no spaces")
		}
	}
	// The form is how the two kinds of credentials are distinguished, and the prefix what
	// people and scanners go by.
	if apikey.HasSecretForm(t) {
		return errors.New("must not have the form of an API key's secret, a prefix and 49 characters")
	}
	if apikey.HasTokenForm(t) {
		return errors.New("must not have the form of an operator token's secret, opt_ and 49 characters")
	}
	if apikey.HasIdentityTokenForm(t) {
		return errors.New("must not have the form of a JSON Web Token, eyJ and two dots or more")
	}
	if apikey.BareSecret(t) != t {
		return errors.New("must not begin with secret-token:, which is taken off wherever a credential comes in")
	}
	for _, prefix := range c.KeyFormats.Prefixes() {
		if strings.HasPrefix(t, prefix) {
			return fmt.Errorf("must not begin with %s, as the secrets of API keys do", prefix)
		}
	}
	return nil
}

// rootToken returns the root token that c sets, itself or by a file, or "".
func (c Config) rootToken() (masked.Text, error) {
	if c.RootTokenFile == "" {
		return c.RootToken, nil
	}
	f, err := os.Open(c.RootTokenFile)
	if err != nil {
		return masked.Text{}, fmt.Errorf("root_token_file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return masked.Text{}, fmt.Errorf("root_token_file: %w", err)
	}
	token := masked.New(strings.TrimSpace(string(text)))
	if err := c.checkToken(token); err != nil {
		return masked.Text{}, fmt.Errorf("root_token_file: the token in %s %w", c.RootTokenFile, err)
	}
	return token, nil
}

// ParseTrustedProxy reads one entry of trusted_proxies: an address or a CIDR
// range, in the forms that a key's allow list has.
func ParseTrustedProxy(text string) (netip.Prefix, error) { return apikey.ParseAllowed(text) }
