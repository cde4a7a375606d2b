package server_test

import (
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/issuer"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
)

// people returns the configuration that takes the tokens of an issuer, of people whose
// organizations, scopes and roles are those that their claims say.
func people(i *issuer.Issuer, change ...func(*identity.Issuer)) func(*server.Config) {
	c := identity.Issuer{
		URL: i.URL, Audience: []string{issuer.Audience}, OrganizationClaim: "org", Organizations: []string{"*"}, ScopesClaim: "scope",
		RolesClaim: "roles", Roles: map[string]identity.Grant{"verifiers": {Role: "verifier"}, "managers": {Role: "manager"}, "auditors": {Role: "auditor"}, "admins": {Role: "admin"}},
	}
	for _, f := range change {
		f(&c)
	}
	return func(config *server.Config) { config.OIDC = append(config.OIDC, c) }
}

// person is the name under which a harness has a token of an issuer, as $name.secret.
func (w *harness) person(i *issuer.Issuer, name string, claims issuer.Claims) {
	all := issuer.Claims{"sub": name, "name": "Ms " + name, "exp": start.Add(2 * time.Hour).Unix()}
	maps.Copy(all, claims)
	w.saved[name+".secret"] = i.Token(w.clock.Now(), all)
	w.saved[name+".id"] = i.URL + "|" + name
}

