package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// A fault is one way for a verification to fail: what makes the key or the
// request so.
type fault struct {
	code    string
	create  string // further fields of the key
	prepare []step
	request string // further fields of the request
}

// faults are in the order in which they are checked. The secret that is malformed
// or unknown is none of the key's, so those two come without a key.
var faults = []fault{
	{code: "revoked", prepare: []step{{rpc: "RevokeApiKey", id: "$k.id"}}},
	{code: "disabled", prepare: []step{{rpc: "UpdateApiKey", id: "$k.id", body: `{"enabled": false}`}}},
	{code: "expired", create: `, "expires_at": "$in(1s)"`},
	{code: "ip_not_allowed", create: `, "ip_allow_list": ["192.0.2.0/24"]`, request: `, "ip": "198.51.100.1"`},
	{code: "insufficient_scope", create: `, "scopes": ["products.read"]`, request: `, "scopes": ["products.read", "products.update"]`},
	{code: "rate_limited", create: `, "rate_limit": {"requests": 1, "window_seconds": 3600}`},
}

// TestOrder plays every pair of faults: the earlier one is the answer. A fault
// that comes first is never hidden by one that is told of later.
func TestOrder(t *testing.T) {
	t.Parallel()
	scenarios := make(map[string]scenario)
	for i, first := range faults {
		for _, second := range faults[i:] {
			create, request, prepare := first.create, first.request, first.prepare
			if second.code != first.code {
				create, request, prepare = create+second.create, request+second.request, append(prepare[:len(prepare):len(prepare)], second.prepare...)
			}
			if first.code == "revoked" && second.code == "disabled" {
				prepare = append([]step{}, second.prepare[0], first.prepare[0]) // a revoked key takes no update
			}
			s := scenario{{rpc: "CreateApiKey", body: `{"label": "k"` + create + `}`, save: "k"}}
			if second.code == "rate_limited" {
				s = append(s, step{rpc: "VerifyApiKey", body: `{"key": "$k.secret", "ip": "192.0.2.1", "scopes": []}`, data: `{"code": "valid", "rate_limit": {"limit": 1, "remaining": 0}}`})
			}
			s = append(s, prepare...)
			limit := ""
			if second.code == "rate_limited" {
				limit = `, "rate_limit": {"limit": 1, "remaining": 0}`
			}
			refused := step{rpc: "VerifyApiKey", after: 2 * time.Second, body: `{"key": "$k.secret"` + request + `}`,
				data: `{"valid": false, "code": "` + first.code + `", "api_key": {"id": "$k.id", "label": "k"}, "previous_secret": false` + limit + `}`}
			s = append(s, refused, refused)
			scenarios[first.code+" before "+second.code] = s
		}
	}
	newHarness(t).play(t, scenarios)
}

