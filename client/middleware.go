package client

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The headers in which a request carries its key, unless a setting says otherwise.
var defaultHeaders = []string{"Authorization", "X-API-Key"}

// DefaultRealm is what WWW-Authenticate calls a service that has no name.
const DefaultRealm = "api"

// Middleware lets requests through to a net/http handler whose keys are good. Only
// Client is required. It must not be changed once [Middleware.Require] was called.
//
// A request without a good key is answered, before anything of its body is read, with
// the JSON object {"status", "error", "reason"} and
//
//   - 401 and WWW-Authenticate, in the same words for every key that is not good,
//   - 403 where the key may not do this, or not from this address,
//   - 429 where it is over a limit, with Retry-After where there is a time,
//   - 503 with Retry-After where the server is out of reach: no answer is no permission.
//
// RateLimit, RateLimit-Policy and X-RateLimit-* tell of the limits of the key, where it
// has any, on every answer but those.
type Middleware struct {
	// Client asks the server.
	Client *Client
	// Headers are where a request carries its key. In Authorization the key follows
	// Bearer or stands alone; in every other header it stands alone. Two keys that differ
	// are 401. Empty means Authorization and X-API-Key. A key is never read from the URL,
	// which ends in logs.
	Headers []string
	// TrustedProxies are the addresses of your own proxies. The client's address is the
	// connection's or, where that is one of these, the right-most entry of
	// X-Forwarded-For that is not one. Empty means the connection's.
	TrustedProxies []netip.Prefix
	// ClientAddress replaces TrustedProxies. The zero Addr is unknown, and refused by
	// every key that has an ip_allow_list.
	ClientAddress func(*http.Request) netip.Addr
	// Cost is what a request costs of the key's limits. Nil means 1.
	Cost func(*http.Request) int32
	// Realm names the service in WWW-Authenticate. Empty means DefaultRealm.
	Realm string
	// Logger hears why a key could not be verified. Nil means slog.Default().
	Logger *slog.Logger
	// Refuse writes the body of a refusal in place of the JSON object, after all headers
	// but Content-Type have been set. err is a [*RefusedError] or an [*UnverifiedError].
	Refuse func(w http.ResponseWriter, r *http.Request, status int, err error)
}

// Require returns the middleware for handlers that need all of scopes. [FromContext]
// tells such a handler of the key.
func (m Middleware) Require(scopes ...string) func(http.Handler) http.Handler {
	if m.Client == nil {
		panic("client.Middleware needs a Client")
	}
	if len(m.Headers) == 0 {
		m.Headers = defaultHeaders
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v, err := m.verify(r, scopes)
			if err != nil {
				m.refuse(w, r, scopes, err)
				return
			}
			v.setFields(w.Header())
			next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), v)))
		})
	}
}

// verify asks about the key of a request.
func (m *Middleware) verify(r *http.Request, scopes []string) (*Verification, error) {
	key, err := keyOf(m.Headers, func(name string) []string { return r.Header.Values(name) })
	if err != nil {
		return nil, withoutKey(err)
	}
	q := Request{Key: key, Scopes: scopes, UserAgent: r.UserAgent()}
	if m.Cost != nil {
		cost := m.Cost(r)
		q.Cost = &cost
	}
	if m.ClientAddress != nil {
		q.Address = m.ClientAddress(r)
	} else if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		q.Address = apikey.ClientAddress(peer.Addr(), r.Header.Values("X-Forwarded-For"), m.TrustedProxies)
	}
	return m.Client.Verify(r.Context(), q)
}

// keyOf returns the one key that the headers of a request hold.
func keyOf(names []string, values func(name string) []string) (string, error) {
	var shown apikey.Credential
	for _, name := range names {
		if strings.EqualFold(name, "Authorization") {
			shown.AddAuthorization(values(name))
		} else {
			shown.Add(values(name))
		}
	}
	key, err := shown.Text()
	if errors.Is(err, apikey.ErrNoCredential) {
		err = apikey.ErrNoKey
	}
	return key, err
}

// refuse answers a request that is not let through.
func (m *Middleware) refuse(w http.ResponseWriter, r *http.Request, scopes []string, err error) {
	status, message, reason := http.StatusServiceUnavailable, unavailable, string(apikey.ReasonUnavailable)
	header := w.Header()
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		status, message, reason = refused.Status, refused.Message, refused.Reason
		refused.Verification.setFields(header)
		if challenge := refused.Challenge(orDefault(m.Realm, DefaultRealm), scopes...); challenge != "" {
			header.Set("WWW-Authenticate", challenge)
		}
		if wait := apikey.WholeSeconds(refused.RetryAfter); wait > 0 {
			header.Set("Retry-After", strconv.FormatInt(wait, 10))
		}
	} else {
		wait := time.Second
		if failed, ok := errors.AsType[*UnverifiedError](err); ok {
			wait = max(wait, failed.RetryAfter)
		}
		header.Set("Retry-After", strconv.FormatInt(apikey.WholeSeconds(wait), 10))
		if r.Context().Err() == nil { // Else the client has gone, and nobody is to mend it.
			orDefault(m.Logger, slog.Default()).WarnContext(r.Context(), "A key could not be verified; the request is refused.", "error", err)
		}
	}
	header.Set("Cache-Control", "no-store")
	if m.Refuse != nil {
		m.Refuse(w, r, status, err)
		return
	}
	header.Set("Content-Type", "application/json")
	body, _ := json.Marshal(refusalBody{status, message, reason})
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// refusalBody is what a refused client reads.
type refusalBody struct {
	Status int    `json:"status"`
	Error  string `json:"error"`
	Reason string `json:"reason"`
}

// setFields tells of the limits of the key.
func (v *Verification) setFields(header http.Header) {
	l := &v.limits
	if l.Limit == "" {
		return
	}
	header.Set("RateLimit", l.RateLimit)
	header.Set("RateLimit-Policy", l.Policy)
	header.Set("X-RateLimit-Limit", l.Limit)
	header.Set("X-RateLimit-Remaining", l.Remaining)
	if l.Reset != "" {
		header.Set("X-RateLimit-Reset", l.Reset)
	}
}
