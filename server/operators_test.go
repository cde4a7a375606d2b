package server_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestOperatorStreams has a token's streams end with it, and a stream of several
// organizations hold what is of them and nothing else.
func TestOperatorStreams(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	for name, end := range map[string]struct {
		verb, path, body string
		want             codes.Code
	}{
		"deleted":             {http.MethodDelete, "", "", codes.Unauthenticated},
		"rotated":             {http.MethodPost, "/rotate", `{"overlap_seconds": 0}`, codes.Unauthenticated},
		"without its scope":   {http.MethodPatch, "", `{"scopes": ["api_keys.read"]}`, codes.PermissionDenied},
		"elsewhere":           {http.MethodPatch, "", `{"ip_allow_list": ["192.0.2.1"]}`, codes.PermissionDenied},
		"other organizations": {http.MethodPatch, "", `{"organizations": ["a"]}`, codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var token struct{ ID, Secret string }
			s.Call(t, http.MethodPost, tokensPath, `{"name": "t", "role": "auditor", "organizations": ["a", "b"]}`).Into(t, &token)
			stream, err := apikeysv1.NewEventsServiceClient(s.Conn).WatchEvents(servertest.As(t.Context(), token.Secret, "x-organization-id", "*"), &apikeysv1.WatchEventsRequest{After: "start"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if a := s.Call(t, end.verb, tokensPath+"/"+token.ID+end.path, end.body); a.Status != http.StatusOK {
				t.Fatal(a)
			}
			for err == nil {
				var m *apikeysv1.WatchEventsResponse
				if m, err = stream.Recv(); err == nil && m.GetEvent() != nil && !slices.Contains([]string{"a", "b"}, m.GetEvent().GetOrganizationId()) {
					t.Errorf("an event of %q", m.GetEvent().GetOrganizationId())
				}
			}
			if status.Code(err) != end.want {
				t.Errorf("ended after %s with %v, want %s", time.Since(began), err, end.want)
			}
		})
	}
}

// TestOperatorEvents has the events about operators seen by those alone who ask for all
// organizations with a credential for all of them.
func TestOperatorEvents(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	for _, s := range []step{
		operatorToken("all", `"role": "auditor", "organizations": ["*"]`), operatorToken("two", `"role": "auditor", "organizations": ["a", "b"]`),
		{rpc: "CreateApiKey", body: `{"label": "k"}`, head: "X-Organization-Id: a"},
	} {
		w.take(t, s.rpc, "rest", s)
	}
	const all = "X-Organization-Id: *"
	about := []byte(`[{"type": "root_token.used", "organization_id": "", "actor": {"kind": "operator", "id": "root", "name": "root"}, "operator_token": null},
		{"type": "operator_token.created", "operator_token": {"name": "all"}}, {"type": "operator_token.created", "operator_token": {"name": "two"}},
		{"type": "api_key.created", "organization_id": "a", "operator_token": null}]`)
	w.play(t, map[string]scenario{
		"all":            {{rpc: "ListEvents", as: "$all.secret", head: all, data: string(about)}},
		"the root token": {{rpc: "ListEvents", head: all, data: string(about)}},
		"several":        {{rpc: "ListEvents", as: "$two.secret", head: all, data: `[{"type": "api_key.created"}]`}},
		"one":            {{rpc: "ListEvents", as: "$all.secret", head: "X-Organization-Id: a", data: `[{"type": "api_key.created"}]`}},
		"none of it":     {{rpc: "ListEvents", as: "$two.secret", head: "X-Organization-Id: b", data: `[]`}},
		"by type":        {{rpc: "ListEvents", as: "$two.secret", head: all, body: "types=operator_token.created", data: `[]`}},
		"by actor":       {{rpc: "ListEvents", head: all, body: "actor=$all.id", data: `[]`}, {rpc: "ListEvents", as: "$two.secret", head: all, body: "actor=root", data: `[{"type": "api_key.created"}]`}},
	})
	// Alone, because time goes on for everybody.
	w.play(t, map[string]scenario{
		"the next hour": {{rpc: "ListEvents", head: all, only: "rest", after: time.Hour, body: "types=root_token.used", data: `[{"api_key": null}, {"api_key": null}]`}, {rpc: "ListEvents", head: all, only: "rest", body: "types=root_token.used", data: `[{"api_key": null}, {"api_key": null}]`}},
	})
}

// TestOperatorsWithin plays that tokens and keys are made within the token that makes
// them, that tokens of other organizations do not exist for it, and what its previous
// secret may not do.
func TestOperatorsWithin(t *testing.T) {
	t.Parallel()
	const exceeds, missing, lacks = "EXCEEDS_CALLER", "OPERATOR_TOKEN_NOT_FOUND", "INSUFFICIENT_SCOPE"
	const in = "$c.secret"
	create := func(fields, want string) step {
		return step{rpc: "CreateOperatorToken", as: in, body: `{"name": "x", ` + fields + `}`, want: want}
	}
	update := func(id, fields, want string) step {
		return step{rpc: "UpdateOperatorToken", as: in, id: id, body: `{` + fields + `}`, want: want}
	}
	caller := operatorToken("c", `"scopes": ["*", "operator_tokens.*"], "organizations": ["a", "b"], "ip_allow_list": ["127.0.0.0/8"], "expires_at": "$in(2h)"`)
	const within = `"ip_allow_list": ["127.0.0.1"], "expires_at": "$in(1h)"`
	newHarness(t).play(t, map[string]scenario{
		"create": {
			caller,
			create(`"role": "admin", "organizations": ["a"], `+within, ""), create(`"scopes": ["app:*", "operator_tokens.read"], "organizations": ["b", "a"], `+within, ""),
			create(`"role": "verifier", "organizations": ["*"], `+within, exceeds), create(`"role": "verifier", "organizations": ["c"], `+within, exceeds), create(`"role": "verifier", "organizations": ["a", "c"], `+within, exceeds),
			create(`"role": "verifier", "organizations": ["a"]`, exceeds), create(`"role": "verifier", "organizations": ["a"], "ip_allow_list": ["127.0.0.1"]`, exceeds), create(`"role": "verifier", "organizations": ["a"], "expires_at": "$in(1h)"`, exceeds),
			create(`"role": "verifier", "organizations": ["a"], "ip_allow_list": ["0.0.0.0/0"], "expires_at": "$in(1h)"`, exceeds), create(`"role": "verifier", "organizations": ["a"], "ip_allow_list": ["127.0.0.1"], "expires_at": "$in(3h)"`, exceeds),
		},
		"scopes": {
			operatorToken("c", `"scopes": ["operator_tokens.create", "operator_tokens.update", "events.read", "app:*"], "organizations": ["*"]`),
			create(`"scopes": ["products.read", "app:*", "operator_tokens.update"], "organizations": ["*"]`, ""), create(`"scopes": ["*"], "organizations": ["*"]`, exceeds), create(`"scopes": ["operator_tokens.*"], "organizations": ["*"]`, exceeds),
			create(`"scopes": ["operator_tokens.read"], "organizations": ["*"]`, exceeds), create(`"scopes": ["api_keys.read"], "organizations": ["*"]`, exceeds), create(`"role": "auditor", "organizations": ["*"]`, exceeds),
			operatorToken("o", `"role": "admin", "organizations": ["a"]`), update("$o.id", `"name": "renamed"`, ""), update("$o.id", `"expires_at": "$in(1h)"`, exceeds), update("$o.id", `"scopes": ["events.read"]`, ""),
			{rpc: "RotateOperatorToken", as: in, id: "$o.id", body: endNow}, {rpc: "DeleteOperatorToken", as: in, id: "$o.id", want: lacks}, {rpc: "ListOperatorTokens", as: in, want: lacks},
			operatorToken("o", `"role": "admin", "organizations": ["a"]`), {rpc: "RotateOperatorToken", as: in, id: "$o.id", body: endNow, want: exceeds},
			update("$c.id", `"scopes": ["*"]`, exceeds), update("$c.id", `"scopes": ["operator_tokens.*"]`, exceeds),
		},
		"only its organizations": {
			caller, operatorToken("o", `"role": "verifier", "organizations": ["b", "c"]`), operatorToken("all", `"role": "verifier", "organizations": ["*"]`),
			{rpc: "GetOperatorToken", as: in, id: "$o.id", want: missing}, {rpc: "GetOperatorToken", as: in, id: "$all.id", want: missing}, update("$o.id", `"name": "x"`, missing), update("$o.id", `"organizations": ["a"]`, missing),
			{rpc: "RotateOperatorToken", as: in, id: "$o.id", body: endNow, want: missing}, {rpc: "DeleteOperatorToken", as: in, id: "$all.id", want: missing},
			update("$c.id", `"organizations": ["*"]`, exceeds), update("$c.id", `"organizations": ["a", "b", "c"]`, exceeds), update("$c.id", `"expires_at": null`, exceeds), update("$c.id", `"ip_allow_list": null`, exceeds), update("$c.id", `"organizations": ["a"]`, ""),
		},
		"its keys": {
			caller,
			{rpc: "CreateApiKey", as: in, head: "X-Organization-Id: a", body: `{"label": "x", "scopes": ["*"], ` + within + `}`, data: `{"created_by": {"kind": "operator", "id": "$c.id", "name": "c"}}`, save: "k"},
			{rpc: "CreateApiKey", as: in, head: "X-Organization-Id: a", body: `{"label": "x"}`, want: exceeds},
			{rpc: "CreateOperatorToken", as: "$k.secret", body: `{"name": "x", "role": "verifier", "organizations": ["a"]}`, want: lacks}, {rpc: "ListOperatorTokens", as: "$k.secret", want: lacks},
			{rpc: "VerifyApiKey", as: in, head: "X-Organization-Id: a", body: `{"key": "$k.secret", "ip": "127.0.0.1", "scopes": ["operator_tokens.read"]}`, data: `{"code": "insufficient_scope"}`},
			{rpc: "CreateApiKey", body: `{"label": "x", "scopes": ["operator_tokens.read"]}`, want: "INVALID_ARGUMENT", field: "scopes[0]"}, {rpc: "CreateApiKey", body: `{"label": "x", "scopes": ["app:*"]}`, want: "INVALID_ARGUMENT", field: "scopes[0]"},
		},
		"a previous secret": {
			operatorToken("c", `"role": "admin", "organizations": ["*"]`), {rpc: "RotateOperatorToken", id: "$c.id", body: `{"overlap_seconds": 3600}`, save: "new"},
			create(`"role": "verifier", "organizations": ["a"]`, exceeds), create(`"role": "verifier", "organizations": ["a"], "expires_at": "$in(1h)"`, ""),
			update("$c.id", `"name": "y"`, "PREVIOUS_SECRET"), {rpc: "RotateOperatorToken", as: in, id: "$c.id", body: endNow, want: "PREVIOUS_SECRET"},
			{rpc: "GetCaller", as: in, data: `{"previous_secret": true, "expires_at": "$in(1h)"}`}, {rpc: "UpdateOperatorToken", as: "$new.secret", id: "$c.id", body: `{"name": "y"}`},
		},
	})
}
