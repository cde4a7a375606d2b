package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
)

// operatorToken is a step that makes an access token of an operator.
func operatorToken(name, fields string) step {
	return step{rpc: "CreateOperatorToken", save: name, body: `{"name": "` + name + `", ` + fields + `}`}
}

// TestOperatorTokens plays the life of a token.
func TestOperatorTokens(t *testing.T) {
	t.Parallel()
	const missing, invalid = "OPERATOR_TOKEN_NOT_FOUND", "INVALID_ARGUMENT"
	update := func(body, want string, fields ...string) step {
		s := step{rpc: "UpdateOperatorToken", id: "$t.id", body: body, want: want}
		if len(fields) > 0 {
			s.field = fields[0]
		}
		return s
	}
	bad := func(body, fields string) step {
		return step{rpc: "CreateOperatorToken", body: body, want: invalid, field: fields}
	}
	newHarness(t).play(t, map[string]scenario{
		"life": {
			operatorToken("t", `"role": "verifier", "organizations": ["*"], "description": "of the gateway"`),
			{rpc: "GetOperatorToken", id: "$t.id", data: `{"id": "$t.id", "name": "t", "role": "verifier", "scopes": ["api_keys.verify"], "organizations": ["*"],
				"description": "of the gateway", "ip_allow_list": [], "expires_at": null, "updated_at": null, "last_used_at": null, "last_used_ip": "",
				"previous_secret_expires_at": null, "etag": "1", "created_by": {"kind": "operator", "id": "root", "name": "root"}}`},
			update(`{"name": "renamed", "ip_allow_list": ["127.0.0.0/8"]}`, ""),
			{rpc: "UpdateOperatorToken", id: "$t.id", body: `{"name": "renamed"}`, quiet: true, data: `{"name": "renamed", "etag": "2", "ip_allow_list": ["127.0.0.0/8"]}`},
			{rpc: "UpdateOperatorToken", id: "$t.id", body: `{"name": "x"}`, match: "1", want: "ETAG_MISMATCH"},
			{rpc: "UpdateOperatorToken", id: "$t.id", body: `{"scopes": ["api_keys.read", "api_keys.read"], "expires_at": "$in(1h)"}`, match: "2", data: `{"scopes": ["api_keys.read"], "role": null, "expires_at": "$in(1h)"}`},
			{rpc: "ListApiKeys", as: "$t.secret", head: "X-Organization-Id: org_any"},
			{rpc: "RotateOperatorToken", id: "$t.id", body: `{"overlap_seconds": 60}`, save: "new", data: `{"id": "$t.id", "previous_secret_expires_at": "$in(1m)"}`},
			{rpc: "RotateOperatorToken", id: "$t.id", body: `{"overlap_seconds": 60}`, want: "ROTATION_IN_PROGRESS"},
			{rpc: "ListApiKeys", as: "$t.secret", head: "X-Organization-Id: org_any"}, {rpc: "ListApiKeys", as: "$new.secret", head: "X-Organization-Id: org_any"},
			{rpc: "RotateOperatorToken", id: "$t.id", body: `{"overlap_seconds": 0, "end_previous": true}`, save: "third"},
			{rpc: "ListApiKeys", as: "$t.secret", want: "UNAUTHENTICATED"}, {rpc: "ListApiKeys", as: "$new.secret", want: "UNAUTHENTICATED"},
			{rpc: "ListApiKeys", as: "$third.secret", head: "X-Organization-Id: *"},
			{rpc: "ListApiKeys", as: "$third.secret", after: time.Hour, head: "X-Organization-Id: *", want: "UNAUTHENTICATED"},
			{rpc: "RotateOperatorToken", id: "$t.id", body: endNow, want: "OPERATOR_TOKEN_EXPIRED"},
			update(`{"expires_at": null}`, ""), {rpc: "ListApiKeys", as: "$third.secret", head: "X-Organization-Id: *"},
			{rpc: "DeleteOperatorToken", id: "$t.id", data: `{"id": "$t.id"}`},
			{rpc: "ListApiKeys", as: "$third.secret", want: "UNAUTHENTICATED"},
			{rpc: "DeleteOperatorToken", id: "$t.id", want: missing}, {rpc: "GetOperatorToken", id: "$t.id", want: missing},
			update(`{"name": "x"}`, missing), {rpc: "RotateOperatorToken", id: "$t.id", body: endNow, want: missing},
			{rpc: "GetOperatorToken", id: "operator_token_x", want: missing}, {rpc: "GetOperatorToken", id: "root", want: missing},
			{rpc: "DeleteOperatorToken", id: "$t.secret", want: invalid, field: "id"},
		},
		"roles": {
			operatorToken("a", `"role": "viewer", "organizations": ["a"]`), operatorToken("a", `"role": "manager", "organizations": ["a"]`),
			operatorToken("a", `"role": "auditor", "organizations": ["a"]`), operatorToken("b", `"role": "admin", "organizations": ["a"]`),
			{rpc: "GetOperatorToken", id: "$b.id", data: `{"role": "admin", "scopes": ["*", "operator_tokens.*"]}`},
			{rpc: "GetOperatorToken", id: "$a.id", data: `{"role": "auditor", "scopes": ["events.read", "api_keys.read"]}`},
			operatorToken("a", `"scopes": ["app:*", "operator_tokens.read", "products.read"], "organizations": ["a", "b", "a"]`),
			{rpc: "GetOperatorToken", id: "$a.id", data: `{"role": null, "organizations": ["a", "b"]}`},
		},
		"faults": {
			bad(`{}`, "name scopes organizations"), bad(`{"name": "x", "role": "verifier"}`, "organizations"), bad(`{"name": " ", "role": "verifier", "organizations": ["a"]}`, "name"),
			bad(`{"name": "x", "organizations": ["a"]}`, "scopes"), bad(`{"name": "x", "organizations": ["a"], "scopes": []}`, "scopes"),
			bad(`{"name": "x", "organizations": ["a"], "scopes": ["api_keys.raed", "root", "operator_tokens", "app", "api_keys.*"]}`, "scopes[0] scopes[1] scopes[2] scopes[3] scopes[4]"),
			bad(`{"name": "x", "organizations": ["a"], "role": "verifier", "scopes": ["api_keys.read"]}`, "role"), bad(`{"name": "x", "organizations": ["a"], "scopes": ["api_keys.read"], "role": "root"}`, "role"),
			bad(`{"name": "x", "organizations": ["a", "*"], "role": "viewer"}`, "organizations[1]"), bad(`{"name": "x", "organizations": ["a b", ""], "role": "viewer"}`, "organizations[0] organizations[1]"),
			bad(`{"name": "x", "organizations": [], "role": "viewer", "ip_allow_list": ["10.0.0.1/8"], "expires_at": "$in(-1h)"}`, "organizations ip_allow_list[0] expires_at"),
			bad(`{"name": "x", "organizations": ["*"], "role": "viewer", "id": "operator_token_1"}`, "id"),
			operatorToken("t", `"role": "verifier", "organizations": ["a"]`),
			update(`{"name": null}`, invalid, "name"), update(`{"organizations": null}`, invalid, "organizations"), update(`{"scopes": []}`, invalid, "scopes"),
			update(`{"role": "admin"}`, invalid, "role"), update(`{"secret": "x"}`, invalid, "secret"), update(`{"last_used_at": null}`, invalid, "last_used_at"), update(`{"etag": null}`, invalid, "etag"),
			{rpc: "CreateOperatorToken", body: `{"name": "$t.secret", "organizations": ["a"], "role": "viewer"}`, want: invalid, field: "name"},
			{rpc: "CreateApiKey", body: `{"label": "$t.secret"}`, want: invalid, field: "label"},
			update(`{"description": "see $t.secret"}`, invalid, "description"),
			{rpc: "VerifyApiKey", body: `{"key": "$t.secret"}`, data: `{"code": "malformed"}`},
		},
	})
}

