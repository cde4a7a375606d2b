package server

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// tokenFile is where a new root token goes when no person is looking.
func (c Config) tokenFile() string { return filepath.Join(c.DataDir, "root-token") }

// keepToken puts a new root token where its owner finds it, before the database
// learns its hash: a crash in between leaves a token that is not good yet,
// never one that nobody knows. It returns the path of the file, or "" when the
// token will be shown on a terminal.
func (c Config) keepToken(token masked.Text) (path string, err error) {
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
func (c Config) ShowToken(token masked.Text) error {
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
// root token is, which keepToken has put at path, and two lines for the shell of
// another terminal. The first holds the token, in either case; the second makes an
// API key.
func (c Config) tellFirstStart(token masked.Text, path string, l *listeners) error {
	scheme := "http"
	if l.secure {
		scheme = "https"
	}
	where, value := "The root token, shown this once and kept nowhere:\n\n  "+token.Reveal(), token.Reveal()
	if path != "" {
		where, value = "The root token is in "+path, "$(cat "+shellQuote(path)+")"
	}
	_, err := fmt.Fprintf(c.Notice, `A new server: REST at %s://%s, gRPC at %s

%s

It may do everything; `+"`apikeys token reset`"+` makes another. To make a first API key, paste these into another terminal:

  TOKEN=%s
  %s -X POST -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"label": "first", "scopes": ["api_keys.read"]}'

`, scheme, l.restAddr, reachable(c.GRPCAddr, l.grpc.Addr()), where, value, l.curl("/developers/api_keys"))
	return err
}

// curl returns the call of curl that reaches a path of this server from this
// machine. With TLS the certificate's name leads to the listener, and the file of
// the certificate vouches for it, as a self-signed one needs.
func (l *listeners) curl(path string) string {
	if l.certificate == nil {
		return "curl http://" + l.restAddr + path
	}
	host, port, err := net.SplitHostPort(l.restAddr)
	if err != nil {
		host, port = l.restAddr, "443"
	}
	file, err := filepath.Abs(l.certificate.certFile)
	if err != nil {
		file = l.certificate.certFile
	}
	call, name := "curl --cacert "+shellQuote(file), l.certificate.name(host)
	if name != host {
		call += " --resolve " + shellQuote(name+":"+port+":"+host)
	}
	return call + " " + shellQuote("https://"+net.JoinHostPort(name, port)+path)
}

// shellQuote returns text as one word of a shell, inside $() too.
func shellQuote(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:", r)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !plain(r) }) {
		return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	}
	return text
}