// TestPeople plays what people may do: what their token says, where it says, until it
// ends, and nothing beyond.
func TestPeople(t *testing.T) {
	t.Parallel()
	const denied, invalid, exceeds, bad, field = "WRONG_ORGANIZATION", "INVALID_ARGUMENT", "EXCEEDS_CALLER", "UNAUTHENTICATED", "x-organization-id"
	in := func(organization string) string { return "X-Organization-Id: " + organization }
	i := issuer.Start(t)
	for _, protocol := range []string{"rest", "grpc"} {
		w := newHarness(t, people(i))
		w.person(i, "anna", issuer.Claims{"org": "a", "roles": []string{"managers"}})
		w.person(i, "bert", issuer.Claims{"org": []string{"a", "b"}, "roles": "auditors"})
		w.person(i, "carl", issuer.Claims{"org": "*", "roles": []string{"admins", "x"}})
		w.person(i, "gate", issuer.Claims{"org": "*", "roles": []string{"verifiers"}})
		w.person(i, "dora", issuer.Claims{"org": "a", "scope": "openid api_keys.read operator_tokens.create"})
		w.person(i, "other", issuer.Claims{"aud": "others"})
		w.person(i, "nobody", issuer.Claims{"org": "a", "roles": []string{"x"}})
		w.person(i, "nowhere", issuer.Claims{"roles": []string{"admins"}})
		w.person(i, "brief", issuer.Claims{"org": "a", "roles": []string{"managers"}, "exp": start.Add(time.Minute).Unix()})
		create := func(as, body, want string) step {
			return step{rpc: "CreateApiKey", as: as, body: `{"label": "k"` + body + `}`, want: want, save: map[string]string{"": "k"}[want]}
		}
		const soon, late = `, "expires_at": "$in(1h)"`, `, "expires_at": "$in(2h1s)"`
		const anna = "$anna.secret"
		for n, s := range (scenario{
			{rpc: "GetCaller", as: anna, data: `{"actor": {"kind": "person", "id": "$anna.id", "name": "Ms anna"}, "credential": "identity_token", "organization_id": "a",
				"organizations": ["a"], "expires_at": "$in(2h)", "mode": "live", "ip": "127.0.0.1", "ip_allow_list": [], "previous_secret": false}`},
			{rpc: "GetCaller", as: "$bert.secret", data: `{"organization_id": "", "organizations": ["a", "b"], "granted_scopes": ["events.read", "api_keys.read"]}`},
			{rpc: "GetCaller", as: "-", head: "X-API-Key: $carl.secret", data: `{"organizations": ["*"], "granted_scopes": ["*", "operator_tokens.*"]}`},
			{rpc: "GetCaller", as: "-", head: "Authorization: $gate.secret", data: `{"scopes": ["api_keys.verify"]}`},
			{rpc: "GetCaller", as: anna, head: "X-API-Key: $bert.secret", want: bad},
			// Nothing outlives the token.
			create(anna, soon, ""), create(anna, `, "expires_at": "$in(2h)", "mode": "test"`, ""), create(anna, ``, exceeds), create(anna, late, exceeds),
			{rpc: "GetApiKey", id: "$k.id", want: "API_KEY_NOT_FOUND"}, // The operator is elsewhere.
			{rpc: "GetApiKey", id: "$k.id", as: anna, data: `{"created_by": {"kind": "person", "id": "$anna.id", "name": "Ms anna"}, "organization_id": "a"}`},
			{rpc: "RotateApiKey", id: "$k.id", as: anna, body: endNow}, {rpc: "UpdateApiKey", id: "$k.id", as: anna, body: `{"label": "x"}`},
			{rpc: "UpdateApiKey", id: "$k.id", as: anna, body: `{"expires_at": null}`, want: exceeds},
			{rpc: "CreateApiKey", body: `{"label": "endless"}`, head: in("a"), save: "e"},
			{rpc: "RotateApiKey", id: "$e.id", as: anna, body: endNow, want: exceeds}, {rpc: "UpdateApiKey", id: "$e.id", as: anna, body: `{"description": "mine"}`},
			{rpc: "RevokeApiKey", id: "$e.id", as: anna},
			// Nor beyond its scopes and its organizations.
			create(anna, soon+`, "scopes": ["*"]`, exceeds), create(anna, soon+`, "scopes": ["api_keys.read", "invoices.read"]`, ""),
			create("$dora.secret", soon, "INSUFFICIENT_SCOPE"), create("$bert.secret", soon, "INSUFFICIENT_SCOPE"),
			{rpc: "ListApiKeys", as: anna, head: in("b"), want: denied}, {rpc: "ListApiKeys", as: anna, head: in("*")}, {rpc: "ListApiKeys", as: anna, head: in("a")},
			{rpc: "ListApiKeys", as: "$bert.secret", want: invalid, field: field}, {rpc: "ListApiKeys", as: "$bert.secret", head: in("c"), want: denied},
			{rpc: "ListApiKeys", as: "$bert.secret", head: in("b"), data: `[]`},
			{rpc: "ListApiKeys", as: "$carl.secret", head: in("c"), data: `[]`}, {rpc: "ListApiKeys", as: "$gate.secret", head: in("*"), want: "INSUFFICIENT_SCOPE"},
			{rpc: "VerifyApiKey", as: "$gate.secret", head: in("*"), body: `{"key": "$k.secret"}`, data: `{"code": "valid"}`},
			{rpc: "VerifyApiKey", as: "$gate.secret", head: in("b"), body: `{"key": "$k.secret"}`, data: `{"code": "not_found"}`},
			{rpc: "VerifyApiKey", as: "$gate.secret", body: `{"key": "x"}`, want: invalid, field: field},
			// Operators' tokens.
			{rpc: "CreateOperatorToken", as: "$carl.secret", body: `{"name": "t", "role": "admin", "organizations": ["*"], "expires_at": "$in(2h)"}`, save: "t",
				data: `{"created_by": {"kind": "person", "id": "$carl.id", "name": "Ms carl"}}`},
			{rpc: "CreateOperatorToken", as: "$carl.secret", body: `{"name": "t", "role": "admin", "organizations": ["*"]}`, want: exceeds},
			{rpc: "CreateOperatorToken", as: "$dora.secret", body: `{"name": "t", "scopes": ["api_keys.read"], "organizations": ["a"], "expires_at": "$in(1h)"}`, save: "u"},
			{rpc: "CreateOperatorToken", as: "$dora.secret", body: `{"name": "t", "scopes": ["api_keys.read"], "organizations": ["b"], "expires_at": "$in(1h)"}`, want: exceeds},
			{rpc: "CreateOperatorToken", as: "$dora.secret", body: `{"name": "t", "role": "viewer", "organizations": ["a"], "expires_at": "$in(1h)"}`, want: exceeds},
			{rpc: "CreateOperatorToken", as: anna, body: `{"name": "t", "role": "verifier", "organizations": ["a"], "expires_at": "$in(1h)"}`, want: "INSUFFICIENT_SCOPE"},
			// Webhooks last: the record says who made them.
			{rpc: "CreateWebhook", as: anna, body: `{"label": "w", "url": "https://hooks.invalid/", "events": ["api_key.created"]}`, data: `{"created_by": {"kind": "person", "id": "$anna.id"}}`},
			// The record, by actor.
			{rpc: "ListEvents", as: "$bert.secret", head: in("a"), body: "actor=$bert.id", data: `[]`},
			{rpc: "ListEvents", as: "$bert.secret", head: in("a"), body: "actor=$anna.id&types=webhook.created", data: `[{"type": "webhook.created", "actor": {"kind": "person", "id": "$anna.id", "name": "Ms anna"}}]`},
			{rpc: "ListEvents", as: "$carl.secret", head: in("*"), body: "types=operator_token.created", data: `[{"actor": {"id": "$carl.id"}}, {"actor": {"id": "$dora.id"}}]`},
			{rpc: "ListEvents", as: "$bert.secret", head: in("*"), body: "types=operator_token.created", data: `[]`},
			// A call made again is the person's own.
			{rpc: "CreateApiKey", as: anna, body: `{"label": "i"` + soon + `}`, head: "Idempotency-Key: i", save: "i"},
			{rpc: "CreateApiKey", as: anna, body: `{"label": "i"` + soon + `}`, head: "Idempotency-Key: i", quiet: true, data: `{"secret": "$i.secret"}`},
			{rpc: "CreateApiKey", as: "$carl.secret", body: `{"label": "i"` + soon + `}`, head: "Idempotency-Key: i\n" + in("a")},
			{rpc: "CreateApiKey", as: anna, body: `{"label": "j"` + soon + `}`, head: "Idempotency-Key: i", want: "IDEMPOTENCY_KEY_REUSED"},
			// A token is no text that is kept, unless it is meant for others.
			{rpc: "CreateApiKey", body: `{"label": "see $anna.secret"}`, want: invalid, field: "label"},
			{rpc: "CreateApiKey", body: `{"label": "k", "metadata": {"t": "$other.secret"}}`},
			{rpc: "VerifyApiKey", body: `{"key": "$anna.secret"}`, data: `{"code": "malformed"}`},
			// What means nothing is no caller; what has ended is no credential.
			{rpc: "GetCaller", as: "$nobody.secret", want: "PERMISSION_DENIED"}, {rpc: "GetCaller", as: "$nowhere.secret", want: "PERMISSION_DENIED"},
			{rpc: "GetCaller", as: "$nowhere.secret", head: in("a"), want: "PERMISSION_DENIED"},
			{rpc: "GetCaller", as: "$brief.secret", after: 59 * time.Second}, {rpc: "GetCaller", as: "$brief.secret", after: time.Second, want: bad},
			{rpc: "CreateApiKey", as: "$brief.secret", body: `{"label": "x"` + soon + `}`, want: bad},
			{rpc: "GetCaller", as: anna, after: time.Hour + 58*time.Minute}, {rpc: "GetCaller", as: anna, after: time.Minute, want: bad},
			{rpc: "CreateApiKey", as: anna, body: `{"label": "i"` + soon + `}`, head: "Idempotency-Key: i", want: bad},
			{rpc: "ListApiKeys", as: "$t.secret", head: in("a"), want: bad}, // What was made ends too.
		}) {
			if !w.take(t, protocol+", step "+string(rune('A'+n%26))+" "+s.rpc, protocol, s) && s.save != "" {
				t.FailNow()
			}
		}
		log := w.Log.String()
		for _, name := range []string{"anna", "carl", "nobody"} {
			if strings.Contains(log, w.saved[name+".secret"]) {
				t.Errorf("the log has the token of %s", name)
			}
		}
		if !strings.Contains(log, "the claims scope roles give no scope") || !strings.Contains(log, "the claim org names no organization") {
			t.Error("the log does not say why a token was refused")
		}
	}
}

