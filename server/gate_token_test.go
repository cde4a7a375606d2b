package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestGateToken confines a gate to the rights of the token in its file, as they are now.
func TestGateToken(t *testing.T) {
	t.Parallel()
	for way, ask := range gateWays {
		t.Run(way, func(t *testing.T) { t.Parallel(); testGateToken(t, ask) })
	}
}

func testGateToken(t *testing.T, ask func(*testing.T, *servertest.Server, gateRequest) gateAnswer) {
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
		got := ask(t, s, gateRequest{method: "GET", uri: "/", query: query, headers: []string{"X-API-Key: " + keys[key].GetSecret()}})
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
