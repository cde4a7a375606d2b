package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// withGate has a server serve gateways of this machine.
func withGate(c *server.Config) {
	c.GateAddr = "127.0.0.1:0"
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// gateRequest is what a gateway asks about a request.
type gateRequest struct {
	query   string   // of the endpoint; over ext_authz the context extensions
	method  string   // of the request; default: GET
	uri     string   // of the request; default: /products
	headers []string // of the request, "Name: value" each
	from    string   // the address of its client; default: none is told
}

// gateAnswer is what a gateway is told.
type gateAnswer struct {
	status int
	header http.Header // with the names of headers that are to be removed, and no value
	body   string
}

// gateWays are the protocols that gateways speak, each with how it asks.
var gateWays = map[string]func(*testing.T, *servertest.Server, gateRequest) gateAnswer{
	"forward_auth":               askForwardAuth,
	"ext_authz":                  askExtAuthz,
	"ext_authz with raw headers": askExtAuthzRaw,
}

func askForwardAuth(t *testing.T, s *servertest.Server, q gateRequest) gateAnswer {
	t.Helper()
	url := s.Gate + "/forward_auth"
	if q.query != "" {
		url += "?" + q.query
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range q.headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	req.Header.Set("X-Forwarded-Method", q.method)
	req.Header.Set("X-Forwarded-Uri", q.uri)
	if q.from != "" {
		req.Header.Add("X-Forwarded-For", q.from)
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return gateAnswer{resp.StatusCode, resp.Header, string(body)}
}

// gateKeys are the keys that the cases of gates use, by their names.
func gateKeys(t *testing.T, s *servertest.Server) map[string]*apikeysv1.ApiKey {
	t.Helper()
	keys := make(map[string]*apikeysv1.ApiKey)
	create := func(name string, req *apikeysv1.CreateApiKeyRequest, pairs ...string) {
		resp, err := s.Keys.CreateApiKey(s.Context(t.Context(), pairs...), req)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = resp.GetApiKey()
	}
	create("good", &apikeysv1.CreateApiKeyRequest{Label: "Anna's Schlüssel", OwnerId: "anna\u00a0", Scopes: []string{"products.read", "invoices.read"}})
	create("bare", &apikeysv1.CreateApiKeyRequest{Label: "bare"})
	create("other", &apikeysv1.CreateApiKeyRequest{Label: "other", Scopes: []string{"products.read"}}, "x-organization-id", "org_other")
	create("near", &apikeysv1.CreateApiKeyRequest{Label: "near", IpAllowList: []string{"198.51.100.0/24"}})
	create("rate", &apikeysv1.CreateApiKeyRequest{Label: "rate", RateLimit: &apikeysv1.RateLimit{Requests: 1, WindowSeconds: 3600}})
	create("quota", &apikeysv1.CreateApiKeyRequest{Label: "quota", Quota: &apikeysv1.Quota{Limit: 5}})
	create("gone", &apikeysv1.CreateApiKeyRequest{Label: "gone"})
	if _, err := s.Keys.RevokeApiKey(s.Context(t.Context()), &apikeysv1.RevokeApiKeyRequest{Id: keys["gone"].GetId()}); err != nil {
		t.Fatal(err)
	}
	return keys
}

// gateCases are what gateways ask about, on a server with a table of rules. $name stands
// for the secret of a key.
var gateCases = []struct {
	name string
	gateRequest
	want   int
	code   string            // X-Api-Key-Error
	header map[string]string // further headers; a value may be "*" for any
	words  string            // that the body holds
	merged string            // the code where lines of one header come as one; default: code
}{
	{name: "a good key", gateRequest: gateRequest{headers: []string{"Authorization: Bearer $good"}}, want: 200, header: map[string]string{
		"X-Api-Key-Id": "#good", "X-Organization-Id": "org_default", "X-Api-Key-Scopes": "products.read invoices.read",
		"X-Api-Key-Owner": "anna%C2%A0", "X-Api-Key-Label": "Anna's Schl%C3%BCssel", "RateLimit": "", "X-RateLimit-Limit": "",
	}},
	{name: "bare", gateRequest: gateRequest{headers: []string{"Authorization: $good"}}, want: 200},
	{name: "in X-API-Key", gateRequest: gateRequest{headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "as a URI", gateRequest: gateRequest{headers: []string{"Authorization: Bearer secret-token:$good"}}, want: 200},
	{name: "twice the same", gateRequest: gateRequest{headers: []string{"Authorization: Bearer $good", "X-API-Key: $good"}}, want: 200},
	{name: "identity of the client's own", gateRequest: gateRequest{headers: []string{"Authorization: $bare", "X-Api-Key-Owner: admin", "X-Organization-Id: org_other", "X-Api-Key-Scopes: *"}}, want: 200,
		header: map[string]string{"X-Api-Key-Owner": "", "X-Organization-Id": "org_default", "X-Api-Key-Scopes": ""}},

	{name: "no key", want: 401, code: "missing_credential", words: "UNAUTHENTICATED", header: map[string]string{"WWW-Authenticate": `Bearer realm="apikeys"`, "X-Api-Key-Id": "", "X-Api-Key-Scopes": ""}},
	{name: "junk", gateRequest: gateRequest{headers: []string{"X-API-Key: junk", "X-Api-Key-Id: mine"}}, want: 401, code: "malformed",
		header: map[string]string{"WWW-Authenticate": `Bearer realm="apikeys", error="invalid_token", error_description="The credential is not valid."`, "X-Api-Key-Id": ""}},
	{name: "two that differ", gateRequest: gateRequest{headers: []string{"Authorization: Bearer $good", "X-API-Key: $bare"}}, want: 401, code: "conflicting_credentials"},
	{name: "two lines that differ", gateRequest: gateRequest{headers: []string{"X-API-Key: $good", "X-API-Key: junk"}}, want: 401, code: "conflicting_credentials", merged: "malformed"},
	{name: "one good in two", gateRequest: gateRequest{headers: []string{"X-API-Key: $good, $good"}}, want: 401, code: "malformed"},
	{name: "another scheme", gateRequest: gateRequest{headers: []string{"Authorization: Basic YTpi", "X-API-Key: $good"}}, want: 401, code: "conflicting_credentials"},
	{name: "too long", gateRequest: gateRequest{headers: []string{"X-API-Key: " + strings.Repeat("k", 600)}}, want: 401, code: "malformed"},
	{name: "in the query", gateRequest: gateRequest{uri: "/products?api_key=$good"}, want: 401, code: "missing_credential"},
	{name: "revoked", gateRequest: gateRequest{headers: []string{"X-API-Key: $gone"}}, want: 401, code: "revoked", words: "The credential is not valid."},
	{name: "of a root token", gateRequest: gateRequest{headers: []string{"Authorization: Bearer " + servertest.RootToken}}, want: 401, code: "malformed"},

	{name: "with its scope", gateRequest: gateRequest{query: "scope=products.read", headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "with both scopes", gateRequest: gateRequest{query: "scope=products.read&scope=invoices.read", headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "with both scopes in one", gateRequest: gateRequest{query: "scope=products.read+invoices.read", headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "without a scope", gateRequest: gateRequest{query: "scope=products.read&scope=payments.read", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope", words: "payments.read",
		header: map[string]string{"WWW-Authenticate": `Bearer realm="apikeys", error="insufficient_scope", error_description="The API key lacks a scope.", scope="products.read payments.read"`}},
	{name: "of its organization", gateRequest: gateRequest{query: "organization=org_other", headers: []string{"X-API-Key: $other"}}, want: 200},
	{name: "of any organization", gateRequest: gateRequest{query: "organization=*", headers: []string{"X-API-Key: $other"}}, want: 200, header: map[string]string{"X-Organization-Id": "org_other"}},
	{name: "of another organization", gateRequest: gateRequest{query: "organization=org_default", headers: []string{"X-API-Key: $other"}}, want: 401, code: "not_found"},

	{name: "from its network", gateRequest: gateRequest{from: "198.51.100.7", headers: []string{"X-API-Key: $near"}}, want: 200},
	{name: "from another network", gateRequest: gateRequest{from: "203.0.113.7", headers: []string{"X-API-Key: $near"}}, want: 403, code: "ip_not_allowed"},
	{name: "from nowhere", gateRequest: gateRequest{headers: []string{"X-API-Key: $near"}}, want: 403, code: "ip_not_allowed"},
	{name: "from where the client says", gateRequest: gateRequest{from: "203.0.113.7", headers: []string{"X-API-Key: $near", "X-Forwarded-For: 198.51.100.7"}}, want: 403, code: "ip_not_allowed"},
	{name: "from where the client says before a proxy", gateRequest: gateRequest{from: "127.0.0.9", headers: []string{"X-API-Key: $near", "X-Forwarded-For: 198.51.100.7, 203.0.113.7"}}, want: 403, code: "ip_not_allowed"},
	{name: "from its network through a proxy", gateRequest: gateRequest{from: "127.0.0.9", headers: []string{"X-API-Key: $near", "X-Forwarded-For: 203.0.113.7, 198.51.100.7"}}, want: 200},
	{name: "from what is no address", gateRequest: gateRequest{from: "unknown", headers: []string{"X-API-Key: $near", "X-Forwarded-For: 198.51.100.7"}}, want: 403, code: "ip_not_allowed"},
	{name: "by another header", gateRequest: gateRequest{headers: []string{"X-API-Key: $near", "X-Real-IP: 198.51.100.7", "Forwarded: for=198.51.100.7", "True-Client-IP: 198.51.100.7"}}, want: 403, code: "ip_not_allowed"},

	{name: "the first of one", gateRequest: gateRequest{headers: []string{"X-API-Key: $rate"}}, want: 200,
		header: map[string]string{"RateLimit": `"rate";r=0;t=3600`, "RateLimit-Policy": `"rate";q=1;w=3600`, "X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}},
	{name: "the second of one", gateRequest: gateRequest{headers: []string{"X-API-Key: $rate"}}, want: 429, code: "rate_limited", words: "RATE_LIMITED",
		header: map[string]string{"Retry-After": "3600", "RateLimit": `"rate";r=0;t=3600`, "RateLimit-Policy": `"rate";q=1;w=3600`}},
	{name: "folded for nginx", gateRequest: gateRequest{query: "limit_status=403", headers: []string{"X-API-Key: $rate"}}, want: 403, code: "rate_limited", header: map[string]string{"Retry-After": "3600"}},
	{name: "that costs nothing", gateRequest: gateRequest{query: "cost=0", headers: []string{"X-API-Key: $rate"}}, want: 200},
	{name: "above its limit", gateRequest: gateRequest{query: "cost=2", headers: []string{"X-API-Key: $rate"}}, want: 429, code: "rate_limited", header: map[string]string{"Retry-After": ""}},
	{name: "of a quota", gateRequest: gateRequest{query: "cost=4", headers: []string{"X-API-Key: $quota"}}, want: 200, header: map[string]string{"RateLimit": `"quota";r=1`, "RateLimit-Policy": `"quota";q=5`}},
	{name: "beyond the quota", gateRequest: gateRequest{query: "cost=2", headers: []string{"X-API-Key: $quota"}}, want: 429, code: "quota_exceeded", header: map[string]string{"Retry-After": "", "RateLimit": `"quota";r=1`}},

	{name: "a question that is none", gateRequest: gateRequest{query: "scopes=products.read", headers: []string{"X-API-Key: $good"}}, want: 400, code: "invalid_question", words: `"scopes":"is not a parameter`},
	{name: "a cost that is none", gateRequest: gateRequest{query: "cost=-1", headers: []string{"X-API-Key: $good"}}, want: 400, code: "invalid_question"},

	{name: "by rule", gateRequest: gateRequest{uri: "/v1/items/7", headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "by rule, in other case", gateRequest: gateRequest{uri: "/V1/Admin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "by rule, encoded", gateRequest: gateRequest{uri: "/v1/%61dmin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "by rule, with a slash", gateRequest: gateRequest{uri: "/v1/admin/", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "by rule, with a query", gateRequest: gateRequest{uri: "/v1/admin?a=/../items", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "dots", gateRequest: gateRequest{uri: "/v1/items/../admin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "encoded dots", gateRequest: gateRequest{uri: "/v1/items/%2e%2e/admin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "twice encoded", gateRequest: gateRequest{uri: "/v1/items/%252e%252e/admin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "an encoded slash", gateRequest: gateRequest{uri: "/v1/items%2f..%2fadmin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "two slashes", gateRequest: gateRequest{uri: "//v1/admin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "a semicolon", gateRequest: gateRequest{uri: "/v1/admin;x", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "a backslash", gateRequest: gateRequest{uri: `/v1\admin`, headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "another method", gateRequest: gateRequest{method: "DELETE", uri: "/v1/items/7", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "a method in small letters", gateRequest: gateRequest{method: "get", uri: "/v1/items/7", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "a method in a header", gateRequest: gateRequest{uri: "/v1/items/7", headers: []string{"X-API-Key: $good", "X-HTTP-Method-Override: DELETE"}}, want: 403, code: "ambiguous_request"},
	{name: "a path in a header", gateRequest: gateRequest{uri: "/v1/items/7", headers: []string{"X-API-Key: $good", "X-Rewrite-URL: /v1/admin"}}, want: 403, code: "ambiguous_request"},
	{name: "a path in another header", gateRequest: gateRequest{uri: "/v1/items/7", headers: []string{"X-API-Key: $good", "X-Original-URL: /v1/admin"}}, want: 403, code: "ambiguous_request"},
	{name: "the same path in a header", gateRequest: gateRequest{uri: "/v1/items/7", headers: []string{"X-API-Key: $good", "X-Rewrite-URL: /v1/items/7?a"}}, want: 200},
	{name: "no rule", gateRequest: gateRequest{uri: "/v2", headers: []string{"X-API-Key: $good"}}, want: 403, code: "no_rule"},
	{name: "no rule and no key", gateRequest: gateRequest{uri: "/v2"}, want: 401, code: "missing_credential"},
	{name: "no rule and a bad key", gateRequest: gateRequest{uri: "/v2", headers: []string{"X-API-Key: $gone"}}, want: 401, code: "revoked"},
	{name: "without rules", gateRequest: gateRequest{uri: "/v2", query: "rules=none", headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "by rule and question", gateRequest: gateRequest{uri: "/v1/items/7", query: "scope=payments.read", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "of the rule's organization", gateRequest: gateRequest{uri: "/v1/other", headers: []string{"X-API-Key: $good"}}, want: 401, code: "not_found"},
	{name: "of two organizations", gateRequest: gateRequest{uri: "/v1/other", query: "organization=org_default", headers: []string{"X-API-Key: $good"}}, want: 400, code: "invalid_question"},
}

// TestGate asks about every case by every protocol, of a server of its own each.
func TestGate(t *testing.T) {
	t.Parallel()
	for way, ask := range gateWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := servertest.Start(t, withGate, func(c *server.Config) {
				c.GateRules = []string{
					"GET /products/**", "GET /v1/items/* scope=products.read", "ANY /v1/other organization=org_other", "ANY /v1/** scope=payments.read",
				}
			})
			keys := gateKeys(t, s)
			for _, tc := range gateCases {
				t.Run(tc.name, func(t *testing.T) {
					q := tc.gateRequest
					q.headers = nil
					for _, line := range tc.headers {
						q.headers = append(q.headers, insert(line, keys))
					}
					q.uri = insert(q.uri, keys)
					if q.uri == "" {
						q.uri = "/products"
					}
					if q.method == "" {
						q.method = http.MethodGet
					}
					got, code := ask(t, s, q), tc.code
					if way == "ext_authz" && tc.merged != "" {
						code = tc.merged
					}
					if got.status != tc.want || got.header.Get("X-Api-Key-Error") != code {
						t.Errorf("the answer is %d %s, want %d %s", got.status, got.header.Get("X-Api-Key-Error"), tc.want, code)
					}
					for name, want := range tc.header {
						if id, ok := strings.CutPrefix(want, "#"); ok {
							want = keys[id].GetId()
						}
						if got := got.header.Get(name); got != want {
							t.Errorf("%s is %q, want %q", name, got, want)
						}
					}
					checkGateAnswer(t, got)
					if !strings.Contains(got.body, tc.words) {
						t.Errorf("the body has no %q: %s", tc.words, got.body)
					}
				})
			}
			checkNoSecrets(t, s, keys)
		})
	}
}

// What every answer has: for the request that is passed on, and for the client.
var (
	identityHeaders = []string{"X-Api-Key-Id", "X-Organization-Id", "X-Api-Key-Scopes", "X-Api-Key-Owner", "X-Api-Key-Label", "X-Api-Key-Error"}
	limitHeaders    = []string{"RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
)

// insert returns text with the secrets of keys in the place of their names.
func insert(text string, keys map[string]*apikeysv1.ApiKey) string {
	for name, k := range keys {
		text = strings.ReplaceAll(text, "$"+name, k.GetSecret())
	}
	return text
}

// checkGateAnswer checks what holds of every answer: the headers of identity stand there
// once each, and a refusal is told in the envelope.
func checkGateAnswer(t *testing.T, a gateAnswer) {
	t.Helper()
	for _, name := range slices.Concat(identityHeaders, limitHeaders) {
		if n := len(a.header.Values(name)); n != 1 {
			t.Errorf("%s stands there %d times", name, n)
		}
	}
	if a.status == http.StatusOK {
		if a.header.Get("X-Api-Key-Id") == "" || a.body != "" {
			t.Errorf("it passes as %v with %q", a.header, a.body)
		}
		return
	}
	if a.header.Get("X-Api-Key-Id")+a.header.Get("X-Organization-Id")+a.header.Get("X-Api-Key-Owner") != "" {
		t.Errorf("a refusal tells of a key: %v", a.header)
	}
	var e servertest.Envelope
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Status != a.status || e.Error == nil || e.SupportID == nil || e.Env != "development" {
		t.Errorf("the envelope is %s, %v", a.body, err)
	}
}

func fields(names ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: names} }

func checkNoSecrets(t *testing.T, s *servertest.Server, keys map[string]*apikeysv1.ApiKey) {
	t.Helper()
	log := s.Log.String()
	for name, k := range keys {
		if strings.Contains(log, k.GetSecret()) {
			t.Errorf("the log holds the secret of %s", name)
		}
	}
}

// TestGateRevoke has a revocation in force at once, and its end of a gate's own token.
func TestGateRevoke(t *testing.T) {
	t.Parallel()
	for way, ask := range gateWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := servertest.Start(t, withGate)
			ctx := s.Context(t.Context())
			for range 20 {
				resp, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "a"})
				if err != nil {
					t.Fatal(err)
				}
				q := gateRequest{method: "GET", uri: "/", headers: []string{"X-API-Key: " + resp.GetApiKey().GetSecret()}}
				if got := ask(t, s, q); got.status != http.StatusOK {
					t.Fatalf("a new key: %d", got.status)
				}
				if _, err := s.Keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: resp.GetApiKey().GetId()}); err != nil {
					t.Fatal(err)
				}
				if got := ask(t, s, q); got.status != http.StatusUnauthorized {
					t.Fatalf("a revoked key: %d", got.status)
				}
			}
		})
	}
}

// TestGateBody has a gateway that sends the body along answered at once, without the body
// being read.
func TestGateBody(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withGate)
	conn := dialGate(t, s)
	fmt.Fprintf(conn, "POST /forward_auth HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || !resp.Close {
		t.Errorf("the answer is %d, close %v", resp.StatusCode, resp.Close)
	}
}

// TestGateClientsQuery refuses a question whose query is that of the client's request.
func TestGateClientsQuery(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withGate)
	for _, query := range []string{"rules=none", "cost=0", "scope=a&limit_status=403"} {
		got := askForwardAuth(t, s, gateRequest{method: "GET", uri: "/?" + query, query: query})
		if got.status != http.StatusBadRequest || !strings.Contains(got.body, "CLIENTS_QUERY") {
			t.Errorf("%s: %d %s", query, got.status, got.body)
		}
	}
}
