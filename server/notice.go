package server

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/apikeys-dev/apikeys/server/keyring"
)

// tokenFile is where a new root token goes when no person is looking.
func (c Config) tokenFile() string { return filepath.Join(c.DataDir, "root-token") }

// keepToken puts a new root token where its owner finds it, before the database
// learns its hash: a crash in between leaves a token that is not good yet,
// never one that nobody knows. It returns the path of the file, or "" when the
// token will be shown on a terminal.
func (c Config) keepToken(token Token) (path string, err error) {
	if c.NoticeIsTerminal {
		return "", nil
	}
	path, err = filepath.Abs(c.tokenFile())
	if err != nil {
		return "", fmt.Errorf("keep the root token: %w", err)
	}
	if err := keyring.ReplaceFile(path, []byte(token.Reveal()+"\n")); err != nil {
		return "", fmt.Errorf("keep the root token: %w", err)
	}
	return path, nil
}

// ShowToken shows a root token that was made on request: on a terminal the
// token itself, this once; else it is written to <data-dir>/root-token and the
// path is told.
func (c Config) ShowToken(token Token) error {
	c = c.withDefaults()
	path, err := c.keepToken(token)
	if err != nil {
		return err
	}
	if path == "" {
		_, err = fmt.Fprintf(c.Notice, "The new root token, shown this once:\n\n  %s\n\nThe one before it is no longer good.\n", token.Reveal())
	} else {
		_, err = fmt.Fprintf(c.Notice, "%s\n", path)
	}
	return err
}

// tellFirstStart greets whoever started a server for the first time: where the
// root token is, which keepToken has put at path, and a call to copy.
func (c Config) tellFirstStart(token Token, path string, l *listeners) error {
	var b strings.Builder
	scheme := "http"
	if l.secure {
		scheme = "https"
	}
	credential := token.Reveal()
	fmt.Fprintf(&b, "A new server: REST at %s://%s, gRPC at %s\n\n", scheme, l.restAddr, reachable(c.GRPCAddr, l.grpc.Addr()))
	if path == "" {
		fmt.Fprintf(&b, "The root token, shown this once:\n\n  %s\n\n", token.Reveal())
	} else {
		fmt.Fprintf(&b, "The root token is in %s\n\n", path)
		credential = "$(cat " + shellQuote(path) + ")"
	}
	fmt.Fprintf(&b, "It may do everything; `apikeys token reset` makes another. A first call, which makes an API key:\n\n")
	fmt.Fprintf(&b, "  curl -X POST %s://%s/developers/api_keys -H \"Authorization: Bearer %s\" -H 'Content-Type: application/json' -d '{\"label\": \"first\", \"scopes\": [\"api_keys.read\"]}'\n\n",
		scheme, l.restAddr, credential)
	_, err := c.Notice.Write([]byte(b.String()))
	return err
}

// shellQuote returns path as one word of a shell inside double quotes and $().
func shellQuote(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+", r)
	}
	if strings.ContainsFunc(path, func(r rune) bool { return !plain(r) }) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
