package deliver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// The bounds of what is taken from an endpoint.
const (
	maxResponseHeader = 64 << 10
	maxResponseBody   = 64 << 10
	connectTimeout    = 10 * time.Second
)

// ClientConfig is what a client can be told. Its zero value is good.
type ClientConfig struct {
	// Guard says where the client may call.
	Guard webhook.Guard
	// Timeout bounds an attempt as a whole, from the look-up of the name to the
	// end of the answer's body. Zero means 30 seconds.
	Timeout time.Duration
	// IdlePerHost is how many connections to one host are kept for the next
	// deliveries. Zero means 64, which is what may be under way to one host.
	IdlePerHost int
	// RootCAs are the authorities that are trusted. Nil means the system's.
	RootCAs *x509.CertPool
	// Resolver looks names up. Nil means net.DefaultResolver.
	Resolver *net.Resolver
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Client posts deliveries to endpoints that it does not trust. It follows no
// redirect, uses no proxy, keeps no cookies and decompresses nothing. One client
// is for all webhooks, and its methods can be called at the same time.
type Client struct {
	guard     webhook.Guard
	timeout   time.Duration
	now       func() time.Time
	transport *http.Transport
}

// NewClient returns a client.
func NewClient(c ClientConfig) *Client {
	if c.Now == nil {
		c.Now = time.Now
	}
	dialer := &net.Dialer{Timeout: connectTimeout, Control: c.Guard.Control, Resolver: c.Resolver}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &countingConn{Conn: conn}, nil
	}
	// HTTP/1.1 alone: no state that an endpoint could grow, and a connection that
	// is ended in the middle of an answer was nobody else's.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &Client{
		guard:   c.Guard,
		timeout: cmp.Or(c.Timeout, 30*time.Second),
		now:     c.Now,
		transport: &http.Transport{
			Proxy:                  nil, // of the environment, above all
			DialContext:            dial,
			Protocols:              protocols,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs, ClientSessionCache: tls.NewLRUClientSessionCache(1024)},
			TLSHandshakeTimeout:    connectTimeout,
			DisableCompression:     true,
			MaxIdleConns:           1024,
			MaxIdleConnsPerHost:    cmp.Or(c.IdlePerHost, 64),
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxResponseHeader,
		},
	}
}

// Close closes the connections that no attempt uses.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Send makes one attempt: it posts body to the url that text is and returns what
// came of it. The body of the Outcome is what was read of the answer, up to 64 KiB. A
// failure of the endpoint is an Outcome; an error means that ctx ended first,
// which is no fault of the endpoint and is not to be counted.
func (c *Client) Send(ctx context.Context, text string, header http.Header, body []byte) (webhook.Outcome, error) {
	target, err := c.guard.URL(text)
	if err != nil {
		// It was allowed once, under another configuration.
		return webhook.Outcome{Failure: webhook.Failure{Class: webhook.ClassBlockedAddress, Message: "The webhook's url " + err.Error() + "."}}, ctx.Err()
	}
	attempt, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	response, err := c.post(attempt, target, header, body)
	var o webhook.Outcome
	if err == nil {
		err = c.read(&o, response)
	}
	if ctx.Err() != nil && err != nil {
		return webhook.Outcome{}, ctx.Err()
	}
	if err != nil {
		o.Failure = failureOf(err)
	}
	return o, nil
}

// post makes the request of an attempt. One attempt is one request: an endpoint
// that takes a request and ends the connection has had its attempt. It is repeated
// once at most, where a connection that was kept turns out to be closed before
// anything of the request was written to it.
func (c *Client) post(ctx context.Context, target *url.URL, header http.Header, body []byte) (*http.Response, error) {
	var kept *countingConn // the connection that the latest try was given, if it had been used before
	var before int64
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		kept = nil
		conn := info.Conn
		if over, ok := conn.(*tls.Conn); ok {
			conn = over.NetConn()
		}
		if counting, ok := conn.(*countingConn); ok && info.Reused {
			kept, before = counting, counting.written.Load()
		}
	}})
	r := &http.Request{
		Method: http.MethodPost, URL: target, Host: target.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)),
	}
	for again := false; ; again = true {
		// Without GetBody the transport repeats nothing by itself, whatever headers
		// say that the request may be repeated.
		if r.Body = http.NoBody; len(body) > 0 {
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		// Not an http.Client: it would add redirects and cookies.
		response, err := c.transport.RoundTrip(r.WithContext(ctx))
		if err == nil || again || kept == nil || kept.written.Load() != before || ctx.Err() != nil {
			return response, err
		}
	}
}

// countingConn is a connection that counts the bytes written to it.
type countingConn struct {
	net.Conn
	written atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// read takes the answer, as much of it as is wanted: 64 KiB of its body. A body that
// is longer is cut off, and the answer counts; one that breaks before is an error.
func (c *Client) read(o *webhook.Outcome, response *http.Response) error {
	defer response.Body.Close()
	o.Status = response.StatusCode
	o.Failure = statusFailure(o.Status)
	if !o.Acknowledged() {
		o.RetryAfter = webhook.ParseRetryAfter(response.Header.Get("Retry-After"), c.now())
	}
	if o.Status == http.StatusSwitchingProtocols || response.ContentLength == 0 {
		return nil // What follows a 101 is no body, and has no end.
	}
	var err error
	o.Body, err = io.ReadAll(io.LimitReader(response.Body, maxResponseBody))
	// An answer that is a failure already stays that one, however it ended.
	if !o.Acknowledged() {
		return nil
	}
	return err
}