// TestForgedTokens presents tokens that prove nothing, over gRPC and REST: all get one
// answer, that of every bad credential. A server without issuers gives it to good ones.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	i := issuer.Start(t)
	w := newHarness(t, people(i))
	claims := issuer.Claims{"org": "*", "roles": []string{"admins"}}
	w.person(i, "good", claims)
	w.play(t, map[string]scenario{"good": {{rpc: "ListScopes", as: "$good.secret"}}})
	words := make(map[string]bool)
	forged := i.Forged(start, claims)
	for _, name := range slices.Sorted(maps.Keys(forged)) {
		s := step{rpc: "ListScopes", as: forged[name], want: "UNAUTHENTICATED"}
		for protocol, call := range map[string]func(*testing.T, step) answer{"rest": w.rest, "grpc": w.grpc} {
			if strings.ContainsFunc(forged[name], func(r rune) bool { return r < ' ' }) {
				continue // It cannot be sent.
			}
			a := call(t, s)
			if a.reason != s.want || a.retry != 0 {
				t.Errorf("%s over %s: %+v", name, protocol, a)
			}
			words[a.text] = true
		}
	}
	if len(words) != 1 {
		t.Errorf("words: %v", words)
	}
	if log := w.Log.String(); strings.Contains(log, forged["expired"]) || strings.Contains(log, forged["another audience"]) || !strings.Contains(log, "the audience of the token is") {
		t.Error("the log has a token, or not why it was refused")
	}
	if n := i.Fetches.Load(); n > 2 {
		t.Errorf("the keys were fetched %d times", n)
	}
	bare := newHarness(t)
	bare.saved = w.saved
	bare.play(t, map[string]scenario{"no issuer": {{rpc: "ListScopes", as: "$good.secret", want: "UNAUTHENTICATED"}}})
	if !words[bare.rest(t, step{rpc: "ListScopes", as: w.saved["good.secret"]}).text] {
		t.Error("other words where there is no issuer")
	}
}

