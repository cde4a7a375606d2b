package deliver

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

func testKey() apikey.Key {
	return apikey.Key{
		ID: "api_key_0197bd94-d729-76ef-b486-cf276509029d", OrganizationID: "org_default",
		Label: "Ünïcode <&> \"key\"", Scopes: apikey.Scopes{"products.read"},
		CreatedAt: time.Date(2025, 6, 30, 15, 5, 47, 0, time.UTC),
		Enabled:   true, Mode: apikey.ModeLive,
		Metadata: map[string]string{"b": "2", "a": "1"},
		Secret:   apikey.StoredSecret{Mask: "sk_live_MDE5N2MwZWMt...GdwdA"},
		Version:  2,
	}
}

func testEvent(t interface{ Fatal(...any) }, kind apikey.EventType, resource any, changes ...string) *apikey.Event {
	var payload []byte
	var err error
	switch r := resource.(type) {
	case apikey.Key:
		payload, err = wire.KeyPayload(&r, testNow)
	case webhook.Webhook:
		payload, err = wire.WebhookPayload(&r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &apikey.Event{
		ID: "event_0197bd94-d729-76ef-b486-cf2765090000", Type: kind, OrganizationID: "org_default",
		ResourceID: "api_key_0197bd94-d729-76ef-b486-cf276509029d", Changes: changes, CreatedAt: testNow, Payload: payload,
	}
}

const keyJSON = `{"id":"api_key_0197bd94-d729-76ef-b486-cf276509029d","organization_id":"org_default",` +
	`"label":"Ünïcode <&> \"key\"","description":"","secret":"sk_live_MDE5N2MwZWMt...GdwdA","scopes":["products.read"],` +
	`"ip_allow_list":[],"expires_at":null,"created_at":"2025-06-30 15:05:47","updated_at":null,"created_by":null,"enabled":true,` +
	`"state":"active","mode":"live","key_format":"","owner_id":"","metadata":{"a":"1","b":"2"},"rate_limit":null,"quota":null,"revoked_at":null,` +
	`"revoke_reason":null,"previous_secret_expires_at":null,"previous_secret_last_used_at":null,"previous_secret_requests":null,` +
	`"metrics":{"api_key_id":"api_key_0197bd94-d729-76ef-b486-cf276509029d","total_requests":0,"last_used_at":null},"last_use":null,"external_id":"","etag":"2"}`

func TestBody(t *testing.T) {
	t.Parallel()
	w := testWebhook()
	d := webhook.Delivery{ID: "delivery_1", WebhookID: w.ID, URL: w.URL}
	const head = `{"webhook_id":"webhook_0197b617-b4c8-773f-bbd9-3ba84dd93d70","url":"https://example.com/hook?token=hunter2",`
	const about = `"resourceId":"api_key_0197bd94-d729-76ef-b486-cf276509029d","timestamp":"2026-11-21T09:30:00.123Z","apiVersion":"v1",`
	webhookJSON := string(wirejson.Append(nil, wire.Webhook(&w)))
	cases := []struct {
		name   string
		format webhook.Format
		event  *apikey.Event
		want   string
	}{
		{"classic", webhook.FormatClassic, testEvent(t, apikey.KeyUpdated, testKey(), "label"),
			head + `"event":"api_key.updated","resource_id":"api_key_0197bd94-d729-76ef-b486-cf276509029d","payload":` + keyJSON +
				`,"timestamp":"2026-11-21 09:30:00.123"}`},
		{"resource, created", webhook.FormatResource, testEvent(t, apikey.KeyCreated, testKey()),
			`{"id":"delivery_1","event":"api_key.created","resource":"api_key",` + about + `"data":` + keyJSON + `}`},
		{"resource, updated", webhook.FormatResource, testEvent(t, apikey.KeyUpdated, testKey(), "label", "expires_at", "enabled", "metadata"),
			`{"id":"delivery_1","event":"api_key.updated","resource":"api_key",` + about +
				`"changes":{"label":"Ünïcode <&> \"key\"","expires_at":null,"enabled":true,"metadata":{"a":"1","b":"2"}}}`},
		{"resource, of a webhook", webhook.FormatResource, testEvent(t, webhook.WebhookUpdated, w, "label"),
			`{"id":"delivery_1","event":"webhook.updated","resource":"webhook",` + about + `"data":` + webhookJSON + `}`},
		{"standard", webhook.FormatStandard, testEvent(t, apikey.KeyRevoked, testKey()),
			`{"type":"api_key.revoked","timestamp":"2026-11-21T09:30:00.123Z","data":` + keyJSON + `}`},
		{"cloudevents", webhook.FormatCloudEvents, testEvent(t, apikey.KeyDeleted, testKey()),
			`{"specversion":"1.0","id":"event_0197bd94-d729-76ef-b486-cf2765090000","source":"/organizations/org_default",` +
				`"type":"api_key.deleted","subject":"api_key_0197bd94-d729-76ef-b486-cf276509029d","time":"2026-11-21T09:30:00.123Z",` +
				`"datacontenttype":"application/json","data":` + keyJSON + `}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d.Format = c.format
			got, err := Body([]byte("x"), &d, c.event)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff("x"+c.want, string(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if strings.Contains(string(got), "hunter3") || strings.Contains(string(got), testSecret.Reveal()) {
				t.Error("the body tells a secret")
			}
		})
	}
	d.Format = "morse"
	if _, err := Body(nil, &d, testEvent(t, apikey.KeyCreated, testKey())); err == nil {
		t.Error("an unknown format has a body")
	}
	d.Format = webhook.FormatClassic
	for _, kind := range []apikey.EventType{apikey.KeyCreated, webhook.WebhookCreated} {
		if _, err := Body(nil, &d, &apikey.Event{Type: kind, Payload: []byte("junk")}); err == nil {
			t.Errorf("%s: junk has a body", kind)
		}
	}
}

// Every attempt of a delivery sends the same bytes, whatever became of the row
// and the webhook in between, and whoever computes them.
func TestBodyIsStable(t *testing.T) {
	t.Parallel()
	formats := []webhook.Format{webhook.FormatClassic, webhook.FormatResource, webhook.FormatStandard, webhook.FormatCloudEvents}
	rapid.Check(t, func(t *rapid.T) {
		k := testKey()
		k.Label = rapid.String().Draw(t, "label")
		k.Metadata = rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "metadata")
		k.Scopes = rapid.SliceOf(rapid.String()).Draw(t, "scopes")
		k.IPAllowList = apikey.AllowList{netip.MustParsePrefix("10.0.0.0/8")}
		k.ExpiresAt = testNow.Add(time.Duration(rapid.Int32().Draw(t, "expiry")))
		w := testWebhook()
		w.Label = rapid.String().Draw(t, "webhook")
		var e *apikey.Event
		if kind := rapid.SampledFrom(webhook.EventTypes()).Draw(t, "type").Type; webhook.IsAboutWebhook(kind) {
			e = testEvent(t, kind, w)
		} else {
			e = testEvent(t, kind, k, rapid.SliceOf(rapid.SampledFrom([]string{"label", "metadata", "scopes", "state"})).Draw(t, "changes")...)
		}
		d := webhook.NewDelivery(&w, e, webhook.TriggerSchedule, testNow)
		d.ID, d.Format = "delivery_1", rapid.SampledFrom(formats).Draw(t, "format")
		first, err := Body(nil, &d, e)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(first) {
			t.Fatalf("no JSON: %s", first)
		}
		d.Settle(&webhook.Result{Delivery: d, Outcome: failed, StartedAt: testNow, EndedAt: testNow}, webhook.Backoff{})
		local := *e
		local.CreatedAt = e.CreatedAt.In(time.FixedZone("", 7200))
		local.Position++
		for range 3 {
			if again, err := Body(nil, &d, &local); err != nil || string(again) != string(first) {
				t.Fatalf("first\n%s\nthen\n%s\n%v", first, again, err)
			}
		}
	})
}

func BenchmarkBody(b *testing.B) {
	w := testWebhook()
	e := testEvent(b, apikey.KeyCreated, testKey())
	d := webhook.NewDelivery(&w, e, webhook.TriggerSchedule, testNow)
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf, _ = Body(buf[:0], &d, e)
	}
}
