package wire_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/apikeys-dev/apikeys/client/hooks"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

var webhookNow = time.Date(2026, 11, 21, 9, 30, 0, 123_456_000, time.UTC)

// testWebhook returns a webhook with a header, whose secret and header value are
// nowhere in its message.
func testWebhook(t *testing.T) webhook.Webhook {
	t.Helper()
	secret, err := hooks.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	w, err := webhook.Rules{}.Create(webhook.Webhook{
		ID:             "webhook_0197b617-b4c8-773f-bbd9-3ba84dd93d70",
		OrganizationID: "org_default",
		Label:          "Billing",
		URL:            "https://example.com/hook?token=hunter2",
		Events:         []apikey.EventType{webhook.AllEvents},
		Format:         webhook.FormatClassic,
		Headers:        webhook.NewHeaders(map[string]string{"x-tenant": "hunter3"}),
		Enabled:        true,
	}, secret, webhookNow)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// eventAbout returns an event whose resource is a key or a webhook.
func eventAbout(t *testing.T, kind apikey.EventType, resource any) *apikey.Event {
	t.Helper()
	var payload []byte
	var err error
	switch r := resource.(type) {
	case apikey.Key:
		payload, err = wire.KeyPayload(&r, webhookNow)
	case webhook.Webhook:
		payload, err = wire.WebhookPayload(&r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &apikey.Event{
		ID: "event_1", Type: kind, OrganizationID: "org_default", ResourceID: "api_key_1", CreatedAt: webhookNow, Payload: payload,
	}
}

func TestWebhookMessage(t *testing.T) {
	t.Parallel()
	w := testWebhook(t)
	w.Enabled, w.DisabledReason = false, webhook.DisabledGone
	const want = `{"id":"webhook_0197b617-b4c8-773f-bbd9-3ba84dd93d70","organization_id":"org_default","label":"Billing","description":"",` +
		`"url":"https://example.com/hook?token=hunter2","events":["*"],"format":"classic","headers":{"X-Tenant":"********"},"enabled":false,` +
		`"secret":"whsec_MfKQ...aLaSw","created_at":"2026-11-21 09:30:00","updated_at":null,"created_by":null,"disabled_reason":"gone","health":null,"etag":"1"}`
	if diff := cmp.Diff(want, string(wirejson.Append(nil, wire.Webhook(&w)))); diff != "" {
		t.Error(diff)
	}
}

func TestDeliveryMessage(t *testing.T) {
	t.Parallel()
	key := apikey.Key{ID: "api_key_1", Label: "Billing"}
	e := eventAbout(t, apikey.KeyCreated, key)
	w := testWebhook(t)
	d := webhook.NewDelivery(&w, e, webhook.TriggerSchedule, webhookNow)
	d.ID = "delivery_1"
	broken := webhook.Outcome{
		Status: 500, Body: []byte("a\xffb"),
		Failure: webhook.Failure{Class: webhook.ClassHTTPStatus, Message: "The endpoint answered 500 Internal Server Error."},
	}
	a := d.Settle(&webhook.Result{
		Outcome: broken, Delivery: webhook.Delivery{Trigger: webhook.TriggerRetry}, URL: "https://other.example/", StartedAt: webhookNow, EndedAt: webhookNow.Add(40 * time.Millisecond),
	}, webhook.Backoff{Rand: func() float64 { return 0.5 }})
	m, err := wire.Delivery(&d, e, []webhook.Attempt{a})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proto.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if m.GetPayload().GetApiKey().GetId() != key.ID {
		t.Errorf("payload %v", m.GetPayload())
	}
	m.Payload = nil
	const answer = `"response_status":500,"response_body":"a` + "\uFFFD" + `b","error":{"class":"http_status","message":"The endpoint answered 500 Internal Server Error."}`
	want := `{"id":"delivery_1","webhook_id":"webhook_0197b617-b4c8-773f-bbd9-3ba84dd93d70","organization_id":"org_default",` +
		`"url":"https://example.com/hook?token=hunter2","event":"api_key.created","resource_id":"api_key_1","payload":null,` + answer +
		`,"retries":0,"created_at":"2026-11-21 09:30:00","updated_at":"2026-11-21 09:30:00","first_sent_at":"2026-11-21 09:30:00",` +
		`"next_attempt_at":"2026-11-21 09:30:05","delay_ms":5000,"state":"pending","attempts":[` +
		`{"number":1,"started_at":"2026-11-21 09:30:00","duration_ms":40,` + answer + `,"trigger":"retry","url":"https://other.example/"}],"attempts_total":1}`
	if diff := cmp.Diff(want, string(wirejson.Append(nil, m))); diff != "" {
		t.Error(diff)
	}
	test := webhook.NewDelivery(&w, e, webhook.TriggerTest, webhookNow)
	if m, err = wire.Delivery(&test, eventAbout(t, webhook.WebhookTest, w), nil); err != nil || m.GetPayload().GetWebhook().GetSecret() != "whsec_MfKQ...aLaSw" {
		t.Errorf("%v, payload %v", err, m.GetPayload())
	}
	if m.ResponseStatus != nil || m.ResponseBody != nil || m.Error != nil {
		t.Errorf("an answer before any attempt: %v", m)
	}
}

func TestRequestedWebhook(t *testing.T) {
	t.Parallel()
	r := &apikeysv1.CreateWebhookRequest{
		Label: "Billing", Url: "https://example.com/", Events: []string{"*"}, Headers: map[string]string{"b": "2", "a": "1"},
	}
	w := wire.RequestedWebhook(r, "org_1")
	if w.Format != webhook.FormatClassic || !w.Enabled || w.OrganizationID != "org_1" || w.Headers[0].Name != "A" {
		t.Errorf("got %+v", w)
	}
	r.Collection, r.Enabled = webhook.Subscriptions, proto.Bool(false)
	if w := wire.RequestedWebhook(r, "org_1"); w.Format != webhook.FormatResource || w.Enabled {
		t.Errorf("got %+v", w)
	}
	r.Format = apikeysv1.WebhookFormat_WEBHOOK_FORMAT_STANDARD
	if w := wire.RequestedWebhook(r, "org_1"); w.Format != webhook.FormatStandard {
		t.Errorf("got %+v", w)
	}
}

func TestWebhookPatch(t *testing.T) {
	t.Parallel()
	p := wire.WebhookPatch(&apikeysv1.UpdateWebhookRequest{
		Webhook:    &apikeysv1.Webhook{Label: "x", Format: apikeysv1.WebhookFormat_WEBHOOK_FORMAT_CLOUDEVENTS, Headers: map[string]string{"x-a": "1"}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"label", "format", "headers.`x-a`"}},
	})
	w := testWebhook(t)
	if err := (webhook.Rules{}).Update(&w, p); err != nil || w.Label != "x" || w.Format != webhook.FormatCloudEvents || len(w.Headers) != 2 {
		t.Errorf("%v: %+v", err, w)
	}
	// A format that is cleared would be another one on each of the two paths.
	cleared := wire.WebhookPatch(&apikeysv1.UpdateWebhookRequest{UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"format"}}})
	if err := (webhook.Rules{}).Update(&w, cleared); err == nil {
		t.Error("a format was cleared")
	}
}