// TestIssuerDown starts a server whose issuer is down: it serves, the tokens of that
// issuer are answered with what time helps against, and those of another are good.
func TestIssuerDown(t *testing.T) {
	t.Parallel()
	down, up := issuer.Start(t), issuer.Start(t)
	down.Break(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	w := newHarness(t, people(down), people(up))
	claims := issuer.Claims{"org": "a", "roles": "managers"}
	w.person(down, "anna", claims)
	w.person(up, "bert", claims)
	w.play(t, map[string]scenario{"down": {
		{rpc: "ListApiKeys", as: "$anna.secret", want: "UNAVAILABLE", retry: 10}, {rpc: "ListApiKeys", as: "$bert.secret"},
	}})
	down.Break(nil)
	w.play(t, map[string]scenario{"up": {{rpc: "ListApiKeys", as: "$anna.secret", after: 10 * time.Second}}})
	if lines := w.Log.Lines("level=ERROR"); len(lines) != 1 {
		t.Errorf("lines of errors: %q", lines)
	}
	// The subject of another issuer is another person.
	w.person(up, "anna", claims)
	w.play(t, map[string]scenario{"another": {{rpc: "GetCaller", as: "$anna.secret", data: `{"actor": {"id": "` + up.URL + `|anna"}}`}}})
}

// TestPersonsStreams has a stream end with the token, and not sooner; and bounds the
// streams of a person, whatever tokens open them.
func TestPersonsStreams(t *testing.T) {
	t.Parallel()
	i := issuer.Start(t)
	s := servertest.Start(t, people(i))
	// Who comes first waits for the keys of the issuer, on a busy machine not long enough.
	eventually(t, func() bool {
		_, err := s.Keys.ListApiKeys(servertest.As(t.Context(), i.Token(time.Now(), issuer.Claims{"org": "a", "roles": "auditors"})), &apikeysv1.ListApiKeysRequest{})
		return status.Code(err) != codes.Unavailable
	}, func() string { return "the keys of the issuer are not to be had" })
	now := time.Now()
	watch := func(exp time.Time, more issuer.Claims) (grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], error) {
		claims := issuer.Claims{"org": "a", "roles": "auditors", "exp": exp.Unix()}
		maps.Copy(claims, more)
		stream, err := apikeysv1.NewEventsServiceClient(s.Conn).WatchEvents(servertest.As(t.Context(), i.Token(now, claims)), &apikeysv1.WatchEventsRequest{HeartbeatSeconds: proto.Int32(1)})
		if err == nil {
			_, err = stream.Recv()
		}
		return stream, err
	}
	end := time.Unix(now.Add(3*time.Second).Unix(), 0)
	stream, err := watch(end, nil)
	for err == nil {
		_, err = stream.Recv()
	}
	if over := time.Since(end); status.Code(err) != codes.Unauthenticated || over < 0 || over > time.Second {
		t.Errorf("ended %s after the token, with %v", over, err)
	}
	for n := range 101 {
		_, err := watch(now.Add(time.Hour), issuer.Claims{"jti": n})
		want := codes.OK
		if n == 100 {
			want = codes.ResourceExhausted
		}
		if status.Code(err) != want {
			t.Fatalf("stream %d: %v", n+1, err)
		}
	}
	if _, err := watch(now.Add(time.Hour), issuer.Claims{"sub": "another"}); err != nil {
		t.Errorf("another person: %v", err)
	}
}