// TestOperatorTokensMax plays the bound on their number: each delegate has its own, which
// its tokens share, also after it was deleted.
func TestOperatorTokensMax(t *testing.T) {
	t.Parallel()
	w := newHarness(t, func(c *server.Config) { c.OperatorTokensMax = 2 })
	admin := func(as, name string) step {
		s := operatorToken(name, `"role": "admin", "organizations": ["a"]`)
		s.as = as
		return s
	}
	full := func(as string) step {
		s := admin(as, "full")
		s.want, s.save = "TOO_MANY_OPERATOR_TOKENS", ""
		return s
	}
	remove := func(name string) step { return step{rpc: "DeleteOperatorToken", id: "$" + name + ".id"} }
	w.play(t, map[string]scenario{"full": {
		admin("", "a"), admin("", "b"), full(""),
		admin("$a.secret", "child"), admin("$child.secret", "grandchild"),
		full("$a.secret"), full("$child.secret"), full("$grandchild.secret"),
		admin("$b.secret", "other"), full(""),
		remove("a"), admin("", "a"), full(""), full("$child.secret"),
		remove("grandchild"), admin("$child.secret", "grandchild"), full("$grandchild.secret"),
		remove("grandchild"), remove("child"), remove("other"), remove("b"), remove("a"),
	}})
}

