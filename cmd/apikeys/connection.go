package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// clientSettings are what every command needs that calls a server. Their names
// are the same as flags, in the environment and in a profile.
type clientSettings struct {
	Profile      string     `group:"connection" placeholder:"NAME" help:"The connection profile; its settings stand behind flags and environment. Default: the one called default, if there is one."`
	Server       string     `group:"connection" default:"127.0.0.1:9090" placeholder:"ADDRESS" help:"The server's gRPC address, host:port or a URL. TLS is used unless the host is this machine (loopback) or the URL begins with grpc://."`
	Token        secretText `group:"connection" placeholder:"TOKEN" help:"A root token or an API key. As a flag every user of this machine can read it: better use the others."`
	TokenFile    string     `group:"connection" type:"path" placeholder:"FILE" help:"A file that holds the token."`
	Organization string     `group:"connection" placeholder:"ID" help:"The organization to act in, or * for all. For root tokens."`
	TLS          bool       `name:"tls" group:"connection" help:"Connect with TLS to a server on loopback too."`
	CAFile       string     `name:"ca-file" group:"connection" type:"path" placeholder:"FILE" help:"PEM file of the authorities that may vouch for the server, in place of the system's."`
}

// connection is how a server is reached, and as whom.
type connection struct {
	// address is the server's, host:port.
	address      string
	credentials  credentials.TransportCredentials
	token        masked.Text
	organization string
}

// secretText is a setting whose value is shown nowhere.
type secretText struct{ masked.Text }

var _ encoding.TextUnmarshaler = (*secretText)(nil)

// UnmarshalText takes any text.
func (s *secretText) UnmarshalText(text []byte) error {
	s.Text = masked.New(string(text))
	return nil
}

// connection returns what the settings make.
func (s *clientSettings) connection() (*connection, error) {
	address, secure, err := parseServer(s.Server, s.TLS)
	if err != nil {
		return nil, usageError{fmt.Errorf("server: %w", err)}
	}
	c := &connection{address: address, credentials: insecure.NewCredentials(), organization: s.Organization}
	switch {
	case secure:
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if s.CAFile != "" {
			if config.RootCAs, err = readAuthorities(s.CAFile); err != nil {
				return nil, fmt.Errorf("ca_file: %w", err)
			}
		}
		c.credentials = credentials.NewTLS(config)
	case s.CAFile != "":
		return nil, usageError{errors.New("ca_file: is for TLS, which this connection does not use; set tls or give the server as grpcs://host:port")}
	}
	if c.token, err = s.readToken(); err != nil {
		return nil, err
	}
	return c, nil
}

// readToken returns the token of the settings, or of their file.
func (s *clientSettings) readToken() (masked.Text, error) {
	token, origin := s.Token.Reveal(), "token"
	switch {
	case !s.Token.IsZero() && s.TokenFile != "":
		return masked.Text{}, usageError{errors.New("token and token_file: set one of them")}
	case s.TokenFile != "":
		text, err := os.ReadFile(s.TokenFile)
		if err != nil {
			return masked.Text{}, fmt.Errorf("token_file: %w", err)
		}
		token, origin = string(text), "token_file: the token in "+s.TokenFile
	case s.Token.IsZero():
		return masked.Text{}, usageError{errors.New("a token is needed: set APIKEYS_TOKEN or APIKEYS_TOKEN_FILE, or use a profile that has one")}
	}
	token = strings.TrimSpace(token)
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return masked.Text{}, usageError{fmt.Errorf("%s must be one word of printable ASCII", origin)}
		}
	}
	if token == "" {
		return masked.Text{}, usageError{fmt.Errorf("%s is empty", origin)}
	}
	return masked.New(token), nil
}

// readAuthorities returns the certificates of a PEM file.
func readAuthorities(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return pool, nil
}

// The schemes of a server's URL, with whether they mean TLS and their ports.
var schemes = map[string]struct {
	secure bool
	port   string
}{
	"grpc":  {false, "9090"},
	"grpcs": {true, "443"},
	"http":  {false, "80"},
	"https": {true, "443"},
}

// parseServer returns the host:port of a server and whether it is reached with
// TLS, which secure asks for. The token travels with every call, so TLS is left
// out only where nobody else can listen, on loopback, or where the URL says
// grpc://. A port that is left out is the usual one.
func parseServer(text string, secure bool) (address string, _ bool, err error) {
	const want = "must be host:port or a URL such as grpcs://keys.example.com, not %q"
	host, port, written := text, "", ""
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		written = strings.ToLower(strings.Split(text, "://")[0])
		scheme, known := schemes[written]
		switch {
		case err == nil && u.User != nil:
			return "", false, errors.New("must not hold a credential; that is what token and token_file are for")
		case err != nil || !known || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			return "", false, fmt.Errorf(want, apikey.Excerpt(text))
		case secure && !scheme.secure:
			return "", false, fmt.Errorf("%q says that there is no TLS, and tls says that there is", apikey.Excerpt(text))
		}
		host, port, secure = u.Host, scheme.port, scheme.secure
	}
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	} else if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		host = ip.String()
	}
	local := isLoopback(host)
	switch {
	case written == "":
		secure = secure || !local
	case written == "http" && !local:
		return "", false, fmt.Errorf("%q would send the token unencrypted; use grpcs://, or grpc:// if it may be read on its way", apikey.Excerpt(text))
	}
	if port == "" {
		port = schemes["grpc"].port
		if secure {
			port = schemes["grpcs"].port
		}
	}
	if host == "" || strings.ContainsAny(host, "/@[] ") || strings.Contains(host, ":") && !isIP(host) || !isPort(port) {
		return "", false, fmt.Errorf(want, apikey.Excerpt(text))
	}
	return net.JoinHostPort(host, port), secure, nil
}

// isLoopback reports whether a host is this machine, as every resolver must take
// it (RFC 6761). Any other name can stand for another machine.
func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

func isIP(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

func isPort(text string) bool {
	_, err := netip.ParseAddrPort("127.0.0.1:" + text)
	return err == nil && text != "0"
}

// dial returns a channel to the server. It connects with the first call.
func (c *connection) dial() (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("dns:///"+c.address,
		grpc.WithTransportCredentials(c.credentials),
		grpc.WithUserAgent("apikeys"),
		// A page of events can be large, and the server is one that we chose.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		// A server that has gone without a word is found out in half a minute.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.address, err)
	}
	return conn, nil
}

// as returns a context whose calls are made as the connection says.
func (c *connection) as(ctx context.Context) context.Context {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token.Reveal())
	if c.organization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-organization-id", c.organization)
	}
	return ctx
}
