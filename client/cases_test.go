package client

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

var update = flag.Bool("update", false, "write testdata/cases.json anew")

// cases are what the clients in all languages must agree about. The file is made from
// the rules of package apikey, and the tests of the other clients read it.
type cases struct {
	// Refusals are what a holder is told, by code.
	Refusals []refusalCase `json:"refusals"`
	// Credentials are the key that a request carries.
	Credentials []credentialCase `json:"credentials"`
	// Addresses are where a request comes from. 10.0.0.0/8 and 2001:db8:1::/48 are
	// trusted.
	Addresses []addressCase `json:"addresses"`
	// Limits are the headers that tell of limits.
	Limits []limitCase `json:"limits"`
}

type refusalCase struct {
	Code      string   `json:"code"`
	Scopes    []string `json:"scopes"`
	Held      []string `json:"held"`
	Limit     int      `json:"limit"`
	Quota     int64    `json:"quota"`
	Status    int      `json:"status"`
	Reason    string   `json:"reason"`
	Message   string   `json:"message"`
	Challenge string   `json:"challenge"`
}

type credentialCase struct {
	Authorization []string `json:"authorization"`
	APIKey        []string `json:"x_api_key"`
	Key           string   `json:"key"`
	Challenge     string   `json:"challenge"`
}

type addressCase struct {
	Peer         string   `json:"peer"`
	ForwardedFor []string `json:"forwarded_for"`
	Address      string   `json:"address"`
}

type limitCase struct {
	RateLimit *limitStatus      `json:"rate_limit"`
	Window    int               `json:"window_seconds"`
	Quota     *limitStatus      `json:"quota"`
	Refill    string            `json:"refill"`
	Headers   map[string]string `json:"headers"`
}

// limitStatus is what is left; seconds until it is whole again, below zero for never.
type limitStatus struct {
	Limit     int64 `json:"limit"`
	Remaining int64 `json:"remaining"`
	Seconds   int64 `json:"seconds"`
}

func (c *refusalCase) fill() {
	v := &apikey.Verification{Code: apikey.Code(c.Code)}
	if c.Held != nil {
		v.Key = &apikey.Key{Scopes: c.Held}
	}
	v.Limit.Limit, v.Quota.Limit = c.Limit, c.Quota
	refusal := v.Refusal(c.Scopes)
	c.Status, c.Reason, c.Message, c.Challenge = refusal.Kind.HTTPStatus(), string(refusal.Reason), refusal.Message, refusal.Challenge("api", c.Scopes)
}

func (c *credentialCase) fill() {
	values := map[string][]string{"Authorization": c.Authorization, "X-API-Key": c.APIKey}
	key, err := keyOf(defaultHeaders, func(name string) []string { return values[name] })
	if c.Key = key; err != nil {
		c.Challenge = withoutKey(err).Challenge("api")
	}
}