// TestOperatorOrganizations plays in which organizations a token acts.
func TestOperatorOrganizations(t *testing.T) {
	t.Parallel()
	const denied, invalid, field = "WRONG_ORGANIZATION", "INVALID_ARGUMENT", "x-organization-id"
	in := func(organization string) string { return "X-Organization-Id: " + organization }
	list := func(as, head, want, data string) step {
		s := step{rpc: "ListApiKeys", as: as, head: head, want: want, data: data}
		if want == invalid {
			s.field = field
		}
		return s
	}
	one, two, all := operatorToken("one", `"role": "manager", "organizations": ["one_$n"]`), operatorToken("two", `"role": "manager", "organizations": ["one_$n", "two_$n"]`), operatorToken("all", `"role": "manager", "organizations": ["*"]`)
	for _, protocol := range []string{"rest", "grpc"} {
		// Each protocol has organizations of its own, since lists are compared.
		name := func(s step) step {
			s.only = protocol
			for _, text := range []*string{&s.body, &s.head, &s.data} {
				*text = strings.ReplaceAll(*text, "$n", protocol)
			}
			return s
		}
		w := newHarness(t)
		var play scenario
		for _, s := range (scenario{
			one, two, all,
			{rpc: "CreateApiKey", body: `{"label": "k"}`, head: in("one_$n"), save: "a"}, {rpc: "CreateApiKey", body: `{"label": "k"}`, head: in("two_$n"), save: "b"},
			{rpc: "CreateApiKey", body: `{"label": "k"}`, head: in("three_$n"), save: "c"},
			list("$one.secret", "", "", `[{"id": "$a.id"}]`), list("$one.secret", in("one_$n"), "", `[{"id": "$a.id"}]`), list("$one.secret", in("*"), "", `[{"id": "$a.id"}]`),
			list("$one.secret", in("two_$n"), denied, ""), list("$one.secret", in("a b"), denied, ""),
			list("$two.secret", "", invalid, ""), list("$two.secret", in("two_$n"), "", `[{"id": "$b.id"}]`), list("$two.secret", in("*"), "", `[{"id": "$a.id"}, {"id": "$b.id"}]`),
			list("$two.secret", in("three_$n"), denied, ""),
			list("$all.secret", "", invalid, ""), list("$all.secret", in("three_$n"), "", `[{"id": "$c.id"}]`), list("$all.secret", in("*"), "", `[{"id": "$a.id"}, {"id": "$b.id"}, {"id": "$c.id"}]`),
			list("$all.secret", in("a b"), invalid, ""), list("$all.secret", in("a")+"\n"+in("b"), invalid, ""),
			// An id of elsewhere is one that does not exist.
			{rpc: "GetApiKey", id: "$b.id", as: "$one.secret", want: "API_KEY_NOT_FOUND"}, {rpc: "DeleteApiKey", id: "$b.id", as: "$one.secret", want: "API_KEY_NOT_FOUND"},
			{rpc: "GetApiKey", id: "$c.id", as: "$two.secret", head: in("one_$n"), want: "API_KEY_NOT_FOUND"},
			{rpc: "VerifyApiKey", body: `{"key": "$b.secret"}`, as: "$one.secret", data: `{"code": "not_found"}`}, {rpc: "VerifyApiKey", body: `{"key": "$b.secret"}`, as: "$one.secret", head: in("*"), data: `{"code": "not_found"}`},
			{rpc: "VerifyApiKey", body: `{"key": "$b.secret"}`, as: "$two.secret", head: in("*"), data: `{"code": "valid"}`}, {rpc: "VerifyApiKey", body: `{"key": "$c.secret"}`, as: "$two.secret", head: in("*"), data: `{"code": "not_found"}`},
			{rpc: "BatchVerifyApiKeys", body: `{"keys": [{"key": "$a.secret"}, {"key": "$c.secret"}]}`, as: "$two.secret", head: in("*"), data: `[{"code": "valid"}, {"code": "not_found"}]`},
			{rpc: "VerifyApiKey", body: `{"key": "$c.secret"}`, as: "$all.secret", head: in("*"), data: `{"code": "valid"}`},
			{rpc: "CreateApiKey", body: `{"label": "x"}`, as: "$two.secret", head: in("*"), want: invalid, field: field}, {rpc: "CreateApiKey", body: `{"label": "x"}`, as: "$one.secret", head: in("*"), want: invalid, field: field},
			{rpc: "CreateApiKey", body: `{"label": "x"}`, as: "$one.secret", data: `{"organization_id": "one_$n"}`},
			// What is in no organization needs none.
			{rpc: "ListScopes", as: "$two.secret"}, {rpc: "GetCaller", as: "$two.secret", data: `{"organization_id": "", "organizations": ["one_$n", "two_$n"]}`},
			{rpc: "GetCaller", as: "$two.secret", head: in("two_$n"), data: `{"organization_id": "two_$n"}`}, {rpc: "GetCaller", as: "$two.secret", head: in("three_$n"), want: denied},
			{rpc: "GetCaller", as: "$one.secret", data: `{"organization_id": "one_$n", "organizations": ["one_$n"], "credential": "operator_token", "expires_at": null, "ip": "127.0.0.1", "mode": "live",
				"actor": {"kind": "operator", "id": "$one.id", "name": "one"}}`},
			{rpc: "GetCaller", data: `{"organization_id": "org_default", "organizations": ["*"], "credential": "root_token", "granted_scopes": ["*", "operator_tokens.*"], "actor": {"kind": "operator", "id": "root", "name": "root"}}`},
		}) {
			play = append(play, name(s))
		}
		w.play(t, map[string]scenario{"organizations": play})
	}
}