// TestVerify plays what a verification takes and answers.
func TestVerify(t *testing.T) {
	t.Parallel()
	unknown, err := apikey.NewSecret("sk_test_", nil)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(members, data string) step {
		return step{rpc: "VerifyApiKey", body: `{"key": "$k.secret"` + members + `}`, data: data}
	}
	verified := func(key, code string) step {
		return step{rpc: "VerifyApiKey", body: `{"key": "` + key + `"}`, data: `{"valid": false, "code": "` + code + `", "api_key": null, "rate_limit": null, "previous_secret": false, "retry_after_seconds": null}`}
	}
	const valid = `{"valid": true, "code": "valid"}`
	const outside, scope = `{"valid": false, "code": "ip_not_allowed"}`, `{"valid": false, "code": "insufficient_scope"}`
	made := func(members string) step {
		return step{rpc: "CreateApiKey", body: `{"label": "k"` + members + `}`, save: "k"}
	}
	newHarness(t).play(t, map[string]scenario{
		"malformed": {
			{rpc: "VerifyApiKey", body: `{}`, data: `{"code": "malformed"}`}, {rpc: "VerifyApiKey", body: `{"key": null}`, data: `{"code": "malformed"}`},
			verified("", "malformed"), verified("x", "malformed"), verified("sk_live_", "malformed"), verified(strings.Repeat("x", 513), "malformed"), verified(strings.Repeat("ü", 100000), "malformed"), verified("a\\u0000b", "malformed"),
			made(""), verified("$k.secretx", "malformed"), verified(" $k.secret", "malformed"), verified("Bearer $k.secret", "malformed"), verified("$k.id", "malformed"),
			verified("sk_live_MDE5N2MwZWMtYTE5Ny03NDVlLWE1YmMtYzQyNTQ4M2JiZjAxX2JpdGdwdA", "malformed"), verified(strings.Repeat("0", 57), "malformed"),
		},
		"not found": {
			verified(unknown.Reveal(), "not_found"),
			{rpc: "CreateApiKey", body: `{"label": "k"}`, save: "k", head: "X-Organization-Id: org_v"}, verified("$k.secret", "not_found"),
			{rpc: "VerifyApiKey", body: `{"key": "$k.secret"}`, head: "X-Organization-Id: org_v", data: valid},
			{rpc: "VerifyApiKey", body: `{"key": "$k.secret"}`, head: "X-Organization-Id: *", data: valid},
			{rpc: "RevokeApiKey", id: "$k.id", head: "X-Organization-Id: org_v"}, verified("$k.secret", "not_found"), // nothing of its state
			made(""), {rpc: "DeleteApiKey", id: "$k.id"}, verified("$k.secret", "not_found"),
		},
		"answer": {
			made(`, "mode": "test", "rate_limit": {"requests": 10, "window_seconds": 10}`),
			verify(``, `{"valid": true, "code": "valid", "previous_secret": false, "retry_after_seconds": null, "rate_limit": {"limit": 10, "remaining": 9, "reset_at": "$in(1s)"},
				"api_key": {"id": "$k.id", "mode": "test", "state": "active", "metrics": {"api_key_id": "$k.id", "total_requests": 1, "last_used_at": "$in(0s)"}}}`),
			// A cost of zero checks, and is no use: the last one stays a second ago.
			verify(`, "cost": 0`, `{"valid": true, "rate_limit": {"remaining": 10}, "api_key": {"metrics": {"total_requests": 1, "last_used_at": "$in(-1s)"}}}`).later(time.Second),
			{rpc: "BatchVerifyApiKeys", body: `{"keys": [{"key": "$k.secret", "cost": 0}]}`,
				data: `[{"valid": true, "api_key": {"metrics": {"total_requests": 1, "last_used_at": "$in(-1s)"}}}]`},
			verify(`, "cost": 10`, `{"valid": true, "rate_limit": {"remaining": 0, "reset_at": "$in(10s)"}}`),
			verify(`, "cost": 0`, valid), verify(`, "cost": 1`, `{"code": "rate_limited", "retry_after_seconds": 1, "api_key": {"metrics": {"total_requests": 2}}}`),
			verify(`, "cost": 11`, ``).failing("INVALID_ARGUMENT", "cost"),
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"rate_limit": null}`}, verify(`, "cost": 1000000`, `{"valid": true, "rate_limit": null}`),
		},
		"limit": { // a burst, refilled evenly
			made(`, "rate_limit": {"requests": 2, "window_seconds": 4}`), verify(``, valid), verify(``, valid), verify(``, `{"code": "rate_limited", "retry_after_seconds": 2}`),
			verify(``, `{"code": "rate_limited", "retry_after_seconds": 1}`).later(1500 * time.Millisecond), verify(``, valid).later(500 * time.Millisecond), verify(``, `{"code": "rate_limited"}`),
			verify(``, valid).later(time.Hour), verify(``, valid), verify(``, `{"code": "rate_limited"}`), // an hour is no more than one burst
		},
		"exact limit": { // the same of one server
			made(`, "rate_limit": {"requests": 2, "window_seconds": 4, "mode": "exact"}`),
			verify(`, "cost": 0`, `{"valid": true, "rate_limit": {"limit": 2, "remaining": 2, "reset_at": "$in(0s)"}, "api_key": {"rate_limit": {"mode": "exact"}}}`),
			verify(``, `{"valid": true, "rate_limit": {"limit": 2, "remaining": 1, "reset_at": "$in(2s)"}}`), verify(``, valid),
			verify(``, `{"code": "rate_limited", "retry_after_seconds": 2, "rate_limit": {"remaining": 0, "reset_at": "$in(4s)"}}`), verify(`, "cost": 0`, valid),
			verify(``, `{"code": "rate_limited", "retry_after_seconds": 1}`).later(1500 * time.Millisecond), verify(``, valid).later(500 * time.Millisecond), verify(``, `{"code": "rate_limited"}`),
			verify(`, "cost": 2`, valid).later(time.Hour), verify(``, `{"code": "rate_limited"}`), verify(`, "cost": 3`, ``).failing("INVALID_ARGUMENT", "cost"),
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"rate_limit": {"requests": 3}}`, data: `{"rate_limit": {"requests": 3, "window_seconds": 4, "mode": "exact"}}`},
			verify(``, `{"valid": true, "rate_limit": {"limit": 3, "remaining": 0}}`),
			step{rpc: "BatchVerifyApiKeys", body: `{"keys": [{"key": "$k.secret", "cost": 2}, {"key": "$k.secret", "cost": 2}, {"key": "$k.secret", "cost": 1}, {"key": "$k.secret", "cost": 4}]}`,
				data: `[{"valid": true, "rate_limit": {"remaining": 1}}, {"code": "rate_limited"}, {"valid": true, "rate_limit": {"remaining": 0}}, {"code": "rate_limited", "retry_after_seconds": null}]`}.later(time.Hour),
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"rate_limit": {"mode": "local"}}`, data: `{"rate_limit": {"requests": 3, "window_seconds": 4, "mode": "local"}}`}, verify(``, valid),
		},
		"exact limit and quota": { // a call that one of the two refuses spends neither
			made(`, "rate_limit": {"requests": 3, "window_seconds": 3600, "mode": "exact"}, "quota": {"limit": 2}`), verify(`, "cost": 2`, `{"valid": true, "rate_limit": {"remaining": 1}, "quota": {"remaining": 0}}`),
			verify(``, `{"code": "quota_exceeded", "rate_limit": {"remaining": 1}}`), {rpc: "UpdateApiKey", id: "$k.id", body: `{"quota": {"remaining": 2}}`},
			verify(`, "cost": 2`, `{"code": "rate_limited", "quota": {"remaining": 2}, "rate_limit": {"remaining": 1}}`), verify(``, `{"valid": true, "rate_limit": {"remaining": 0}, "quota": {"remaining": 1}}`),
		},
		"address": {
			made(`, "ip_allow_list": ["192.0.2.0/24", "2001:db8::/32", "198.51.100.1"]`),
			verify(`, "ip": "192.0.2.255"`, valid), verify(`, "ip": "::ffff:192.0.2.1"`, valid), verify(`, "ip": "2001:DB8:0:0::1"`, valid), verify(`, "ip": "198.51.100.1"`, valid),
			verify(``, outside), verify(`, "ip": ""`, outside), verify(`, "ip": null`, outside), verify(`, "ip": "192.0.3.0"`, outside), verify(`, "ip": "192.0.2.1:80"`, outside), verify(`, "ip": "192.0.2.01"`, outside),
			verify(`, "ip": "192.0.2.0/24"`, outside), verify(`, "ip": " 192.0.2.1"`, outside), verify(`, "ip": "localhost"`, outside), verify(`, "ip": "2001:db9::1"`, outside), verify(`, "ip": "64:ff9b::192.0.2.1"`, outside),
			made(``), verify(``, valid), verify(`, "ip": "nonsense"`, valid),
		},
		"scopes": {
			made(`, "scopes": ["products.read", "invoices.read"]`),
			verify(`, "scopes": []`, valid), verify(`, "scopes": null`, valid), verify(`, "scopes": ["products.read"]`, valid), verify(`, "scopes": ["invoices.read", "products.read", "invoices.read"]`, valid),
			verify(`, "scopes": ["products.update"]`, scope), verify(`, "scopes": ["products.read", "products.update"]`, scope), verify(`, "scopes": ["*"]`, scope), verify(`, "scopes": ["nothing.like.it"]`, scope),
			verify(`, "scopes": ["PRODUCTS.READ"]`, scope), verify(`, "scopes": ["products"]`, scope), verify(`, "scopes": [""]`, scope),
			made(`, "scopes": ["*"]`), verify(`, "scopes": ["*", "products.read", "nothing.like.it"]`, valid), made(``), verify(``, valid), verify(`, "scopes": ["products.read"]`, scope),
		},
	})
}

// failing is the step with a failure that it has to end in.
func (s step) failing(reason, field string) step {
	s.want, s.field = reason, field
	return s
}

// later is the step with the clock put on before it.
func (s step) later(d time.Duration) step {
	s.after = d
	return s
}

// TestInForce changes a key in every way that ends it, and verifies it at once.
func TestInForce(t *testing.T) {
	t.Parallel()
	scenarios := make(map[string]scenario)
	for code, end := range map[string]step{
		"revoked": {rpc: "RevokeApiKey"}, "disabled": {rpc: "UpdateApiKey", body: `{"enabled": false}`}, "not_found": {rpc: "DeleteApiKey"},
		"ip_not_allowed": {rpc: "UpdateApiKey", body: `{"ip_allow_list": ["192.0.2.1"]}`}, "insufficient_scope": {rpc: "UpdateApiKey", body: `{"scopes": []}`},
		"rate_limited": {rpc: "UpdateApiKey", body: `{"rate_limit": {"requests": 1, "window_seconds": 86400}}`}, "rotated": {rpc: "RotateApiKey", body: endNow},
	} {
		verify := step{rpc: "VerifyApiKey", body: `{"key": "$k.secret", "scopes": ["products.read"]}`, data: `{"code": "valid"}`}
		s := scenario{{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["products.read"]}`, save: "k"}, verify}
		if end.id = "$k.id"; code == "rate_limited" {
			s = append(s, end, verify) // the new limit begins full
		} else {
			s = append(s, end)
		}
		verify.data = fmt.Sprintf(`{"valid": false, "code": %q}`, strings.ReplaceAll(code, "rotated", "not_found"))
		scenarios[code] = append(s, verify)
	}
	newHarness(t).play(t, scenarios)
}
