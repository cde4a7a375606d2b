package deliver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// The bounds of what is taken from an endpoint.
const (
	maxResponseHeader = 64 << 10
	maxResponseBody   = 64 << 10 // read
	keptResponseBody  = 16 << 10 // and kept of it
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
	// deliveries. Zero means 256: many webhooks may be of one host.
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
			DialContext:            dialer.DialContext,
			Protocols:              protocols,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs, ClientSessionCache: tls.NewLRUClientSessionCache(1024)},
			TLSHandshakeTimeout:    connectTimeout,
			DisableCompression:     true,
			MaxIdleConns:           1024,
			MaxIdleConnsPerHost:    cmp.Or(c.IdlePerHost, 256),
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxResponseHeader,
		},
	}
}

// Close closes the connections that no attempt uses.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Send makes one attempt: it posts body to url and returns what came of it. A
// failure of the endpoint is an Outcome; an error means that ctx ended first,
// which is no fault of the endpoint and is not to be counted.
func (c *Client) Send(ctx context.Context, url string, header http.Header, body []byte) (webhook.Outcome, error) {
	target, err := c.guard.URL(url)
	if err != nil {
		// It was allowed once, under another configuration.
		return webhook.Outcome{Failure: webhook.Failure{Class: webhook.ClassBlockedAddress, Message: "The webhook's url " + err.Error() + "."}}, ctx.Err()
	}
	attempt, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(attempt, http.MethodPost, "https://invalid.", bytes.NewReader(body))
	if err != nil {
		return webhook.Outcome{}, err
	}
	r.URL, r.Host, r.Header = target, target.Host, header.Clone()
	if _, own := r.Header["X-Idempotency-Key"]; !own {
		// On a connection that the endpoint closed while it was idle, the transport
		// then starts over on another instead of failing. Without a value the
		// header is not sent.
		r.Header["X-Idempotency-Key"] = nil
	}

	// Not an http.Client: it would add redirects and cookies.
	response, err := c.transport.RoundTrip(r)
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

// read takes the answer, as much of it as is wanted. A body that is longer is
// cut off, and the answer counts; one that breaks before is an error.
func (c *Client) read(o *webhook.Outcome, response *http.Response) error {
	defer response.Body.Close()
	o.Status = response.StatusCode
	o.RetryAfter = webhook.ParseRetryAfter(response.Header.Get("Retry-After"), c.now())
	o.Failure = statusFailure(o.Status)
	if o.Status == http.StatusSwitchingProtocols {
		return nil // what follows is no body, and has no end
	}
	var kept bytes.Buffer
	rest := io.LimitedReader{R: response.Body, N: maxResponseBody}
	_, err := io.CopyN(&kept, &rest, keptResponseBody)
	if err == nil {
		_, err = io.Copy(io.Discard, &rest)
	}
	o.Body = kept.Bytes()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	// An answer that is a failure already stays that one, however it ended.
	if !o.Acknowledged() {
		return nil
	}
	return err
}
