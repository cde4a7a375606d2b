package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// The defaults of [Options].
const (
	DefaultTimeout  = 2 * time.Second
	DefaultAttempts = 3
)

// Options say how a server is called. Only Token is required.
type Options struct {
	// Token is what the calls are made with. To verify, an API key with the scope
	// api_keys.verify and nothing else is best: whoever steals it can ask about keys, and
	// make or change none.
	Token string
	// Organization is the organization to act in, for tokens of operators; * stands for
	// all. Empty means the token's own.
	Organization string
	// TLS is the configuration of TLS. Nil means the authorities of the system. With one,
	// TLS is used on loopback too.
	TLS *tls.Config
	// Credentials replace TLS and what the address says of it.
	Credentials credentials.TransportCredentials
	// Timeout is how long a verification may take, with all of its attempts. Zero means
	// DefaultTimeout.
	Timeout time.Duration
	// Attempts is how often a verification is tried, in all, while the server cannot be
	// reached or says that it cannot answer now. Zero means DefaultAttempts; 1 means that
	// nothing is tried again.
	Attempts int
	// UserAgent is what the server's log shows of this program. Empty means apikeys-go.
	UserAgent string
	// DialOptions are passed to gRPC, after those of this package.
	DialOptions []grpc.DialOption
}

// Client calls one server. It is safe for use by many goroutines, and connects with the
// first call.
type Client struct {
	target   string
	conn     *grpc.ClientConn
	keys     apikeysv1.ApiKeysServiceClient
	dial     func() (*grpc.ClientConn, error)
	timeout  time.Duration
	attempts int

	// What tests replace.
	now    func() time.Time
	random func() float64
	wait   func(context.Context, time.Duration)
}

// New returns a client of the server at address, which is host:port or a URL, as
// [ParseAddress] takes it: TLS is used unless the host is this machine or the URL begins
// with grpc://.
func New(address string, o Options) (*Client, error) {
	target, secure, err := ParseAddress(address, o.TLS != nil)
	if err != nil {
		return nil, fmt.Errorf("address %w", err)
	}
	call, err := newCallCredentials(o.Token, o.Organization)
	if err != nil {
		return nil, err
	}
	switch {
	case o.Timeout < 0:
		return nil, errors.New("timeout must not be negative")
	case o.Attempts < 0 || o.Attempts > 10:
		return nil, errors.New("attempts must be 1 to 10, or 0 for the default")
	}
	transport := o.Credentials
	switch {
	case transport != nil:
	case secure:
		config := o.TLS.Clone()
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		transport = credentials.NewTLS(config)
	default:
		transport = insecure.NewCredentials()
	}
	agent := o.UserAgent
	if agent == "" {
		agent = "apikeys-go"
	}
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(call),
		grpc.WithUserAgent(agent),
		// A page of events can be large, and the server is one that was chosen.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		// A server that has gone without a word is found out in half a minute.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		// One that comes back is found again within seconds.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: 5 * time.Second}),
	}, o.DialOptions...)
	c := &Client{
		target:   target,
		timeout:  orDefault(o.Timeout, DefaultTimeout),
		attempts: orDefault(o.Attempts, DefaultAttempts),
		dial: func() (*grpc.ClientConn, error) {
			conn, err := grpc.NewClient("dns:///"+target, options...)
			if err != nil {
				return nil, fmt.Errorf("connect to %s: %w", target, err)
			}
			return conn, nil
		},
		now: time.Now, random: rand.Float64, wait: wait,
	}
	if c.conn, err = c.dial(); err != nil {
		return nil, err
	}
	c.keys = apikeysv1.NewApiKeysServiceClient(c.conn)
	return c, nil
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Conn is the connection, for calls of the services of package apikeysv1. They are made
// with the client's token.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Target returns the server's address, host:port.
func (c *Client) Target() string { return c.target }

// Close closes the connection. Calls that are under way fail.
func (c *Client) Close() error { return c.conn.Close() }

// callCredentials are the metadata of every call. The address decides about TLS, not
// they: without it the token is sent on loopback, or where that was asked for.
type callCredentials struct {
	token        masked.Text
	organization string
}

var _ credentials.PerRPCCredentials = (*callCredentials)(nil)

func newCallCredentials(token, organization string) (*callCredentials, error) {
	token = strings.TrimSpace(token)
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return nil, errors.New("token must be one word of printable ASCII")
		}
	}
	if token == "" {
		return nil, errors.New("token is empty; give the secret of an API key with the scope api_keys.verify")
	}
	for _, c := range []byte(organization) {
		if c <= ' ' || c > '~' {
			return nil, errors.New("organization must be one word of printable ASCII")
		}
	}
	return &callCredentials{masked.New(token), organization}, nil
}

// GetRequestMetadata returns what proves who calls. What the context of a call brings of
// its own comes first.
func (c *callCredentials) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	own, _ := metadata.FromOutgoingContext(ctx)
	m := make(map[string]string, 2)
	if len(own.Get("authorization")) == 0 {
		m["authorization"] = "Bearer " + c.token.Reveal()
	}
	if c.organization != "" && len(own.Get("x-organization-id")) == 0 {
		m["x-organization-id"] = c.organization
	}
	return m, nil
}

// RequireTransportSecurity is false: [ParseAddress] decides about it.
func (c *callCredentials) RequireTransportSecurity() bool { return false }