func (c *addressCase) fill() {
	var peer netip.Addr
	if c.Peer != "" {
		peer = netip.MustParseAddr(c.Peer)
	}
	addr := apikey.ClientAddress(peer, c.ForwardedFor, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")})
	if c.Address = ""; addr.IsValid() {
		c.Address = addr.String()
	}
}

func (c *limitCase) fill() {
	now := time.Unix(0, 0)
	v := &apikey.Verification{Key: &apikey.Key{}, At: now}
	v.Key.RateLimit.WindowSeconds = c.Window
	if c.Refill == "daily" {
		v.Key.Quota.Refill = apikey.RefillDaily
	}
	if l := c.RateLimit; l != nil {
		v.Limit = apikey.LimitStatus{Limit: int(l.Limit), Remaining: int(l.Remaining), ResetAt: now.Add(time.Duration(l.Seconds) * time.Second)}
	}
	if q := c.Quota; q != nil {
		v.Quota = apikey.QuotaStatus{Limit: q.Limit, Remaining: q.Remaining}
		if q.Seconds >= 0 {
			v.Quota.RefillAt = now.Add(time.Duration(q.Seconds) * time.Second)
		}
	}
	header := make(http.Header)
	(&Verification{limits: v.LimitFields()}).setFields(header)
	c.Headers = make(map[string]string)
	for name := range header {
		c.Headers[strings.ToLower(name)] = header.Get(name)
	}
}

func newCases() *cases {
	long := strings.Repeat("a", apikey.MaxSecretLength)
	c := &cases{
		Refusals: []refusalCase{
			{Code: "malformed"},
			{Code: "not_found"},
			{Code: "revoked"},
			{Code: "disabled"},
			{Code: "expired"},
			{Code: "a_code_of_later"},
			{Code: ""},
			{Code: "ip_not_allowed"},
			{Code: "insufficient_scope", Scopes: []string{"products.read"}, Held: []string{"invoices.read"}},
			{Code: "insufficient_scope", Scopes: []string{"products.read", "products.update", "invoices.read"}, Held: []string{"invoices.read"}},
			{Code: "insufficient_scope", Scopes: []string{`odd"scope\`}, Held: []string{}},
			{Code: "rate_limited", Limit: 100},
			{Code: "quota_exceeded", Quota: 1_000_000},
		},
		Credentials: []credentialCase{
			{Authorization: []string{"Bearer abc"}},
			{Authorization: []string{"bEARER   abc "}},
			{Authorization: []string{"abc"}},
			{Authorization: []string{"Bearer"}},
			{Authorization: []string{"Bearer "}},
			{Authorization: []string{"Bearer abc", "abc"}, APIKey: []string{"abc"}},
			{Authorization: []string{"Bearer abc"}, APIKey: []string{"abd"}},
			{Authorization: []string{"abc", "abd"}},
			{Authorization: []string{""}, APIKey: []string{"abc"}},
			{APIKey: []string{"abc"}},
			{APIKey: []string{"abc", "abd"}},
			{APIKey: []string{" abc\t"}},
			{APIKey: []string{" "}},
			{},
			{Authorization: []string{"Bearer secret-token:abc"}},
			{APIKey: []string{"Secret-Token:abc"}},
			{APIKey: []string{"secret-token:"}},
			{Authorization: []string{"Basic YWJj"}},
			{Authorization: []string{"Basic YWJj"}, APIKey: []string{"abc"}},
			{APIKey: []string{long}},
			{APIKey: []string{long + "a"}},
		},
		Addresses: []addressCase{
			{Peer: "192.0.2.1", ForwardedFor: []string{"198.51.100.9"}},
			{Peer: "::ffff:192.0.2.1"},
			{Peer: "fe80::1%eth0"},
			{Peer: ""},
			{Peer: "", ForwardedFor: []string{"198.51.100.9"}},
			{Peer: "10.0.0.1"},
			{Peer: "::ffff:10.0.0.1", ForwardedFor: []string{"198.51.100.9"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"203.0.113.5, 198.51.100.9, 10.0.0.2"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"203.0.113.5", "198.51.100.9", "10.0.0.2,10.0.0.3"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"10.0.0.9, 10.0.0.2"}},
			{Peer: "2001:db8:1::1", ForwardedFor: []string{"2001:db8:2::7"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"198.51.100.9, junk"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"junk, 198.51.100.9"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{", 198.51.100.9 ,\t, ,10.0.0.2", "", ","}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"198.51.100.9:443"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"[2001:db8::1]:443"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"[::ffff:198.51.100.9]:443"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"2001:db8::1:443"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"198.51.100.9:65536"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"198.51.100.9:"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"[2001:db8::1]"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"[198.51.100.9]:443"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"198.51.100.09"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"1.2.3"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"0x7f.1"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"fe80::1%eth0"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"198.51.100.9\u00a0"}},
			{Peer: "10.0.0.1", ForwardedFor: []string{"2001:DB8:0:0:0:0:0:1"}},
		},
		Limits: []limitCase{
			{},
			{RateLimit: &limitStatus{100, 40, 24}, Window: 60},
			{Quota: &limitStatus{1000, 0, -1}, Refill: "none"},
			{Quota: &limitStatus{1000, 10, 7200}, Refill: "daily"},
			{Quota: &limitStatus{1000, 10, 86400}, Refill: "monthly"},
			{RateLimit: &limitStatus{5, 5, 0}, Window: 1, Quota: &limitStatus{1000, 10, -1}, Refill: "none"},
		},
	}
	for i := range c.Refusals {
		c.Refusals[i].fill()
	}
	for i := range c.Credentials {
		c.Credentials[i].fill()
	}
	for i := range c.Addresses {
		c.Addresses[i].fill()
	}
	for i := range c.Limits {
		c.Limits[i].fill()
	}
	return c
}

// TestCases holds the file of cases against the rules.
func TestCases(t *testing.T) {
	t.Parallel()
	c := newCases()
	if !slices.ContainsFunc(c.Refusals, func(r refusalCase) bool { return r.Status == http.StatusTooManyRequests }) {
		t.Error("no refusal is one of a limit")
	}
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(c); err != nil {
		t.Fatal(err)
	}
	const file = "testdata/cases.json"
	if *update {
		if err := os.WriteFile(file, want.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("%s is not what the rules say; write it anew by: go test ./client -run TestCases -update\n%s", file, diff)
	}
}
