package server_test

import (
	"fmt"
	"strings"
	"testing"
)

// many is n numbered elements, each as format has it, with commas.
func many(n int, format string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(parts, ",")
}

// Every field that a create and an update share, with values that are refused and
// values at the bounds. The members of an object follow a label.
var badFields = []struct{ body, field string }{
	{`"label": ""`, "label"},
	{`"label": null`, "label"},
	{`"label": 1`, "label"},
	{`"label": "` + strings.Repeat("ü", 256) + `"`, "label"},
	{`"label": "a\u0000b"`, "label"},
	{`"label": "a\nb"`, "label"},
	{`"label": "  "`, "label"},
	{`"label": "\u200b\u00a0\u2060"`, "label"},
	{`"label": "a\u0085"`, "label"},
	{`"label": "a\u2028b"`, "label"},
	{`"label": "a\u202eb"`, "label"},
	{`"label": "a\u2067b"`, "label"},
	{`"description": "a\u202eb"`, "description"},
	{`"description": "a\u001bb"`, "description"},
	{`"owner_id": "a\u202eb"`, "owner_id"},
	{`"owner_id": "a\u0085b"`, "owner_id"},
	{`"description": "` + strings.Repeat("x", 2001) + `"`, "description"},
	{`"description": "a\u0000b"`, "description"},
	{`"description": ["x"]`, "description"},
	{`"owner_id": "` + strings.Repeat("x", 256) + `"`, "owner_id"},
	{`"owner_id": "a\u0000b"`, "owner_id"},
	{`"scopes": ["products.nothing"]`, "scopes[0]"},
	{`"scopes": ["products.read", "PRODUCTS.READ", ""]`, "scopes[1] scopes[2]"},
	{`"scopes": ["products.read", "PRODUCTS.READ"]`, "scopes[1]"},
	{`"scopes": "products.read"`, "scopes"},
	{`"scopes": [1]`, "scopes[0]"},
	{`"scopes": [null]`, "scopes[0]"},
	{`"scopes": [` + many(101, `"s%d"`) + `]`, "scopes"},
	{`"ip_allow_list": [` + many(101, `"10.0.0.%d"`) + `]`, "ip_allow_list"},
	{`"ip_allow_list": ["10.0.0.1", "nowhere", "10.0.0.1:80"]`, "ip_allow_list[1] ip_allow_list[2]"},
	{`"ip_allow_list": ["010.0.0.1"]`, "ip_allow_list[0]"},
	{`"ip_allow_list": ["10.0.0.1/8"]`, "ip_allow_list[0]"},
	{`"ip_allow_list": ["10.0.0.0/33"]`, "ip_allow_list[0]"},
	{`"ip_allow_list": ["10.0.0.0/08"]`, "ip_allow_list[0]"},
	{`"ip_allow_list": ["fe80::1%eth0"]`, "ip_allow_list[0]"},
	{`"ip_allow_list": ["[::1]:80"]`, "ip_allow_list[0]"},
	{`"ip_allow_list": ["::1 "]`, "ip_allow_list[0]"},
	{`"ip_allow_list": ["2001:db8::1/32"]`, "ip_allow_list[0]"},
	{`"ip_allow_list": [""]`, "ip_allow_list[0]"},
	{`"ip_allow_list": {}`, "ip_allow_list"},
	{`"expires_at": "$in(0s)"`, "expires_at"},
	{`"expires_at": "$in(-1s)"`, "expires_at"},
	{`"expires_at": "1969-12-31 23:59:59"`, "expires_at"},
	{`"expires_at": "0000-01-01 00:00:00"`, "expires_at"},
	{`"expires_at": "10000-01-01 00:00:00"`, "expires_at"},
	{`"expires_at": "9999-12-31T23:59:59-01:00"`, "expires_at"},
	{`"expires_at": "2026-06-30 23:59:60"`, "expires_at"},
	{`"expires_at": "2026-02-29 00:00:00"`, "expires_at"},
	{`"expires_at": "2027-06-30T23:59:59+24:00"`, "expires_at"},
	{`"expires_at": "2027-06-30T23:59:59+23:60"`, "expires_at"},
	{`"expires_at": "2027-06-30T3:59:59Z"`, "expires_at"},
	{`"expires_at": "2027-06-30T23:59Z"`, "expires_at"},
	{`"expires_at": "2026-05-30 24:00:00"`, "expires_at"},
	{`"expires_at": "2026-05-30"`, "expires_at"},
	{`"expires_at": "2026-05-30T20:23:16"`, "expires_at"},
	{`"expires_at": ""`, "expires_at"},
	{`"expires_at": 1780000000`, "expires_at"},
	{`"enabled": "true"`, "enabled"},
	{`"enabled": 1`, "enabled"},
	{`"metadata": []`, "metadata"},
	{`"metadata": {"a": 1}`, "metadata.a"},
	{`"metadata": {"a": {"b": "c"}}`, "metadata.a"},
	{`"metadata": {` + many(51, `"k%d": "v"`) + `}`, "metadata"},
	{`"metadata": {"a": "` + strings.Repeat("x", 8192) + `"}`, "metadata"},
	{`"metadata": {"": "x"}`, "metadata"},
	{`"metadata": {"` + strings.Repeat("k", 65) + `": "x"}`, "metadata"},
	{`"metadata": {"a\u202eb": "x"}`, "metadata"},
	{`"metadata": {"a": "x\u202ey"}`, "metadata.a"},
	{`"metadata": {"a.b": "x\u0000"}`, "metadata.a.b"},
	{`"rate_limit": {"requests": 0, "window_seconds": 1}`, "rate_limit.requests"},
	{`"rate_limit": {"requests": 0, "window_seconds": 0}`, "rate_limit.requests rate_limit.window_seconds"},
	{`"rate_limit": {"requests": 0}`, "rate_limit.requests rate_limit.window_seconds"},
	{`"rate_limit": {"requests": null, "window_seconds": 0}`, "rate_limit.requests rate_limit.window_seconds"},
	{`"rate_limit": {}`, "rate_limit.requests rate_limit.window_seconds"},
	{`"quota": {}`, "quota.limit"},
	{`"rate_limit": {}, "quota": {}`, "rate_limit.requests rate_limit.window_seconds quota.limit"},
	{`"quota": {"limit": 0}`, "quota.limit"},
	{`"quota": {"remaining": 0}`, "quota.limit"},
	{`"quota": {"limit": 0, "remaining": 0, "refill": "none"}`, "quota.limit"},
	{`"quota": {"refill": "daily"}`, "quota.limit"},
	{`"quota": {"limit": 5, "refill": "unspecified"}`, "quota.refill"},
	{`"quota": {"limit": null, "remaining": null}`, "quota.limit"},
	{`"quota": {"limit": 5, "remaining": -1}`, "quota.remaining"},
	{`"quota": {"limit": 5, "refill_day": 0}`, "quota.refill_day"},
	{`"quota": {"limit": 5, "refill": "monthly", "refill_day": 32}`, "quota.refill_day"},
	{`"quota": {"limit": 5, "refill": "hourly"}`, "quota.refill"},
	{`"scopes": ["nothing"], "ip_allow_list": ["nowhere"], "expires_at": "$in(-1s)", "owner_id": "a\nb", "metadata": {"a": "\u0000"}, "quota": {"limit": -1},
		"rate_limit": {"requests": 0, "window_seconds": 86401}`, "scopes[0] ip_allow_list[0] expires_at owner_id metadata.a quota.limit rate_limit.requests rate_limit.window_seconds"},
	{`"rate_limit": {"requests": 1000001, "window_seconds": 86401}`, "rate_limit.requests rate_limit.window_seconds"},
	{`"rate_limit": {"requests": -1, "window_seconds": 1}`, "rate_limit.requests"},
	{`"rate_limit": {"requests": 1}`, "rate_limit.window_seconds"},
	{`"rate_limit": {"requests": 1.5, "window_seconds": 1}`, "rate_limit.requests"},
	{`"rate_limit": {"requests": 1e999999999, "window_seconds": 1}`, "rate_limit.requests"},
	{`"rate_limit": {"requests": "1", "window_seconds": 1, "burst": 1}`, "rate_limit.requests rate_limit.burst"},
	{`"rate_limit": 5`, "rate_limit"},
	{`"rate_limit": {"mode": "exact"}`, "rate_limit.requests rate_limit.window_seconds"},
	{`"rate_limit": {"requests": 1, "window_seconds": 1, "mode": "global"}`, "rate_limit.mode"},
	{`"rate_limit": {"requests": 1, "window_seconds": 1, "mode": "EXACT"}`, "rate_limit.mode"},
	{`"nothing": null`, "nothing"},
	{`"Label": "x"`, "Label"},
	{`"empty_scopes": true`, "empty_scopes"},
}

