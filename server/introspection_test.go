package server_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
)

const formHeader = "Content-Type: application/x-www-form-urlencoded"

// inactive is all that is said of what is no active key.
const inactive = `{"active":false}`

// TestIntrospection asks about every kind of secret, over REST and over gRPC.
func TestIntrospection(t *testing.T) {
	t.Parallel()
	now := clock.At(time.Now().UTC().Truncate(time.Second))
	s := servertest.Start(t, func(c *server.Config) { c.Now = now.Now })
	ctx := s.Context(t.Context())
	create := func(req *apikeysv1.CreateApiKeyRequest, pairs ...string) *apikeysv1.ApiKey {
		t.Helper()
		req.Label = "a"
		resp, err := s.Keys.CreateApiKey(s.Context(t.Context(), pairs...), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetApiKey()
	}
	plain := create(&apikeysv1.CreateApiKeyRequest{Scopes: []string{"products.read", "invoices.read"}, OwnerId: "anna"})
	ends := create(&apikeysv1.CreateApiKeyRequest{ExpiresAt: timestamppb.New(now.Now().Add(time.Hour))})
	near := create(&apikeysv1.CreateApiKeyRequest{IpAllowList: []string{"203.0.113.0/24"}})
	spent := create(&apikeysv1.CreateApiKeyRequest{Quota: &apikeysv1.Quota{Limit: 1}})
	if v, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: spent.GetSecret()}); err != nil || !v.GetValid() {
		t.Fatal(v, err)
	}
	other := create(&apikeysv1.CreateApiKeyRequest{}, "x-organization-id", "org_other")
	revoked, disabled, deleted, expired, rotated := create(&apikeysv1.CreateApiKeyRequest{}), create(&apikeysv1.CreateApiKeyRequest{}),
		create(&apikeysv1.CreateApiKeyRequest{}), create(&apikeysv1.CreateApiKeyRequest{ExpiresAt: timestamppb.New(now.Now().Add(time.Minute))}), create(&apikeysv1.CreateApiKeyRequest{})
	for _, err := range []error{
		last(s.Keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: revoked.GetId()})),
		last(s.Keys.UpdateApiKey(ctx, &apikeysv1.UpdateApiKeyRequest{Id: disabled.GetId(), ApiKey: &apikeysv1.ApiKey{}, UpdateMask: fields("enabled")})),
		last(s.Keys.DeleteApiKey(ctx, &apikeysv1.DeleteApiKeyRequest{Id: deleted.GetId()})),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	overlap := int32(600)
	if _, err := s.Keys.RotateApiKey(ctx, &apikeysv1.RotateApiKeyRequest{Id: rotated.GetId(), OverlapSeconds: &overlap}); err != nil {
		t.Fatal(err)
	}
	token, err := apikeysv1.NewOperatorTokensServiceClient(s.Conn).CreateOperatorToken(ctx, &apikeysv1.CreateOperatorTokenRequest{
		Name: "a", Scopes: []string{"api_keys.verify"}, Organizations: []string{"*"},
	})
	if err != nil {
		t.Fatal(err)
	}
	now.Advance(2 * time.Minute)
	active := func(k *apikeysv1.ApiKey, further string) string {
		sub := k.GetOwnerId()
		if sub == "" {
			sub = k.GetId()
		}
		return `{"active":true,"scope":"` + strings.Join(k.GetScopes(), " ") + `","client_id":"` + k.GetId() + `","sub":"` + sub + `","token_type":"Bearer",` + further +
			`"organization_id":"` + k.GetOrganizationId() + `"}`
	}
	times := func(exp, iat time.Time) string {
		text, _ := json.Marshal(map[string]int64{"exp": exp.Unix(), "iat": iat.Unix()})
		return strings.Trim(string(text), "{}") + ","
	}
	issued := func(k *apikeysv1.ApiKey) string {
		text, _ := json.Marshal(map[string]int64{"iat": k.GetCreatedAt().AsTime().Unix()})
		return strings.Trim(string(text), "{}") + ","
	}
	for name, tc := range map[string]struct {
		secret, organization, want string
	}{
		"a key":                         {plain.GetSecret(), "", active(plain, issued(plain))},
		"as a URI":                      {"secret-token:" + plain.GetSecret(), "", active(plain, issued(plain))},
		"that ends":                     {ends.GetSecret(), "", active(ends, times(ends.GetExpiresAt().AsTime(), ends.GetCreatedAt().AsTime()))},
		"with a list of addresses":      {near.GetSecret(), "", active(near, issued(near))},
		"whose quota is used up":        {spent.GetSecret(), "", active(spent, issued(spent))},
		"of another organization":       {other.GetSecret(), "", inactive},
		"of any organization":           {other.GetSecret(), "*", active(other, issued(other))},
		"revoked":                       {revoked.GetSecret(), "", inactive},
		"disabled":                      {disabled.GetSecret(), "", inactive},
		"deleted":                       {deleted.GetSecret(), "", inactive},
		"expired":                       {expired.GetSecret(), "", inactive},
		"previous":                      {rotated.GetSecret(), "", active(rotated, times(rotated.GetCreatedAt().AsTime().Add(10*time.Minute), rotated.GetCreatedAt().AsTime()))},
		"a root token":                  {servertest.RootToken, "*", inactive},
		"an operator's token":           {token.GetOperatorToken().GetSecret(), "*", inactive},
		"junk":                          {"junk", "", inactive},
		"longer than any":               {strings.Repeat("k", 100_000), "", inactive},
		"one with a wrong checksum":     {plain.GetSecret()[:len(plain.GetSecret())-1] + "0", "", inactive},
		"the id of a key":               {plain.GetId(), "", inactive},
		"with a space behind":           {plain.GetSecret() + " ", "", inactive},
		"what is no text of our making": {"\u0000\u202e", "", inactive},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.Call(t, http.MethodPost, "/oauth2/introspect", url.Values{"token": {tc.secret}, "token_type_hint": {"refresh_token"}, "further": {"x"}}.Encode(),
				formHeader, "X-Organization-Id:"+tc.organization)
			if got.Status != http.StatusOK || string(got.Body) != tc.want || got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Content-Type") != "application/json" {
				t.Errorf("over REST %d %v\n%s, want\n%s", got.Status, got.Header, got.Body, tc.want)
			}
			var pairs []string
			if tc.organization != "" {
				pairs = []string{"x-organization-id", tc.organization}
			}
			resp, err := s.Keys.IntrospectToken(s.Context(t.Context(), pairs...), &apikeysv1.IntrospectTokenRequest{Token: tc.secret})
			if err != nil || resp.GetActive() != (tc.want != inactive) || resp.GetActive() != (resp.GetClientId() != "") {
				t.Errorf("over gRPC %v, %v", resp, err)
			}
		})
	}
	// Nothing was counted, and nothing spent.
	got, err := s.Keys.GetApiKey(ctx, &apikeysv1.GetApiKeyRequest{Id: plain.GetId()})
	if err != nil || got.GetApiKey().GetMetrics().GetTotalRequests() != 0 || got.GetApiKey().GetMetrics().GetLastUsedAt() != nil {
		t.Errorf("the key has %v, %v", got.GetApiKey().GetMetrics(), err)
	}
	if strings.Contains(s.Log.String(), plain.GetSecret()) {
		t.Error("the log holds a secret")
	}
}

