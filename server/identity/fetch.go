package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// fetchTimeout bounds a fetch of keys, the discovery of their place included.
const fetchTimeout = 5 * time.Second

// maxRedirects is how many times an issuer may send a fetch to another path of its own.
const maxRedirects = 3

// newClient returns the client that keys are fetched with: it takes what is bounded in
// time and size, and is sent to no other host.
func newClient() *http.Client {
	return &http.Client{
		Timeout: fetchTimeout,
		Transport: bounded{&http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: fetchTimeout}).DialContext,
			TLSHandshakeTimeout:    fetchTimeout,
			ResponseHeaderTimeout:  fetchTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			// Keys are fetched so seldom that a connection would only stand idle.
			DisableKeepAlives: true,
			ForceAttemptHTTP2: true,
		}},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			first := via[0].URL
			if len(via) > maxRedirects || req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
				return errors.New("the issuer redirects to another place")
			}
			return nil
		},
	}
}

// bounded is a transport whose answers end with an error where they are too large.
type bounded struct{ next http.RoundTripper }

// RoundTrip sends a request.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxKeySet}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

// Read reads up to the bound.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", maxKeySet)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// discover returns where the keys of an issuer are.
func discover(ctx context.Context, client *http.Client, issuer string) (string, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), issuer)
	if err != nil {
		return "", fmt.Errorf("discover the issuer: %w", brief(err))
	}
	var document struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&document); err != nil {
		return "", fmt.Errorf("discover the issuer: %w", brief(err))
	}
	keys, err := url.Parse(document.Keys)
	if err != nil || keys.Hostname() == "" || keys.User != nil {
		return "", fmt.Errorf("discover the issuer: its jwks_uri is no URL: %q", apikey.Excerpt(document.Keys))
	}
	// An issuer on this machine, whose URL is http, has its keys there too.
	local := strings.HasPrefix(issuer, "http://") && keys.Scheme == "http" && onLoopback(keys.Hostname())
	if keys.Scheme != "https" && !local {
		return "", fmt.Errorf("discover the issuer: its jwks_uri does not begin with https://: %q", apikey.Excerpt(document.Keys))
	}
	return document.Keys, nil
}

// fetchKeySet fetches the keys of an issuer from their place.
func fetchKeySet(ctx context.Context, client *http.Client, place string) (*keySet, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch the keys: %w", brief(err))
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch the keys: %w", brief(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch the keys: the issuer answers %d", resp.StatusCode)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("fetch the keys: %w", brief(err))
	}
	set, err := parseKeySet(text)
	if err != nil {
		return nil, fmt.Errorf("fetch the keys: the answer %w", err)
	}
	return set, nil
}

// maxCause is how many bytes of an error a line of the log repeats, which may hold what
// an issuer has sent.
const maxCause = 300

// brief returns err, cut where it is long.
func brief(err error) error {
	text := strings.ToValidUTF8(err.Error(), "?")
	if len(text) <= maxCause {
		return err
	}
	return errors.New(strings.ToValidUTF8(text[:maxCause], "") + "...")
}
