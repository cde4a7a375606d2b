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
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/apikeys-dev/apikeys/client"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// clientSettings are what every command needs that calls a server. Their names
// are the same as flags, in the environment and in a context.
type clientSettings struct {
	Context      string     `group:"connection" aliases:"profile" placeholder:"NAME" complete:"contexts" help:"The context to use, one of apikeys context list. As a flag its settings win over the environment."`
	Address      string     `group:"connection" aliases:"server" default:"127.0.0.1:9090" placeholder:"ADDRESS" help:"The server's gRPC address, host:port or a URL. TLS is used unless the host is this machine (loopback) or the URL begins with grpc://."`
	Token        secretText `group:"connection" hidden:"" placeholder:"TOKEN" help:"An access token or an API key; in the environment alone."`
	TokenFile    string     `group:"connection" type:"path" placeholder:"FILE" help:"A file that holds the token to call with. Default: APIKEYS_TOKEN, else what apikeys login has stored, else, for a server on this machine, data/root-token."`
	Organization string     `group:"connection" placeholder:"ID" help:"The organization to act in, or * for all. For tokens of operators."`
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

// connection returns what the settings make, with the credential that is stored for
// the context where they name none.
func (c *clientSettings) connection(ctx context.Context, sources *sources) (*connection, error) {
	to, err := c.unauthenticated()
	if err != nil {
		return nil, err
	}
	if to.token, err = c.readToken(ctx, sources); err != nil {
		return nil, err
	}
	return to, nil
}

// unauthenticated returns a connection without a token.
func (c *clientSettings) unauthenticated() (*connection, error) {
	address, secure, err := parseServer(c.Address, c.TLS)
	if err != nil {
		return nil, usageError{fmt.Errorf("address: %w", err)}
	}
	to := &connection{address: address, credentials: insecure.NewCredentials(), organization: c.Organization}
	switch {
	case secure:
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if c.CAFile != "" {
			if config.RootCAs, err = readAuthorities(c.CAFile); err != nil {
				return nil, fmt.Errorf("ca_file: %w", err)
			}
		}
		to.credentials = credentials.NewTLS(config)
	case c.CAFile != "":
		return nil, usageError{errors.New("ca_file: is for TLS, which this connection does not use; set tls or give the server as grpcs://host:port")}
	}
	return to, nil
}

// readToken returns the token of the settings, or of their file; else the one that is
// stored for the context; else, for a server on this machine alone, the root token that
// a first start has written below the current directory: another server has no business
// with it.
func (c *clientSettings) readToken(ctx context.Context, sources *sources) (masked.Text, error) {
	if c.Token.IsZero() && c.TokenFile == "" {
		stored, err := sources.storedToken(ctx)
		if err != nil || !stored.IsZero() {
			return stored, err
		}
		if path := filepath.Join(server.Defaults().DataDir, "root-token"); c.onThisMachine() && exists(path) {
			return readTokenFile(path)
		}
	}
	return c.givenToken()
}

// onThisMachine reports whether the server of the settings is on loopback.
func (c *clientSettings) onThisMachine() bool {
	address, _, err := parseServer(c.Address, c.TLS)
	if err != nil {
		return false
	}
	host, _, err := net.SplitHostPort(address)
	return err == nil && isLoopback(host)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func readTokenFile(path string) (masked.Text, error) {
	return (&clientSettings{TokenFile: path}).givenToken()
}

// givenToken returns the token of the settings, or of their file.
func (c *clientSettings) givenToken() (masked.Text, error) {
	token, origin := c.Token.Reveal(), "token"
	switch {
	case !c.Token.IsZero() && c.TokenFile != "":
		return masked.Text{}, usageError{errors.New("token and token_file: set one of them")}
	case c.TokenFile != "":
		text, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return masked.Text{}, fmt.Errorf("token_file: %w", err)
		}
		token, origin = string(text), "token_file: the token in "+c.TokenFile
	case c.Token.IsZero():
		return masked.Text{}, usageError{errors.New("a token is needed: run apikeys login, or set APIKEYS_TOKEN or APIKEYS_TOKEN_FILE")}
	}
	return checkToken(token, origin)
}

// checkToken returns a token without the white space around it; origin says in an
// error where it is from.
func checkToken(token, origin string) (masked.Text, error) {
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

// parseServer returns the host:port of a server and whether it is reached with TLS,
// which secure asks for.
func parseServer(text string, secure bool) (address string, _ bool, err error) {
	return client.ParseAddress(text, secure)
}

// isLoopback reports whether a host is this machine.
func isLoopback(host string) bool { return client.IsLoopback(host) }

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
