package server_test

import (
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
)

// TestUsage plays the counts of verifications. A stop stores what was counted, so
// what one server has counted a second one tells, at a time that the test sets.
func TestUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inDir := func(c *server.Config) { c.DataDir = dir }
	first := newHarness(t, inDir)
	verify := func(more string) step {
		return step{rpc: "VerifyApiKey", body: `{"key": "$k.secret"` + more + `}`}
	}
	first.playOne(t, "uses", "rest", scenario{
		{rpc: "CreateApiKey", body: `{"label": "used", "scopes": ["api_keys.read"], "quota": {"limit": 7}}`, save: "k"},
		{rpc: "CreateApiKey", body: `{"label": "never used"}`, save: "n"},
		{rpc: "CreateApiKey", body: `{"label": "deleted"}`, save: "d"},
		verify(""), verify(`, "scopes": ["products.read"]`), // 15:00
		// A cost of zero counts nothing, whatever comes of it.
		verify(`, "cost": 0`), verify(`, "cost": 0, "scopes": ["products.read"]`), {rpc: "VerifyApiKey", body: `{"key": "junk", "cost": 0}`},
		{rpc: "BatchVerifyApiKeys", body: `{"keys": [{"key": "$k.secret", "cost": 0}, {"key": "junk", "cost": 0}, {"key": "$k.secret", "cost": 0, "scopes": ["x"]}]}`},
		{rpc: "VerifyApiKey", body: `{"key": "$d.secret"}`}, {rpc: "DeleteApiKey", id: "$d.id"}, {rpc: "VerifyApiKey", body: `{"key": "$d.secret"}`},
		{rpc: "VerifyApiKey", body: `{"key": "junk"}`}, {rpc: "VerifyApiKey", body: `{"key": "$k.secret"}`, head: "X-Organization-Id: org_other"},
		{rpc: "ListApiKeys", as: "$k.secret", body: "page_size=1"},
		verify(`, "cost": 5`).later(2 * time.Hour),
		{rpc: "ListApiKeys", as: "$k.secret", want: "QUOTA_EXCEEDED"}, verify(""), // 17:00
	})
	first.Stop()
	w := newHarness(t, inDir)
	for name, text := range first.saved {
		w.saved[name] = text
	}
	w.clock.Advance(2*time.Hour + 30*time.Minute - 22*time.Second) // 17:30:00
	usage := func(query, data string) step {
		return step{rpc: "GetApiKeyUsage", id: "$k.id", body: query, data: data}
	}
	wrong := func(query, field string) step {
		return step{rpc: "GetApiKeyUsage", id: "$k.id", body: query, want: "INVALID_ARGUMENT", field: field}
	}
	w.play(t, map[string]scenario{
		"hours": {usage("since=2025-06-30T15:00:00Z", `{"api_key_id": "$k.id", "granularity": "hour", "since": "2025-06-30 15:00:00", "until": "2025-06-30 18:00:00",
			"totals": {"total": 6, "codes": {"valid": 3, "insufficient_scope": 1, "quota_exceeded": 2}}, "series": [
				{"start": "2025-06-30 15:00:00", "total": 3, "codes": {"valid": 2, "insufficient_scope": 1}},
				{"start": "2025-06-30 16:00:00", "total": 0, "codes": {}}, {"start": "2025-06-30 17:00:00", "total": 3, "codes": {"valid": 1, "quota_exceeded": 2}}]}`)},
		"days": {usage("granularity=day&since=2025-06-29T23:30:00Z&until=2025-07-01T00:00:00Z", `{"granularity": "day", "since": "2025-06-29 00:00:00", "until": "2025-07-01 00:00:00", "series": [
				{"start": "2025-06-29 00:00:00", "total": 0, "codes": {}}, {"start": "2025-06-30 00:00:00", "total": 6, "codes": {"valid": 3, "insufficient_scope": 1, "quota_exceeded": 2}}]}`)},
		"the end of time": {usage("until=9999-12-31T23:00:00Z", `{"since": "9999-12-30 23:00:00", "until": "9999-12-31 23:00:00"}`)},
		"defaults":        {usage("", `{"since": "2025-06-29 18:00:00", "until": "2025-06-30 18:00:00", "totals": {"total": 6}}`), usage("granularity=day", `{"since": "2025-06-01 00:00:00", "until": "2025-07-01 00:00:00"}`)},
		"never used":      {{rpc: "GetApiKeyUsage", id: "$n.id", body: "since=2025-06-30T17:00:00Z", data: `{"totals": {"total": 0, "codes": {}}, "series": [{"start": "2025-06-30 17:00:00", "total": 0}]}`}},
		"deleted":         {{rpc: "GetApiKeyUsage", id: "$d.id", want: "API_KEY_NOT_FOUND"}, {rpc: "GetApiKeyUsage", id: "x", want: "API_KEY_NOT_FOUND"}, {rpc: "GetApiKeyUsage", id: "$k.id", head: "X-Organization-Id: org_other", want: "API_KEY_NOT_FOUND"}},
		"faults": {wrong("granularity=week", "granularity"), wrong("since=2025-07-01T00:00:00Z", "since"), wrong("since=2025-06-30T17:00:00Z&until=2025-06-30T17:00:00Z", "since"),
			wrong("since=2025-06-30T09:30:00Z&until=2025-06-30T09:30:00Z", "since"), wrong("granularity=day&since=2025-06-30T09:30:01Z&until=2025-06-30T09:30:00Z", "since"),
			wrong("until=9999-12-31T23:59:59Z", "until"), wrong("granularity=day&until=9999-12-31T00:00:01Z", "until"),
			wrong("since=2020-01-01T00:00:00Z", "since"), wrong("since=yesterday", "since"), wrong("page_size=1", "page_size"),
			{rpc: "GetApiKeyUsage", id: "$k.id", head: "X-Organization-Id: *", want: "INVALID_ARGUMENT", field: "x-organization-id"}},
		"analytics": {{rpc: "GetApiKeysAnalytics", body: "since=2025-06-30T15:00:00Z", data: `{"since": "2025-06-30 15:00:00", "until": "2025-06-30 18:00:00",
			"totals": {"total": 9, "codes": {"valid": 4, "insufficient_scope": 1, "quota_exceeded": 2, "not_found": 1, "malformed": 1}},
			"requests_per_second": 0.001, "success_rate": 0.4444444444444444, "unknown_keys": 2, "most_used": [{"api_key_id": "$k.id", "label": "used", "requests": 3}],
			"series": [{"start": "2025-06-30 15:00:00", "total": 6}, {"start": "2025-06-30 16:00:00", "total": 0}, {"start": "2025-06-30 17:00:00", "total": 3}]}`}},
		"analytics of others": {{rpc: "GetApiKeysAnalytics", head: "X-Organization-Id: org_other", data: `{"totals": {"total": 1, "codes": {"not_found": 1}}, "unknown_keys": 1, "success_rate": 0, "most_used": []}`},
			{rpc: "GetApiKeysAnalytics", head: "X-Organization-Id: org_idle", data: `{"totals": {"total": 0, "codes": {}}, "unknown_keys": 0, "success_rate": null, "requests_per_second": 0}`}},
		"analytics, faults": {{rpc: "GetApiKeysAnalytics", body: "since=2025-07-01T00:00:00Z", want: "INVALID_ARGUMENT", field: "since"},
			{rpc: "GetApiKeysAnalytics", body: "since=2025-06-30T09:30:00Z&until=2025-06-30T09:30:00Z", want: "INVALID_ARGUMENT", field: "since"},
			{rpc: "GetApiKeysAnalytics", body: "until=9999-12-31T23:59:59Z", want: "INVALID_ARGUMENT", field: "until"},
			{rpc: "GetApiKeysAnalytics", head: "X-Organization-Id: *", want: "INVALID_ARGUMENT", field: "x-organization-id"}},
	})
}