// readOnly are fields that no caller sets, with values that they have and that they
// never have.
var readOnly = []struct{ body, field string }{
	{`"organization_id": "o"`, "organization_id"},
	{`"secret": "x"`, "secret"},
	{`"created_at": null`, "created_at"},
	{`"updated_at": "2026-05-30 20:23:16"`, "updated_at"},
	{`"state": "active"`, "state"},
	{`"revoked_at": null`, "revoked_at"},
	{`"revoke_reason": "superseded"`, "revoke_reason"},
	{`"previous_secret_expires_at": null`, "previous_secret_expires_at"},
	{`"metrics": {}`, "metrics"},
	{`"mode": "test"`, "mode"},
}

// bounds are the values that are just good.
var bounds = []struct{ body, data string }{
	{`"label": "` + strings.Repeat("ü", 255) + `"`, `{"label": "` + strings.Repeat("ü", 255) + `"}`},
	{`"description": "` + strings.Repeat("😀", 2000) + `"`, `{}`},
	{`"description": "a\nb", "owner_id": ""`, `{"description": "a\nb", "owner_id": ""}`},
	{`"owner_id": "` + strings.Repeat("x", 255) + `"`, `{}`},
	{`"scopes": ["products.read", "*", "products.read"]`, `{"scopes": ["products.read", "*"]}`},
	{`"ip_allow_list": [` + many(100, `"10.0.0.%d"`) + `]`, `{}`},
	{`"ip_allow_list": ["::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1/32", "2001:DB8::/32", "0.0.0.0/0", "::ffff:10.0.0.0/104"]`,
		`{"ip_allow_list": ["10.0.0.1", "2001:db8::/32", "0.0.0.0/0", "10.0.0.0/8"]}`},
	{`"ip_allow_list": [], "scopes": []`, `{"ip_allow_list": [], "scopes": []}`},
	{`"expires_at": "9999-12-31 23:59:59"`, `{"expires_at": "9999-12-31 23:59:59"}`},
	{`"expires_at": "2030-05-30T22:23:16.75+02:00"`, `{"expires_at": "2030-05-30 20:23:16"}`},
	{`"expires_at": null`, `{"expires_at": null}`},
	{`"metadata": {` + many(50, `"k%d": "v"`) + `}`, `{}`},
	{`"metadata": {"` + strings.Repeat("ü", 64) + `": ""}`, `{"metadata": {"` + strings.Repeat("ü", 64) + `": ""}}`},
	{`"metadata": {"a": "` + strings.Repeat("x", 8191) + `"}`, `{}`},
	{`"rate_limit": {"requests": 1000000, "window_seconds": 86400}`, `{"rate_limit": {"requests": 1000000, "window_seconds": 86400}}`},
	{`"rate_limit": {"requests": 1e2, "window_seconds": 1.0}`, `{"rate_limit": {"requests": 100, "window_seconds": 1}}`},
	{`"rate_limit": {"requests": 1, "window_seconds": 1}`, `{"rate_limit": {"requests": 1, "window_seconds": 1, "mode": "local"}}`},
	{`"rate_limit": {"requests": 1, "window_seconds": 1, "mode": null}`, `{"rate_limit": {"mode": "local"}}`},
	{`"rate_limit": {"requests": 1, "window_seconds": 1, "mode": "exact"}`, `{"rate_limit": {"mode": "exact"}}`},
	{`"rate_limit": null, "enabled": false`, `{"rate_limit": null, "enabled": false, "state": "disabled"}`},
}

