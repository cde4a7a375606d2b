// Package device gets a person's access token from an OpenID Connect issuer with the
// device authorization grant (RFC 8628): the person opens a page, types a code there,
// and logs in; the program asks the issuer until that is done. So the program needs
// neither a browser nor a password.
//
// The endpoints are those that the issuer's discovery document names, which must name
// the issuer itself. Everything goes over TLS, but for an issuer on this machine.
package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Config is which issuer to ask for what.
type Config struct {
	// Issuer is the issuer's URL, to the letter as it calls itself.
	Issuer string
	// ClientID is the name that the issuer knows this program under.
	ClientID string
	// Scopes are asked for; offline_access among them gets a refresh token.
	Scopes []string
	// Audience is the API that the token is to be for, where the issuer wants to know.
	Audience string
	// HTTP makes the calls; nil means one with a timeout.
	HTTP *http.Client
}

// A Prompt is what the person has to do.
type Prompt struct {
	// URL is the page to open, and Code what to type there.
	URL, Code string
	// Complete is the page with the code in it; empty where there is none.
	Complete string
	// Until is when the code ends.
	Until time.Time
}

// maxDocument is how many bytes of an issuer's answer are read.
const maxDocument = 1 << 20

// longestLogin is how long a code is good for whose issuer does not say.
const longestLogin = 30 * time.Minute

// Login gets a token. It calls show once, with what the person has to do, and returns
// when that is done, refused, or too late.
func (c Config) Login(ctx context.Context, show func(Prompt) error) (*oauth2.Token, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, c.client())
	config, err := c.discover(ctx)
	if err != nil {
		return nil, err
	}
	if config.Endpoint.DeviceAuthURL == "" {
		return nil, fmt.Errorf("the issuer %s offers no device login; make an access token some other way and give it to apikeys login", c.Issuer)
	}
	var options []oauth2.AuthCodeOption
	if c.Audience != "" {
		options = append(options, oauth2.SetAuthURLParam("audience", c.Audience))
	}
	answer, err := config.DeviceAuth(ctx, options...)
	if err != nil {
		return nil, explain("begin the login", err)
	}
	if answer.Expiry.IsZero() {
		answer.Expiry = time.Now().Add(longestLogin)
	}
	if err := checkPage(answer.VerificationURI); err != nil {
		return nil, err
	}
	prompt := Prompt{URL: answer.VerificationURI, Code: answer.UserCode, Until: answer.Expiry}
	if checkPage(answer.VerificationURIComplete) == nil {
		prompt.Complete = answer.VerificationURIComplete
	}
	if err := show(prompt); err != nil {
		return nil, err
	}
	for {
		token, err := config.DeviceAccessToken(ctx, answer, options...)
		var network *url.Error
		switch {
		case err == nil:
			return token, nil
		case errors.Is(err, context.DeadlineExceeded) && !time.Now().Before(answer.Expiry):
			return nil, errors.New("the code has ended before it was used; run the login again")
		case ctx.Err() != nil:
			return nil, errors.New("interrupted")
		case errors.As(err, &network):
			continue // A call that got no answer is made again after the interval.
		}
		return nil, explain("log in", err)
	}
}

// Refresh gets another token for a refresh token. The answer may have another refresh
// token, in whose place the old one is then.
func (c Config) Refresh(ctx context.Context, refreshToken string) (*oauth2.Token, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, c.client())
	config, err := c.discover(ctx)
	if err != nil {
		return nil, err
	}
	token, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: refreshToken}).Token()
	if err != nil {
		return nil, explain("renew the access token", err)
	}
	return token, nil
}

func (c Config) client() *http.Client {
	client := http.Client{Timeout: 30 * time.Second}
	if c.HTTP != nil {
		client = *c.HTTP
	}
	// A code or a refresh token is for the endpoint that the issuer named alone.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// discover reads the issuer's endpoints.
func (c Config) discover(ctx context.Context) (*oauth2.Config, error) {
	if err := checkURL(c.Issuer); err != nil {
		return nil, fmt.Errorf("the issuer %w", err)
	}
	where := strings.TrimSuffix(c.Issuer, "/") + "/.well-known/openid-configuration"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.client().Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the issuer: %w", err)
	}
	defer resp.Body.Close()
	var document struct {
		Issuer string `json:"issuer"`
		Device string `json:"device_authorization_endpoint"`
		Token  string `json:"token_endpoint"`
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the issuer: %s answers %s; is that an OpenID Connect issuer?", where, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDocument)).Decode(&document); err != nil {
		return nil, fmt.Errorf("ask the issuer: %s is no discovery document", where)
	}
	if document.Issuer != c.Issuer {
		return nil, fmt.Errorf("the issuer calls itself %.200q; give it as --issuer, to the letter", document.Issuer)
	}
	for name, endpoint := range map[string]string{"token_endpoint": document.Token, "device_authorization_endpoint": document.Device} {
		if endpoint == "" && name == "device_authorization_endpoint" {
			continue
		}
		if err := checkURL(endpoint); err != nil {
			return nil, fmt.Errorf("the issuer's %s %w", name, err)
		}
	}
	return &oauth2.Config{
		ClientID: c.ClientID, Scopes: c.Scopes,
		Endpoint: oauth2.Endpoint{TokenURL: document.Token, DeviceAuthURL: document.Device, AuthStyle: oauth2.AuthStyleInParams},
	}, nil
}

// checkURL says whether what is secret may be sent to a URL.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("must be a URL such as https://login.example.com")
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return errors.New("must begin with https://, unless it is on this machine")
}

// checkPage says whether a person may be sent to a page.
func checkPage(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("the issuer names no page to log in at")
	}
	return nil
}

func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

// explain keeps of an error what a person can act on. What an issuer answers can hold
// codes and tokens, and is left out but for its words.
func explain(doing string, err error) error {
	var answered *oauth2.RetrieveError
	var network net.Error
	switch {
	case errors.As(err, &answered):
		switch answered.ErrorCode {
		case "access_denied":
			return errors.New("the login was refused")
		case "expired_token":
			return errors.New("the code has ended before it was used; run the login again")
		case "invalid_grant":
			return fmt.Errorf("%s: the issuer takes the grant no more (invalid_grant); run apikeys login again", doing)
		case "":
			return fmt.Errorf("%s: the issuer answers %s", doing, answered.Response.Status)
		}
		return fmt.Errorf("%s: the issuer answers %.100q: %.200q", doing, answered.ErrorCode, answered.ErrorDescription)
	case errors.As(err, &network):
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: the issuer's answer has no token", doing)
}