func last[T any](_ T, err error) error { return err }

// TestIntrospectionCallers has callers prove themselves, also as OAuth's do, and failures
// told as OAuth has them.
func TestIntrospectionCallers(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	ctx := s.Context(t.Context())
	secretOf := func(scopes ...string) string {
		resp, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "a", Scopes: scopes})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetApiKey().GetSecret()
	}
	verifier, narrow := secretOf("api_keys.verify"), secretOf("api_keys.read")
	basic := func(text string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(text))
	}
	good := url.Values{"token": {narrow}}.Encode()
	for name, tc := range map[string]struct {
		body    string
		headers []string
		status  int
		code    string
	}{
		"a key with the scope":     {good, []string{"Authorization: Bearer " + verifier}, 200, ""},
		"in X-API-Key":             {good, []string{"Authorization:", "X-API-Key: " + verifier}, 200, ""},
		"as the password of Basic": {good, []string{basic("client:" + verifier)}, 200, ""},
		"as its user":              {good, []string{basic(verifier + ":")}, 401, "invalid_client"},
		"two that differ":          {good, []string{basic("client:" + verifier), "X-API-Key: " + narrow}, 401, "invalid_client"},
		"with a charset":           {good, []string{"Content-Type: application/x-www-form-urlencoded; charset=UTF-8"}, 200, ""},
		"no credential":            {good, []string{"Authorization:"}, 401, "invalid_client"},
		"a bad credential":         {good, []string{"Authorization: Bearer junk"}, 401, "invalid_client"},
		"a key without the scope":  {good, []string{"Authorization: Bearer " + narrow}, 403, "insufficient_scope"},
		"no token":                 {"token_type_hint=x", nil, 400, "invalid_request"},
		"an empty token":           {"token=", nil, 400, "invalid_request"},
		"two tokens":               {"token=a&token=b", nil, 400, "invalid_request"},
		"no form":                  {"token=%zz", nil, 400, "invalid_request"},
		"JSON":                     {`{"token":"a"}`, []string{"Content-Type: application/json"}, 415, "invalid_request"},
		"too much":                 {"token=" + strings.Repeat("a", 1<<20), nil, 413, "invalid_request"},
		"no JSON wanted":           {good, []string{"Accept: text/html"}, 406, "invalid_request"},
		"a query":                  {good, nil, 200, ""},
		"a secret in the hint":     {good + "&token_type_hint=" + verifier, nil, 400, "invalid_request"},
	} {
		got := s.Call(t, http.MethodPost, "/oauth2/introspect", tc.body, append([]string{formHeader}, tc.headers...)...)
		var failure struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
			SupportID   string `json:"support_id"`
		}
		if err := json.Unmarshal(got.Body, &failure); err != nil {
			t.Fatal(err)
		}
		if got.Status != tc.status || failure.Error != tc.code || (tc.code != "") != (failure.Description != "") || (tc.code != "") != (failure.SupportID != "") {
			t.Errorf("%s: %d %s, want %d %s", name, got.Status, got.Body, tc.status, tc.code)
		}
		if strings.Contains(string(got.Body), `"data"`) || (tc.status == 401) != (got.Header.Get("WWW-Authenticate") != "") || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v %s", name, got.Header, got.Body)
		}
		if strings.Contains(string(got.Body), verifier) || strings.Contains(string(got.Body), narrow) {
			t.Errorf("%s: the answer repeats a secret", name)
		}
	}
	if got := s.Call(t, http.MethodGet, "/oauth2/introspect", ""); got.Status != http.StatusMethodNotAllowed || got.Header.Get("Allow") != "POST, OPTIONS" {
		t.Errorf("GET: %v", got)
	}
	if _, err := s.Keys.IntrospectToken(ctx, &apikeysv1.IntrospectTokenRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no token over gRPC: %v", err)
	}
}