// TestFields plays every bad value of every field, and those at the bounds,
// through creates and updates.
func TestFields(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	scenarios := make(map[string]scenario)
	labelled := func(body string) string {
		if strings.HasPrefix(body, `"label"`) {
			return "{" + body + "}"
		}
		return `{"label": "x", ` + body + "}"
	}
	for i, f := range badFields {
		scenarios[fmt.Sprintf("bad %02d %.40s", i, f.body)] = scenario{
			{rpc: "CreateApiKey", body: labelled(f.body), want: "INVALID_ARGUMENT", field: f.field},
			{rpc: "CreateApiKey", body: `{"label": "before"}`, save: "k"},
			{rpc: "UpdateApiKey", id: "$k.id", body: "{" + f.body + "}", want: "INVALID_ARGUMENT", field: f.field},
			{rpc: "UpdateApiKey", id: "$k.id", body: labelled(f.body), verb: "PUT", want: "INVALID_ARGUMENT", field: f.field},
			{rpc: "GetApiKey", id: "$k.id", data: `{"label": "before", "updated_at": null}`},
		}
	}
	for i, f := range readOnly {
		created := step{rpc: "CreateApiKey", body: labelled(f.body), want: "INVALID_ARGUMENT", field: f.field}
		if f.field == "mode" { // a caller sets it once
			created = step{rpc: "CreateApiKey", body: labelled(f.body)}
		}
		scenarios[fmt.Sprintf("read-only %02d %.40s", i, f.body)] = scenario{
			created,
			{rpc: "CreateApiKey", body: `{"label": "before"}`, save: "k"},
			{rpc: "UpdateApiKey", id: "$k.id", body: "{" + f.body + "}", want: "INVALID_ARGUMENT", field: f.field},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "before", ` + f.body + "}", verb: "PUT", quiet: true},
		}
	}
	for i, b := range bounds {
		scenarios[fmt.Sprintf("good %02d %.40s", i, b.body)] = scenario{
			{rpc: "CreateApiKey", body: labelled(b.body), data: b.data, save: "new"},
			{rpc: "GetApiKey", id: "$new.id", data: b.data},
			{rpc: "CreateApiKey", body: `{"label": "before", "description": "d", "owner_id": "o", "scopes": ["api_keys.read"], "ip_allow_list": ["192.0.2.1"],
				"expires_at": "2031-01-01 00:00:00", "metadata": {}, "rate_limit": {"requests": 5, "window_seconds": 5}}`, save: "k"},
			{rpc: "UpdateApiKey", id: "$k.id", body: "{" + b.body + "}", data: b.data},
			{rpc: "GetApiKey", id: "$k.id", data: b.data},
			{rpc: "UpdateApiKey", id: "$k.id", body: "{" + b.body + "}", data: b.data, quiet: true},
		}
	}
	w.play(t, scenarios)
}

// TestRequests plays bad values of what single RPCs take.
func TestRequests(t *testing.T) {
	t.Parallel()
	const invalid = "INVALID_ARGUMENT"
	bad := func(rpc, body, field string) step {
		return step{rpc: rpc, id: "$k.id", body: body, want: invalid, field: field}
	}
	created := step{rpc: "CreateApiKey", body: `{"label": "x"}`, save: "k"}
	newHarness(t).play(t, map[string]scenario{
		"create": {
			bad("CreateApiKey", ``, "label"),
			bad("CreateApiKey", `{}`, "label"),
			bad("CreateApiKey", `{"label": "x", "mode": "prod"}`, "mode"),
			bad("CreateApiKey", `{"label": "x", "mode": 1}`, "mode"),
			bad("CreateApiKey", `{"label": "x", "id": "api_key_1", "etag": "1"}`, "id etag"),
			bad("CreateApiKey", `{"label": "", "scopes": ["x", "y"], "expires_at": "$in(-1h)", "rate_limit": {}}`,
				"label scopes[0] scopes[1] expires_at rate_limit.requests rate_limit.window_seconds"),
			bad("CreateApiKey", `{"label": "x", "scopes": ["x", "products.read", "y"], "expires_at": "$in(-1h)", "metadata": {"": ""}}`,
				"scopes[0] scopes[2] expires_at metadata"),
		},
		"update": {
			created,
			bad("UpdateApiKey", `{"mode": "test"}`, "mode"),
			bad("UpdateApiKey", `{"id": "api_key_other"}`, "id"),
			bad("UpdateApiKey", `{"etag": ""}`, "etag"),
			bad("UpdateApiKey", `{"etag": 1}`, "etag"),
			bad("UpdateApiKey", `{"etag": null, "label": "x"}`, "etag"),
			bad("UpdateApiKey", `{"id": null, "label": "x"}`, "id"),
			bad("UpdateApiKey", `{"id": "", "label": "x"}`, "id"),
			bad("UpdateApiKey", `{"update_mask": "label"}`, "update_mask"),
			bad("UpdateApiKey", `{"api_key": {}}`, "api_key"),
			bad("UpdateApiKey", `{"rate_limit": {"requests": 3}}`, "rate_limit.window_seconds"),
			{rpc: "UpdateApiKey", id: "$k.id", verb: "PUT", body: `{"description": "y"}`, want: invalid, field: "label"},
			{rpc: "UpdateApiKey", id: "$k.id", verb: "PUT", want: invalid, field: "label"},
		},
		"what cannot be read, with the rest": {
			created,
			{rpc: "CreateApiKey", only: "rest", want: invalid, field: "label scopes[0] scopes[2] ip_allow_list[0] expires_at nothing quota.limit mode",
				body: `{"label": 1, "scopes": [1, "products.read", "x"], "ip_allow_list": ["y"], "expires_at": "soon", "nothing": 1, "quota": {"limit": 0}, "mode": "x"}`},
			{rpc: "UpdateApiKey", id: "$k.id", only: "rest", want: invalid, field: "scopes[0] scopes[2] ip_allow_list[0] expires_at nothing quota.limit state label",
				body: `{"scopes": [1, "products.read", "x"], "ip_allow_list": ["y"], "expires_at": "soon", "nothing": 1, "quota": {"limit": 0}, "state": "active", "label": "  "}`},
			{rpc: "UpdateApiKey", id: "$k.id", only: "rest", verb: "PUT", want: invalid, field: "label scopes[0]", body: `{"scopes": ["x"], "state": 1}`},
			{rpc: "UpdateApiKey", id: "$k.id", only: "rest", want: invalid, field: "etag owner_id", match: "7", body: `{"etag": "6", "owner_id": "a\nb"}`},
			bad("UpdateApiKey", `{"expires_at": "soon"}`, "expires_at"),
			{rpc: "GetApiKey", id: "$k.id", data: `{"label": "x", "etag": "$k.etag"}`},
			{rpc: "RotateApiKey", id: "$k.id", only: "rest", want: invalid, field: "overlap_seconds secret", body: `{"overlap_seconds": -1, "secret": "x"}`},
			{rpc: "RevokeApiKey", id: "$k.id", only: "rest", want: invalid, field: "reason why", body: `{"reason": 2, "why": "x"}`},
			{rpc: "VerifyApiKey", only: "rest", want: invalid, field: "key scopes[0] cost more", body: `{"key": 1, "scopes": ["` + strings.Repeat("x", 129) + `"], "cost": -1, "more": 1}`},
			{rpc: "ListApiKeys", only: "rest", want: invalid, field: "q state page_size page_token expires_before unused_since x",
				body: "q=%00&state=broken&page_size=1001&page_token=x&expires_before=1969-12-31+23:59:59&unused_since=soon&x=1"},
			{rpc: "ListWebhooks", only: "rest", want: invalid, field: "page_size page_token failing x", body: "page_size=1001&page_token=x&failing=2&x=1"},
			{rpc: "ListDeliveries", only: "rest", want: invalid, field: "page_size page_token state since until x", body: "page_size=1001&page_token=x&state=x&since=soon&until=1969-12-31+23:59:59&x=1"},
			{rpc: "ListEvents", only: "rest", want: invalid, field: "page_size types[0] after x", body: "page_size=1001&types=x&after=x&x=1"},
			{rpc: "GetApiKeyUsage", id: "$k.id", only: "rest", want: invalid, field: "granularity since x", body: "granularity=x&since=2025-06-30+15:00:00&until=2025-06-30+14:00:00&x=1"},
			{rpc: "GetApiKeysAnalytics", only: "rest", want: invalid, field: "since until x", body: "since=soon&until=1969-12-31+23:59:59&x=1"},
			{rpc: "ReplayEvents", id: "webhook_0197c0ec-a197-719f-84a9-99270a79b42a", only: "rest", want: invalid, field: "since until x", body: `{"since": "soon", "until": "1969-12-31 23:59:59", "x": 1}`},
		},
		"a secret, with the rest": {
			created,
			bad("CreateApiKey", `{"label": "$k.secret", "description": "a\u0000", "scopes": ["x", "$k.secret"], "ip_allow_list": ["y", "$k.secret"], "metadata": {"a": "\u0000"}, "rate_limit": {}}`,
				"label description scopes[0] scopes[1] ip_allow_list[0] ip_allow_list[1] metadata.a rate_limit.requests rate_limit.window_seconds"),
			bad("UpdateApiKey", `{"label": "$k.secret", "description": "a\u0000", "scopes": ["x"], "owner_id": "$k.secret", "quota": {}}`,
				"label description scopes[0] owner_id quota.limit"),
			{rpc: "UpdateApiKey", id: "$k.id", verb: "PUT", only: "rest", want: invalid, field: "owner_id label enabled", body: `{"owner_id": "$k.secret", "enabled": 1}`},
			bad("CreateWebhook", `{"label": "$k.secret", "url": "ftp://x", "events": ["x", "$k.secret"], "headers": {"Host": "x"}}`, "label url events[0] events[1] headers.Host"),
			bad("ListApiKeys", "q=$k.secret&page_size=1001&expires_before=1969-12-31+23:59:59&page_token=x", "q page_size page_token expires_before"),
			bad("VerifyApiKey", `{"key": "x", "scopes": ["$k.secret"], "cost": -1}`, "scopes[0] cost"),
			{rpc: "GetApiKey", id: "$k.id", data: `{"label": "x", "updated_at": null}`},
		},
		"limits without parts": {
			{rpc: "CreateApiKey", body: `{"label": "x", "rate_limit": {"requests": 5, "window_seconds": 60}, "quota": {"limit": 7, "remaining": 3, "refill": "monthly"}}`, save: "k"},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"rate_limit": {}, "quota": {}}`, quiet: true, data: `{"etag": "$k.etag", "rate_limit": {"requests": 5}, "quota": {"remaining": 3, "refill_day": 1}}`},
			{rpc: "UpdateApiKey", id: "$k.id", verb: "PUT", body: `{"label": "x", "rate_limit": {}, "quota": {}}`, quiet: true, data: `{"etag": "$k.etag"}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"quota": {}, "rate_limit": null}`, data: `{"rate_limit": null, "quota": {"limit": 7}}`},
			bad("UpdateApiKey", `{"quota": {}, "rate_limit": {}}`, "rate_limit.requests rate_limit.window_seconds"),
		},
		"rotate": {
			created,
			bad("RotateApiKey", ``, "overlap_seconds"),
			bad("RotateApiKey", `{}`, "overlap_seconds"),
			bad("RotateApiKey", `{"overlap_seconds": null, "end_previous": true}`, "overlap_seconds"),
			bad("RotateApiKey", `{"overlap_seconds": 0, "end_previous": "yes"}`, "end_previous"),
			bad("RotateApiKey", `{"overlap_seconds": -1}`, "overlap_seconds"),
			bad("RotateApiKey", `{"overlap_seconds": 2592001}`, "overlap_seconds"),
			bad("RotateApiKey", `{"overlap_seconds": 99999999999}`, "overlap_seconds"),
			bad("RotateApiKey", `{"overlap_seconds": "1", "secret": "x"}`, "overlap_seconds secret"),
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 2592000}`},
		},
		"revoke": {
			created,
			bad("RevokeApiKey", `{"reason": "because"}`, "reason"),
			bad("RevokeApiKey", `{"reason": 2}`, "reason"),
			bad("RevokeApiKey", `{"why": "because"}`, "why"),
		},
		"verify": {
			bad("VerifyApiKey", `{"key": 1}`, "key"),
			bad("VerifyApiKey", `{"key": "x", "cost": -1}`, "cost"),
			bad("VerifyApiKey", `{"key": "x", "cost": 1000001}`, "cost"),
			bad("VerifyApiKey", `{"key": "x", "cost": "1"}`, "cost"),
			bad("VerifyApiKey", `{"key": "x", "ip": "`+strings.Repeat("1", 129)+`"}`, "ip"),
			bad("VerifyApiKey", `{"key": "x", "scopes": [`+many(101, `"s%d"`)+`]}`, "scopes"),
			bad("VerifyApiKey", `{"key": "x", "scopes": ["`+strings.Repeat("x", 129)+`"]}`, "scopes[0]"),
			bad("VerifyApiKey", `{"secret": "x"}`, "secret"),
		},
		"list": {
			bad("ListApiKeys", "page_size=-1", "page_size"),
			bad("ListApiKeys", "page_size=1001", "page_size"),
			bad("ListApiKeys", "page_size=ten", "page_size"),
			bad("ListApiKeys", "page_size=", "page_size"),
			bad("ListApiKeys", "page_size=99999999999", "page_size"),
			bad("ListApiKeys", "page_size=1&page_size=2", "page_size"),
			bad("ListApiKeys", "page_token=nonsense", "page_token"),
			bad("ListApiKeys", "page_token="+strings.Repeat("a", 300), "page_token"),
			bad("ListApiKeys", "state=broken", "state"),
			bad("ListApiKeys", "state=unspecified", "state"),
			bad("ListDeliveries", "state=unspecified", "state"),
			bad("ListDeliveries", "state=pending&event=zz", "event"),
			{rpc: "ListDeliveries", only: "rest", want: invalid, field: "state event", body: "state=broken&event=zz"},
			bad("ListDeliveries", "event=*", "event"),
			bad("ListDeliveries", "event=API_KEY.CREATED", "event"),
			bad("CreateApiKey", `{"label": "x", "mode": "unspecified"}`, "mode"),
			{rpc: "ListDeliveries", body: "event=webhook.test&state=pending"},
			{rpc: "ListDeliveries", body: "event="},
			bad("ListApiKeys", "owner_id="+strings.Repeat("a", 256), "owner_id"),
			bad("ListApiKeys", "q="+strings.Repeat("a", 256), "q"),
			bad("ListApiKeys", "q=%00&owner_id=a%00", "q owner_id"),
			bad("ListApiKeys", "q=%ff", "q"),
			bad("ListDeliveries", "webhook_id=%00&event=%00&resource_id=a%0a", "webhook_id event resource_id"),
			{rpc: "ListEvents", only: "rest", body: "resource_ids=a&resource_ids=%00", want: invalid, field: "resource_ids[1]"},
			bad("ListApiKeys", "expires_before=tomorrow", "expires_before"),
			bad("ListApiKeys", "expires_before=1969-12-31+23:59:59", "expires_before"),
			bad("ListApiKeys", "unused_since=2026-13-01", "unused_since"),
			bad("ListApiKeys", "unused_since=0001-01-01T00:00:00Z", "unused_since"),
			bad("ListApiKeys", "label=x&offset=3", "label offset"),
			{rpc: "ListApiKeys", body: "page_size=1000"},
			{rpc: "ListApiKeys", body: "page_size=0"},
		},
	})
}
