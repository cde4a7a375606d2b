package server_test

import "testing"

// TestWebhooksAnalytics plays what deliveries came to; those that are attempted are those
// of [TestWebhooksAnalyticsOfDeliveries].
func TestWebhooksAnalytics(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.play(t, map[string]scenario{"analytics": {
		step{rpc: "CreateWebhook", body: `{"label": "w", "url": "https://receiver.invalid/hook?token=x", "events": ["api_key.created"]}`, save: "w"}.in("org_a"),
		step{rpc: "TestWebhook", id: "$w.id", save: "d"}.in("org_a"),
		step{rpc: "CancelDelivery", id: "$d.id"}.in("org_a"),
		step{rpc: "GetWebhooksAnalytics", data: `{"since": "2025-06-29 16:00:00", "until": "2025-06-30 16:00:00", "incomplete_before": null, "totals": {"pending": 0, "delivered": 0, "failed": 0}, "events": [{"event": "webhook.test"}],
			"mean_delay_ms": null, "p99_delay_ms": null, "webhooks": {"total": 1, "enabled": 1, "disabled": 0}}`}.in("org_a"),
		step{rpc: "GetWebhooksAnalytics", data: `{"totals": {"total": 0}, "retry_rate": null, "newest": [], "failing_urls": []}`}.in("org_none"),
		step{rpc: "GetWebhooksAnalytics", body: "since=2025-01-01&until=2025-01-02", data: `{"incomplete_before": "2025-05-31 15:00:00", "totals": {"total": 0}}`}.in("org_a"),
		step{rpc: "GetWebhooksAnalytics", body: "since=tomorrow", want: "INVALID_ARGUMENT", field: "since"}.in("org_a"),
		{rpc: "GetWebhooksAnalytics", head: "X-Organization-Id: *", want: "INVALID_ARGUMENT", field: "x-organization-id"},
		step{rpc: "DeleteWebhook", id: "$w.id"}.in("org_a"),
	}})
}