// Every word has a number and every number but the first a word.
func TestWordsAndNumbers(t *testing.T) {
	t.Parallel()
	for n := range apikeysv1.WebhookFormat_name {
		if word := wire.WebhookFormat(apikeysv1.WebhookFormat(n)); (word == "") != (n == 0) {
			t.Errorf("format %d is %q", n, word)
		} else if word.IsKnown() != (n != 0) {
			t.Errorf("format %q has no body", word)
		}
	}
	for n := range apikeysv1.DeliveryState_name {
		if word := wire.DeliveryState(apikeysv1.DeliveryState(n)); (word == "") != (n == 0) {
			t.Errorf("state %d is %q", n, word)
		}
	}
	triggers := make(map[apikeysv1.DeliveryTrigger]bool)
	for _, word := range []webhook.Trigger{webhook.TriggerSchedule, webhook.TriggerRetry, webhook.TriggerReplay, webhook.TriggerTest} {
		m, err := wire.Delivery(&webhook.Delivery{}, nil, []webhook.Attempt{{Trigger: word}})
		if err != nil {
			t.Fatal(err)
		}
		triggers[m.GetAttempts()[0].GetTrigger()] = true
	}
	delete(triggers, apikeysv1.DeliveryTrigger_DELIVERY_TRIGGER_UNSPECIFIED)
	if len(triggers) != len(apikeysv1.DeliveryTrigger_name)-1 {
		t.Errorf("triggers with a word: %v", triggers)
	}
	reasons := make(map[apikeysv1.WebhookDisabledReason]bool)
	for _, word := range []webhook.DisabledReason{webhook.DisabledGone, webhook.DisabledFailing} {
		reasons[wire.Webhook(&webhook.Webhook{DisabledReason: word}).GetDisabledReason()] = true
	}
	if len(reasons) != len(apikeysv1.WebhookDisabledReason_name)-1 {
		t.Errorf("reasons with a word: %v", reasons)
	}
}

func TestWebhookRotation(t *testing.T) {
	t.Parallel()
	for want, seconds := range map[time.Duration]*int32{webhook.DefaultOverlap: nil, 0: proto.Int32(0), time.Hour: proto.Int32(3600)} {
		got := wire.WebhookRotation(&apikeysv1.RotateWebhookSecretRequest{OverlapSeconds: seconds, EndOldest: true})
		if got != (webhook.Rotation{Overlap: want, EndOldest: true}) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestWebhookEventTypes(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, m := range wire.WebhookEventTypes() {
		if seen[m.GetType()] || m.GetDescription() == "" || !strings.Contains(m.GetType(), ".") {
			t.Errorf("%v", m)
		}
		seen[m.GetType()] = true
	}
	for _, kind := range []string{"api_key.created", "api_key.expired", "webhook.disabled"} {
		if !seen[kind] {
			t.Errorf("%s is not listed", kind)
		}
	}
	if seen["webhook.test"] {
		t.Error("webhook.test can be subscribed to")
	}
}
