package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
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

// gateQuestion is what a gateway asks about a request.
type gateQuestion struct {
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
var gateWays = map[string]func(*testing.T, *servertest.Server, gateQuestion) gateAnswer{
	"forward_auth":               askForwardAuth,
	"ext_authz":                  askExtAuthz,
	"ext_authz with raw headers": askExtAuthzRaw,
}

func askForwardAuth(t *testing.T, s *servertest.Server, q gateQuestion) gateAnswer {
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
	gateQuestion
	want   int
	code   string            // X-Api-Key-Error
	header map[string]string // further headers; a value may be "*" for any
	words  string            // that the body holds
	merged string            // the code where lines of one header come as one; default: code
}{
	{name: "a good key", gateQuestion: gateQuestion{headers: []string{"Authorization: Bearer $good"}}, want: 200, header: map[string]string{
		"X-Api-Key-Id": "#good", "X-Organization-Id": "org_default", "X-Api-Key-Scopes": "products.read invoices.read",
		"X-Api-Key-Owner": "anna%C2%A0", "X-Api-Key-Label": "Anna's Schl%C3%BCssel", "RateLimit": "", "X-RateLimit-Limit": "",
	}},
	{name: "bare", gateQuestion: gateQuestion{headers: []string{"Authorization: $good"}}, want: 200},
	{name: "in X-API-Key", gateQuestion: gateQuestion{headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "as a URI", gateQuestion: gateQuestion{headers: []string{"Authorization: Bearer secret-token:$good"}}, want: 200},
	{name: "twice the same", gateQuestion: gateQuestion{headers: []string{"Authorization: Bearer $good", "X-API-Key: $good"}}, want: 200},
	{name: "identity of the client's own", gateQuestion: gateQuestion{headers: []string{"Authorization: $bare", "X-Api-Key-Owner: admin", "X-Organization-Id: org_other", "X-Api-Key-Scopes: *"}}, want: 200,
		header: map[string]string{"X-Api-Key-Owner": "", "X-Organization-Id": "org_default", "X-Api-Key-Scopes": ""}},

	{name: "no key", want: 401, code: "missing_credential", words: "UNAUTHENTICATED", header: map[string]string{"WWW-Authenticate": `Bearer realm="apikeys"`, "X-Api-Key-Id": "", "X-Api-Key-Scopes": ""}},
	{name: "junk", gateQuestion: gateQuestion{headers: []string{"X-API-Key: junk", "X-Api-Key-Id: mine"}}, want: 401, code: "malformed",
		header: map[string]string{"WWW-Authenticate": `Bearer realm="apikeys", error="invalid_token", error_description="The credential is not valid."`, "X-Api-Key-Id": ""}},
	{name: "two that differ", gateQuestion: gateQuestion{headers: []string{"Authorization: Bearer $good", "X-API-Key: $bare"}}, want: 401, code: "conflicting_credentials"},
	{name: "two lines that differ", gateQuestion: gateQuestion{headers: []string{"X-API-Key: $good", "X-API-Key: junk"}}, want: 401, code: "conflicting_credentials", merged: "malformed"},
	{name: "one good in two", gateQuestion: gateQuestion{headers: []string{"X-API-Key: $good, $good"}}, want: 401, code: "malformed"},
	{name: "another scheme", gateQuestion: gateQuestion{headers: []string{"Authorization: Basic YTpi", "X-API-Key: $good"}}, want: 401, code: "conflicting_credentials"},
	{name: "too long", gateQuestion: gateQuestion{headers: []string{"X-API-Key: " + strings.Repeat("k", 600)}}, want: 401, code: "malformed"},
	{name: "in the query", gateQuestion: gateQuestion{uri: "/products?api_key=$good"}, want: 401, code: "missing_credential"},
	{name: "revoked", gateQuestion: gateQuestion{headers: []string{"X-API-Key: $gone"}}, want: 401, code: "revoked", words: "The credential is not valid."},
	{name: "of a root token", gateQuestion: gateQuestion{headers: []string{"Authorization: Bearer " + servertest.RootToken}}, want: 401, code: "malformed"},

	{name: "with its scope", gateQuestion: gateQuestion{query: "scope=products.read", headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "with both scopes", gateQuestion: gateQuestion{query: "scope=products.read&scope=invoices.read", headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "with both scopes in one", gateQuestion: gateQuestion{query: "scope=products.read+invoices.read", headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "without a scope", gateQuestion: gateQuestion{query: "scope=products.read&scope=payments.read", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope", words: "payments.read",
		header: map[string]string{"WWW-Authenticate": `Bearer realm="apikeys", error="insufficient_scope", error_description="The API key lacks a scope.", scope="products.read payments.read"`}},
	{name: "of its organization", gateQuestion: gateQuestion{query: "organization=org_other", headers: []string{"X-API-Key: $other"}}, want: 200},
	{name: "of any organization", gateQuestion: gateQuestion{query: "organization=*", headers: []string{"X-API-Key: $other"}}, want: 200, header: map[string]string{"X-Organization-Id": "org_other"}},
	{name: "of another organization", gateQuestion: gateQuestion{query: "organization=org_default", headers: []string{"X-API-Key: $other"}}, want: 401, code: "not_found"},

	{name: "from its network", gateQuestion: gateQuestion{from: "198.51.100.7", headers: []string{"X-API-Key: $near"}}, want: 200},
	{name: "from another network", gateQuestion: gateQuestion{from: "203.0.113.7", headers: []string{"X-API-Key: $near"}}, want: 403, code: "ip_not_allowed"},
	{name: "from nowhere", gateQuestion: gateQuestion{headers: []string{"X-API-Key: $near"}}, want: 403, code: "ip_not_allowed"},
	{name: "from where the client says", gateQuestion: gateQuestion{from: "203.0.113.7", headers: []string{"X-API-Key: $near", "X-Forwarded-For: 198.51.100.7"}}, want: 403, code: "ip_not_allowed"},
	{name: "from where the client says before a proxy", gateQuestion: gateQuestion{from: "127.0.0.9", headers: []string{"X-API-Key: $near", "X-Forwarded-For: 198.51.100.7, 203.0.113.7"}}, want: 403, code: "ip_not_allowed"},
	{name: "from its network through a proxy", gateQuestion: gateQuestion{from: "127.0.0.9", headers: []string{"X-API-Key: $near", "X-Forwarded-For: 203.0.113.7, 198.51.100.7"}}, want: 200},
	{name: "from what is no address", gateQuestion: gateQuestion{from: "unknown", headers: []string{"X-API-Key: $near", "X-Forwarded-For: 198.51.100.7"}}, want: 403, code: "ip_not_allowed"},
	{name: "by another header", gateQuestion: gateQuestion{headers: []string{"X-API-Key: $near", "X-Real-IP: 198.51.100.7", "Forwarded: for=198.51.100.7", "True-Client-IP: 198.51.100.7"}}, want: 403, code: "ip_not_allowed"},

	{name: "the first of one", gateQuestion: gateQuestion{headers: []string{"X-API-Key: $rate"}}, want: 200,
		header: map[string]string{"RateLimit": `"rate";r=0;t=3600`, "RateLimit-Policy": `"rate";q=1;w=3600`, "X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}},
	{name: "the second of one", gateQuestion: gateQuestion{headers: []string{"X-API-Key: $rate"}}, want: 429, code: "rate_limited", words: "RATE_LIMITED",
		header: map[string]string{"Retry-After": "3600", "RateLimit": `"rate";r=0;t=3600`, "RateLimit-Policy": `"rate";q=1;w=3600`}},
	{name: "folded for nginx", gateQuestion: gateQuestion{query: "limit_status=403", headers: []string{"X-API-Key: $rate"}}, want: 403, code: "rate_limited", header: map[string]string{"Retry-After": "3600"}},
	{name: "that costs nothing", gateQuestion: gateQuestion{query: "cost=0", headers: []string{"X-API-Key: $rate"}}, want: 200},
	{name: "above its limit", gateQuestion: gateQuestion{query: "cost=2", headers: []string{"X-API-Key: $rate"}}, want: 429, code: "rate_limited", header: map[string]string{"Retry-After": ""}},
	{name: "of a quota", gateQuestion: gateQuestion{query: "cost=4", headers: []string{"X-API-Key: $quota"}}, want: 200, header: map[string]string{"RateLimit": `"quota";r=1`, "RateLimit-Policy": `"quota";q=5`}},
	{name: "beyond the quota", gateQuestion: gateQuestion{query: "cost=2", headers: []string{"X-API-Key: $quota"}}, want: 429, code: "quota_exceeded", header: map[string]string{"Retry-After": "", "RateLimit": `"quota";r=1`}},

	{name: "a question that is none", gateQuestion: gateQuestion{query: "scopes=products.read", headers: []string{"X-API-Key: $good"}}, want: 400, code: "invalid_question", words: `"scopes":"is not a parameter`},
	{name: "a cost that is none", gateQuestion: gateQuestion{query: "cost=-1", headers: []string{"X-API-Key: $good"}}, want: 400, code: "invalid_question"},

	{name: "by rule", gateQuestion: gateQuestion{uri: "/v1/items/7", headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "by rule, in other case", gateQuestion: gateQuestion{uri: "/V1/Admin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "by rule, encoded", gateQuestion: gateQuestion{uri: "/v1/%61dmin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "by rule, with a slash", gateQuestion: gateQuestion{uri: "/v1/admin/", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "by rule, with a query", gateQuestion: gateQuestion{uri: "/v1/admin?a=/../items", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "dots", gateQuestion: gateQuestion{uri: "/v1/items/../admin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "encoded dots", gateQuestion: gateQuestion{uri: "/v1/items/%2e%2e/admin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "twice encoded", gateQuestion: gateQuestion{uri: "/v1/items/%252e%252e/admin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "an encoded slash", gateQuestion: gateQuestion{uri: "/v1/items%2f..%2fadmin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "two slashes", gateQuestion: gateQuestion{uri: "//v1/admin", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "a semicolon", gateQuestion: gateQuestion{uri: "/v1/admin;x", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "a backslash", gateQuestion: gateQuestion{uri: `/v1\admin`, headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "another method", gateQuestion: gateQuestion{method: "DELETE", uri: "/v1/items/7", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "a method in small letters", gateQuestion: gateQuestion{method: "get", uri: "/v1/items/7", headers: []string{"X-API-Key: $good"}}, want: 403, code: "ambiguous_request"},
	{name: "a method in a header", gateQuestion: gateQuestion{uri: "/v1/items/7", headers: []string{"X-API-Key: $good", "X-HTTP-Method-Override: DELETE"}}, want: 403, code: "ambiguous_request"},
	{name: "a path in a header", gateQuestion: gateQuestion{uri: "/v1/items/7", headers: []string{"X-API-Key: $good", "X-Rewrite-URL: /v1/admin"}}, want: 403, code: "ambiguous_request"},
	{name: "a path in another header", gateQuestion: gateQuestion{uri: "/v1/items/7", headers: []string{"X-API-Key: $good", "X-Original-URL: /v1/admin"}}, want: 403, code: "ambiguous_request"},
	{name: "the same path in a header", gateQuestion: gateQuestion{uri: "/v1/items/7", headers: []string{"X-API-Key: $good", "X-Rewrite-URL: /v1/items/7?a"}}, want: 200},
	{name: "no rule", gateQuestion: gateQuestion{uri: "/v2", headers: []string{"X-API-Key: $good"}}, want: 403, code: "no_rule"},
	{name: "no rule and no key", gateQuestion: gateQuestion{uri: "/v2"}, want: 401, code: "missing_credential"},
	{name: "no rule and a bad key", gateQuestion: gateQuestion{uri: "/v2", headers: []string{"X-API-Key: $gone"}}, want: 401, code: "revoked"},
	{name: "without rules", gateQuestion: gateQuestion{uri: "/v2", query: "rules=none", headers: []string{"X-API-Key: $good"}}, want: 200},
	{name: "by rule and question", gateQuestion: gateQuestion{uri: "/v1/items/7", query: "scope=payments.read", headers: []string{"X-API-Key: $good"}}, want: 403, code: "insufficient_scope"},
	{name: "of the rule's organization", gateQuestion: gateQuestion{uri: "/v1/other", headers: []string{"X-API-Key: $good"}}, want: 401, code: "not_found"},
	{name: "of two organizations", gateQuestion: gateQuestion{uri: "/v1/other", query: "organization=org_default", headers: []string{"X-API-Key: $good"}}, want: 400, code: "invalid_question"},
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
					q := tc.gateQuestion
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
				q := gateQuestion{method: "GET", uri: "/", headers: []string{"X-API-Key: " + resp.GetApiKey().GetSecret()}}
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

// TestGateToken confines a gate to the rights of the token in its file, as they are now.
func TestGateToken(t *testing.T) {
	t.Parallel()
	for way, ask := range gateWays {
		t.Run(way, func(t *testing.T) { t.Parallel(); testGateToken(t, ask) })
	}
}

func testGateToken(t *testing.T, ask func(*testing.T, *servertest.Server, gateQuestion) gateAnswer) {
	path := filepath.Join(t.TempDir(), "gate-token")
	dir := t.TempDir()
	inDir := func(c *server.Config) { c.DataDir = dir }
	first := servertest.Start(t, inDir)
	tokens := apikeysv1.NewOperatorTokensServiceClient(first.Conn)
	created, err := tokens.CreateOperatorToken(first.Context(t.Context()), &apikeysv1.CreateOperatorTokenRequest{
		Name: "gate", Scopes: []string{"api_keys.verify", "api_keys.read"}, Organizations: []string{"org_default", "org_third"},
	})
	if err != nil {
		t.Fatal(err)
	}
	token := created.GetOperatorToken()
	if err := os.WriteFile(path, []byte(token.GetSecret()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first.Stop()

	s := servertest.Start(t, inDir, withGate, func(c *server.Config) { c.GateTokenFile = path })
	keys := gateKeys(t, s)
	tokens = apikeysv1.NewOperatorTokensServiceClient(s.Conn)
	ctx := s.Context(t.Context())
	expect := func(what, key, query string, status int, code string) {
		t.Helper()
		got := ask(t, s, gateQuestion{method: "GET", uri: "/", query: query, headers: []string{"X-API-Key: " + keys[key].GetSecret()}})
		if got.status != status || got.header.Get("X-Api-Key-Error") != code {
			t.Errorf("%s: %d %s, want %d %s", what, got.status, got.header.Get("X-Api-Key-Error"), status, code)
		}
		checkGateAnswer(t, got)
	}
	expect("a key of its organizations", "good", "", 200, "")
	expect("a key of another", "other", "", 401, "not_found")
	expect("its organization by name", "good", "organization=org_default", 200, "")
	expect("another of its organizations", "good", "organization=org_third", 401, "not_found")
	expect("an organization of others", "other", "organization=org_other", 503, "gate_not_permitted")

	update := func(req *apikeysv1.UpdateOperatorTokenRequest) {
		t.Helper()
		req.Id = token.GetId()
		if _, err := tokens.UpdateOperatorToken(ctx, req); err != nil {
			t.Fatal(err)
		}
	}
	update(&apikeysv1.UpdateOperatorTokenRequest{OperatorToken: &apikeysv1.OperatorToken{Organizations: []string{"org_other"}}, UpdateMask: fields("organizations")})
	expect("after it was moved to another organization", "good", "", 401, "not_found")
	expect("a key of that", "other", "", 200, "")
	update(&apikeysv1.UpdateOperatorTokenRequest{OperatorToken: &apikeysv1.OperatorToken{IpAllowList: []string{"203.0.113.0/24"}}, UpdateMask: fields("ip_allow_list")})
	expect("a gateway that the token is not for", "other", "", 503, "gate_not_permitted")
	update(&apikeysv1.UpdateOperatorTokenRequest{OperatorToken: &apikeysv1.OperatorToken{IpAllowList: []string{"127.0.0.1"}}, UpdateMask: fields("ip_allow_list")})
	expect("a gateway that it is for", "other", "", 200, "")
	update(&apikeysv1.UpdateOperatorTokenRequest{OperatorToken: &apikeysv1.OperatorToken{Scopes: []string{"api_keys.read"}}, UpdateMask: fields("scopes")})
	expect("without the scope to verify", "other", "", 503, "gate_not_permitted")
	if _, err := tokens.DeleteOperatorToken(ctx, &apikeysv1.DeleteOperatorTokenRequest{Id: token.GetId()}); err != nil {
		t.Fatal(err)
	}
	expect("after it was deleted", "other", "", 503, "gate_not_permitted")
	if log := s.Log.String(); strings.Contains(log, token.GetSecret()) || !strings.Contains(log, "does not let it verify keys") {
		t.Errorf("the log is %s", log)
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
		got := askForwardAuth(t, s, gateQuestion{method: "GET", uri: "/?" + query, query: query})
		if got.status != http.StatusBadRequest || !strings.Contains(got.body, "CLIENTS_QUERY") {
			t.Errorf("%s: %d %s", query, got.status, got.body)
		}
	}
}
