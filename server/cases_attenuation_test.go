package server_test

import (
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
)

// TestWithin plays what a caller that is a key may grant, for create, update and
// rotate.
func TestWithin(t *testing.T) {
	t.Parallel()
	const exceeds, in = "EXCEEDS_CALLER", "$c.secret"
	create := func(body, want string) step {
		return step{rpc: "CreateApiKey", as: in, body: `{"label": "x"` + body + `}`, want: want}
	}
	update := func(body, want string) step {
		return step{rpc: "UpdateApiKey", as: in, id: "$k.id", body: `{` + body + `}`, want: want}
	}
	rotate := func(want string) step {
		return step{rpc: "RotateApiKey", body: endNow, as: in, id: "$k.id", want: want}
	}
	// made is a key that an operator made, free of any caller's bounds.
	made := func(body string) step {
		return step{rpc: "CreateApiKey", body: `{"label": "k"` + body + `}`, save: "k"}
	}
	const ips, sooner, wide = `, "ip_allow_list": ["127.0.0.0/8", "192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32"]`, `, "expires_at": "$in(1h)"`, `, "scopes": ["products.update"]`
	newHarness(t).play(t, map[string]scenario{
		"scopes": {
			caller("c", ""),
			create(``, ""), create(`, "scopes": []`, ""), create(`, "scopes": ["products.read", "api_keys.create"]`, ""),
			create(wide, exceeds), create(`, "scopes": ["products.read", "products.update"]`, exceeds), create(`, "scopes": ["*"]`, exceeds),
			made(""), rotate(""),
			update(`"scopes": ["products.read"]`, ""), update(`"scopes": ["products.read", "products.update"]`, exceeds), update(`"scopes": ["*"]`, exceeds),
			update(`"scopes": null`, ""),
			made(wide), rotate(exceeds),
			update(`"label": "renamed", "description": "d", "owner_id": "o", "metadata": {"a": "b"}`, ""), // none of the four
			update(`"enabled": false`, ""), update(`"enabled": true`, exceeds), // enabling hands all out again
			update(`"expires_at": "$in(1h)"`, exceeds), update(`"scopes": ["products.read"], "enabled": true`, ""),
			rotate(""),
		},
		"all scopes": {
			{rpc: "CreateApiKey", body: `{"label": "all", "scopes": ["*"]}`, save: "c"},
			create(`, "scopes": ["*"]`, ""), create(wide, ""), made(`, "scopes": ["*"]`), rotate(""),
		},
		"addresses": {
			caller("c", ips),
			create(`, "ip_allow_list": ["192.0.2.9"]`, ""), create(`, "ip_allow_list": ["192.0.2.0/24", "::ffff:127.0.0.1"]`, ""),
			create(`, "ip_allow_list": ["2001:db8::/48"]`, ""),
			create(``, exceeds), create(`, "ip_allow_list": []`, exceeds), create(`, "ip_allow_list": ["192.0.2.0/23"]`, exceeds),
			create(`, "ip_allow_list": ["192.0.2.1", "198.51.100.1"]`, exceeds), create(`, "ip_allow_list": ["::/0"]`, exceeds),
			made(`, "ip_allow_list": ["192.0.2.1"]`), rotate(""),
			update(`"ip_allow_list": ["192.0.2.2"]`, ""), update(`"ip_allow_list": []`, exceeds), update(`"ip_allow_list": null`, exceeds), update(`"ip_allow_list": ["0.0.0.0/0"]`, exceeds),
			made(``), rotate(exceeds), update(`"label": "y"`, ""), update(`"scopes": ["products.read"]`, ""), update(`"expires_at": "$in(1h)"`, exceeds),
			update(`"ip_allow_list": ["127.0.0.1"], "expires_at": "$in(1h)"`, ""),
		},
		"expiry": {
			caller("c", `, "expires_at": "$in(2h)"`),
			create(sooner, ""), create(`, "expires_at": "$in(2h)"`, ""), create(`, "expires_at": "$in(2h1s)"`, exceeds), create(``, exceeds), create(`, "expires_at": null`, exceeds),
			made(sooner), rotate(""), update(`"expires_at": "$in(2h)"`, ""), update(`"expires_at": "$in(3h)"`, exceeds), update(`"expires_at": null`, exceeds),
			made(``), rotate(exceeds), update(`"label": "y"`, ""), update(`"enabled": false`, ""), update(`"enabled": true`, exceeds), update(`"expires_at": "$in(1h)"`, ""),
			update(`"enabled": true`, ""), rotate(""),
		},
		"mode": {
			caller("c", `, "mode": "test"`),
			create(`, "mode": "test"`, ""), create(``, exceeds), create(`, "mode": "live"`, exceeds),
			made(`, "mode": "test"`), rotate(""), update(`"expires_at": "$in(1h)"`, ""),
			made(``), rotate(exceeds), update(`"label": "y"`, ""), update(`"expires_at": "$in(1h)"`, exceeds), update(`"enabled": false`, ""), update(`"enabled": true`, exceeds),
		},
		"a live caller makes either": {caller("c", ""), create(`, "mode": "test"`, ""), create(`, "mode": "live"`, "")},
		"limits are not rights": {
			caller("c", `, "rate_limit": {"requests": 100, "window_seconds": 60}`),
			create(`, "rate_limit": {"requests": 1000, "window_seconds": 1}`, ""), create(``, ""),
			made(`, "rate_limit": {"requests": 5, "window_seconds": 5}`), update(`"rate_limit": null`, ""), update(`"rate_limit": {"requests": 9, "window_seconds": 1}`, ""),
		},
		"but one's own": {
			caller("c", `, "rate_limit": {"requests": 100, "window_seconds": 60}`),
			{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{"rate_limit": {"requests": 101}}`, want: "OWN_LIMITS"},
			{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{"rate_limit": {"requests": 99}}`, want: "OWN_LIMITS"},
			{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{"rate_limit": null, "label": "mine"}`, want: "OWN_LIMITS"},
			{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{"rate_limit": {"mode": "exact"}}`, want: "OWN_LIMITS"},
			{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{"rate_limit": {"requests": 100, "window_seconds": 60}}`, quiet: true},
			{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{"label": "mine"}`},
			{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{"scopes": ["*"]}`, want: exceeds},
			{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{"scopes": ["api_keys.update"]}`},
			{rpc: "RotateApiKey", body: endNow, as: in, id: "$c.id", save: "c"},
			{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{"scopes": ["api_keys.update", "api_keys.read"]}`, want: exceeds},
		},
		"ending needs no right but its scope": {
			caller("c", ips+sooner), made(`, "scopes": ["*"]`),
			{rpc: "RevokeApiKey", as: in, id: "$k.id"}, {rpc: "DeleteApiKey", as: in, id: "$k.id"},
		},
		"what a refusal does": {
			caller("c", ""), made(wide), rotate(exceeds),
			{rpc: "VerifyApiKey", body: `{"key": "$k.secret"}`, data: `{"code": "valid"}`},
			{rpc: "GetApiKey", id: "$k.id", data: `{"updated_at": null, "etag": "$k.etag"}`},
		},
	})
}

// TestAbsentScopes plays the setting that makes an absent list of scopes all.
func TestAbsentScopes(t *testing.T) {
	t.Parallel()
	w := newHarness(t, func(c *server.Config) { c.AbsentScopes = server.AbsentScopesAll })
	w.play(t, map[string]scenario{"all": {
		{rpc: "CreateApiKey", body: `{"label": "x"}`, data: `{"scopes": ["*"]}`, save: "k"},
		{rpc: "CreateApiKey", body: `{"label": "x", "scopes": null}`, data: `{"scopes": []}`},
		{rpc: "CreateApiKey", body: `{"label": "x", "scopes": []}`, data: `{"scopes": []}`},
		{rpc: "CreateApiKey", body: `{"label": "x", "scopes": ["products.read"]}`, data: `{"scopes": ["products.read"]}`},
		{rpc: "UpdateApiKey", id: "$k.id", body: `{"scopes": null}`, data: `{"scopes": []}`},
		caller("c", ""),
		{rpc: "CreateApiKey", as: "$c.secret", body: `{"label": "x"}`, want: "EXCEEDS_CALLER"},
		{rpc: "CreateApiKey", as: "$c.secret", body: `{"label": "x", "scopes": []}`},
	}})
}

// TestSpending plays calls made with a key: they are verifications of it, and
// refusals spend nothing.
func TestSpending(t *testing.T) {
	t.Parallel()
	left := func(remaining string) step {
		return step{rpc: "VerifyApiKey", body: `{"key": "$c.secret", "cost": 0, "ip": "127.0.0.1"}`, data: `{"valid": true, "rate_limit": {"limit": 4, "remaining": ` + remaining + `}}`}
	}
	const limit = `, "rate_limit": {"requests": 4, "window_seconds": 40}, "ip_allow_list": ["127.0.0.1"]`
	newHarness(t).play(t, map[string]scenario{
		"counted": {
			caller("c", limit), left("4"),
			{rpc: "ListApiKeys", as: "$c.secret"}, left("3"),
			{rpc: "GetApiKey", as: "$c.secret", id: "$c.id"}, left("2"),
			{rpc: "GetApiKey", as: "$c.secret", id: "nothing", want: "API_KEY_NOT_FOUND"}, left("1"), // it was let in
			{rpc: "CreateApiKey", as: "$c.secret", body: `{"label": "x", "scopes": ["*"]}`, want: "EXCEEDS_CALLER"},
			{rpc: "VerifyApiKey", body: `{"key": "$c.secret", "ip": "127.0.0.1"}`, data: `{"code": "rate_limited", "retry_after_seconds": 10, "rate_limit": {"remaining": 0},
				"api_key": {"metrics": {"total_requests": 4}}}`},
			{rpc: "ListApiKeys", as: "$c.secret", want: "RATE_LIMITED"}, {rpc: "DeleteApiKey", as: "$c.secret", id: "$c.id", want: "RATE_LIMITED"},
			{rpc: "ListApiKeys", as: "$c.secret", after: 10 * time.Second}, {rpc: "ListApiKeys", as: "$c.secret", want: "RATE_LIMITED"},
			{rpc: "ListApiKeys", as: "$c.secret", after: 9 * time.Second, want: "RATE_LIMITED"}, {rpc: "ListApiKeys", as: "$c.secret", after: time.Second},
		},
		"refusals": {
			{rpc: "CreateApiKey", body: `{"label": "c", "scopes": ["api_keys.verify"]` + limit + `}`, save: "c"}, left("4"),
			{rpc: "ListApiKeys", as: "$c.secret", want: "INSUFFICIENT_SCOPE"}, left("4"),
			{rpc: "VerifyApiKey", as: "$c.secret", head: "X-Organization-Id: org_x", want: "WRONG_ORGANIZATION"}, left("4"),
			{rpc: "VerifyApiKey", body: `{"key": "$c.secret", "ip": "127.0.0.2"}`, data: `{"code": "ip_not_allowed"}`}, left("4"),
			{rpc: "VerifyApiKey", body: `{"key": "$c.secret", "ip": "127.0.0.1", "scopes": ["products.read"]}`, data: `{"code": "insufficient_scope"}`}, left("4"),
			{rpc: "VerifyApiKey", body: `{"key": "$c.secret", "ip": "127.0.0.1", "cost": 5}`, want: "INVALID_ARGUMENT", field: "cost"}, left("4"),
			{rpc: "VerifyApiKey", body: `{"key": "$c.secret", "ip": "127.0.0.1", "cost": 3}`, data: `{"code": "valid", "rate_limit": {"remaining": 1, "reset_at": "$in(30s)"}}`},
			{rpc: "VerifyApiKey", body: `{"key": "$c.secret", "ip": "127.0.0.1", "cost": 3}`, data: `{"code": "rate_limited", "retry_after_seconds": 20, "valid": false}`}, left("1"),
			{rpc: "UpdateApiKey", id: "$c.id", body: `{"enabled": false}`},
			{rpc: "ListApiKeys", as: "$c.secret", want: "UNAUTHENTICATED"}, {rpc: "UpdateApiKey", id: "$c.id", body: `{"enabled": true}`}, left("1"),
			{rpc: "RotateApiKey", body: endNow, id: "$c.id", save: "c"}, left("1"), // a new secret is no new budget
		},
	})
}