// TestIssuerReload reads the keys of an issuer anew, as SIGHUP does.
func TestIssuerReload(t *testing.T) {
	t.Parallel()
	i := issuer.Start(t)
	path := filepath.Join(t.TempDir(), "jwks.json")
	logger, log := logtest.New(slog.LevelInfo)
	c := server.Config{DataDir: t.TempDir(), RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", Logger: logger}
	people(i, func(i *identity.Issuer) { i.JWKSFile = path })(&c)
	if err := os.WriteFile(path, i.JWKS(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := server.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Reload(); err != nil || len(log.Lines("read anew")) != 1 {
		t.Errorf("%v: %s", err, log)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), "must be a JSON Web Key Set") || len(log.Lines("setting=oidc")) != 2 {
		t.Errorf("%v: %s", err, log)
	}
}

// TestIssuerSettings holds what is refused of the settings of issuers, and in which words.
func TestIssuerSettings(t *testing.T) {
	t.Parallel()
	logger, _ := logtest.New(slog.LevelInfo)
	config := func(all ...identity.Issuer) server.Config {
		return server.Config{DataDir: t.TempDir(), RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", OIDC: all, Logger: logger}
	}
	good := identity.Issuer{URL: "https://login.example.com", Audience: []string{"a"}, Organizations: []string{"*"}, ScopesClaim: "scope"}
	for want, change := range map[string]func(*identity.Issuer){
		`oidc[0].issuer: is required`:                         func(i *identity.Issuer) { i.URL = "" },
		`oidc[0].issuer: must begin with https://, unlike`:    func(i *identity.Issuer) { i.URL = "ftp://a" },
		`oidc[0].issuer: must begin with https://; http is`:   func(i *identity.Issuer) { i.URL = "http://login.example.com" },
		`oidc[0].issuer: must be a URL such as`:               func(i *identity.Issuer) { i.URL = "login.example.com" },
		`oidc[0].issuer: must be a URL without user`:          func(i *identity.Issuer) { i.URL = "https://a/?b" },
		`oidc[0].issuer: must be a URL of up to 255`:          func(i *identity.Issuer) { i.URL = "https://a/|" },
		`oidc[0].audience: is required`:                       func(i *identity.Issuer) { i.Audience = nil },
		`oidc[0].audience: must have 1 to 255 characters`:     func(i *identity.Issuer) { i.Audience = []string{""} },
		`oidc[0].algorithms: must not name HS256`:             func(i *identity.Issuer) { i.Algorithms = []string{"HS256"} },
		`oidc[0].algorithms: must not name none`:              func(i *identity.Issuer) { i.Algorithms = []string{"none"} },
		`oidc[0].algorithms: must be of RS256`:                func(i *identity.Issuer) { i.Algorithms = []string{"rs256"} },
		`oidc[0].typ: must have 1 to`:                         func(i *identity.Issuer) { i.Types = []string{""} },
		`oidc[0].organization_claim: must be the name`:        func(i *identity.Issuer) { i.OrganizationClaim = "a..b" },
		`oidc[0].organizations: must name the organizations`:  func(i *identity.Issuer) { i.Organizations = nil },
		`oidc[0].organizations: must have * alone`:            func(i *identity.Issuer) { i.Organizations = []string{"a", "*"} },
		`oidc[0].organizations[1]: `:                          func(i *identity.Issuer) { i.Organizations = []string{"a", "a b"} },
		`oidc[0].scopes_claim: must be set, or roles_claim`:   func(i *identity.Issuer) { i.ScopesClaim = "" },
		`oidc[0].roles_claim: must be set together`:           func(i *identity.Issuer) { i.Roles = map[string]identity.Grant{"a": {Role: "admin"}} },
		`oidc[0].roles: must be set together`:                 func(i *identity.Issuer) { i.RolesClaim = "r" },
		`oidc[0].roles.a: must be verifier, auditor, viewer,`: func(i *identity.Issuer) { i.RolesClaim, i.Roles = "r", map[string]identity.Grant{"a": {Role: "root"}} },
		`oidc[0].roles.a: must not name "x"`: func(i *identity.Issuer) {
			i.RolesClaim, i.Roles = "r", map[string]identity.Grant{"a": {Scopes: []string{"x"}}}
		},
		`oidc[0].clock_skew: must be at most 5m0s`: func(i *identity.Issuer) { i.ClockSkew = time.Hour },
		`oidc[0].jwks_file: open /nowhere`:         func(i *identity.Issuer) { i.JWKSFile = "/nowhere" },
	} {
		i := good
		change(&i)
		_, err := server.New(t.Context(), config(i))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for want, all := range map[string][]identity.Issuer{
		`oidc[1].issuer: is there twice`: {good, good}, `oidc: must have 20 issuers at most, not 21`: make([]identity.Issuer, 21),
	} {
		_, err := server.New(t.Context(), config(all...))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	local := good
	local.URL = "http://127.0.0.1:1"
	if faults := identity.Check([]identity.Issuer{local}, false, nil); len(faults) != 1 {
		t.Errorf("http in production: %v", faults)
	}
}
