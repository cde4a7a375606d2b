package webhook

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/wire"
)

func TestWebhookMessage(t *testing.T) {
	w := testWebhook()
	w.Enabled, w.DisabledReason = false, DisabledGone
	const want = `{"id":"webhook_0197b617-b4c8-773f-bbd9-3ba84dd93d70","organization_id":"org_default","label":"Billing","description":"",` +
		`"url":"https://example.com/hook?token=hunter2","events":["*"],"format":"classic","headers":{"X-Tenant":"********"},"enabled":false,` +
		`"secret":"whsec_MfKQ...aLaSw","created_at":"2026-11-21 09:30:00","updated_at":null,"disabled_reason":"gone","etag":"1"}`
	if diff := cmp.Diff(want, string(wire.AppendJSON(nil, w.Message()))); diff != "" {
		t.Error(diff)
	}
}

func TestDeliveryMessage(t *testing.T) {
	d := testDelivery()
	e := testEvent(t, apikey.KeyCreated, testKey())
	broken := failed
	broken.Body = []byte("a\xffb")
	a := d.Settle(broken, TriggerRetry, testNow, Backoff{Rand: func() float64 { return 0.5 }}, testNow.Add(40*time.Millisecond))
	m, err := d.Message(e, []Attempt{a})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proto.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if m.GetPayload().GetApiKey().GetId() != testKey().ID {
		t.Errorf("payload %v", m.GetPayload())
	}
	m.Payload = nil
	const answer = `"response_status":500,"response_body":"a` + "\uFFFD" + `b","error":{"class":"http_status","message":"The endpoint answered 500 Internal Server Error."}`
	want := `{"id":"delivery_1","webhook_id":"webhook_0197b617-b4c8-773f-bbd9-3ba84dd93d70","organization_id":"org_default",` +
		`"url":"https://example.com/hook?token=hunter2","event":"api_key.created","resource_id":"api_key_1","payload":null,` + answer +
		`,"retries":0,"created_at":"2026-11-21 09:30:00","updated_at":"2026-11-21 09:30:00","first_sent_at":"2026-11-21 09:30:00",` +
		`"next_attempt_at":"2026-11-21 09:30:05","delay_ms":5000,"state":"pending","attempts":[` +
		`{"number":1,"started_at":"2026-11-21 09:30:00","duration_ms":40,` + answer + `,"trigger":"retry"}]}`
	if diff := cmp.Diff(want, string(wire.AppendJSON(nil, m))); diff != "" {
		t.Error(diff)
	}
	test := testDelivery()
	if m, err = test.Message(testEvent(t, WebhookTest, testWebhook()), nil); err != nil || m.GetPayload().GetWebhook().GetSecret() != testSecret.Mask() {
		t.Errorf("%v, payload %v", err, m.GetPayload())
	}
	if m.ResponseStatus != nil || m.ResponseBody != nil || m.Error != nil {
		t.Errorf("an answer before any attempt: %v", m)
	}
}

func TestRequested(t *testing.T) {
	r := &apikeysv1.CreateWebhookRequest{
		Label: "Billing", Url: "https://example.com/", Events: []string{"*"}, Headers: map[string]string{"b": "2", "a": "1"},
	}
	w := Requested(r, "org_1")
	if w.Format != FormatClassic || !w.Enabled || w.OrganizationID != "org_1" || w.Headers[0].Name != "A" {
		t.Errorf("got %+v", w)
	}
	r.Collection, r.Enabled = Subscriptions, proto.Bool(false)
	if w := Requested(r, "org_1"); w.Format != FormatResource || w.Enabled {
		t.Errorf("got %+v", w)
	}
	r.Format = apikeysv1.WebhookFormat_WEBHOOK_FORMAT_STANDARD
	if w := Requested(r, "org_1"); w.Format != FormatStandard {
		t.Errorf("got %+v", w)
	}
}

func TestPatchOf(t *testing.T) {
	p := PatchOf(&apikeysv1.UpdateWebhookRequest{
		Webhook:    &apikeysv1.Webhook{Label: "x", Format: apikeysv1.WebhookFormat_WEBHOOK_FORMAT_CLOUDEVENTS, Headers: map[string]string{"x-a": "1"}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"label", "format", "headers.`x-a`"}},
	})
	w := testWebhook()
	if err := (Rules{}).Update(&w, p); err != nil || w.Label != "x" || w.Format != FormatCloudEvents || len(w.Headers) != 2 {
		t.Errorf("%v: %+v", err, w)
	}
	// A format that is cleared would be another one on each of the two paths.
	cleared := PatchOf(&apikeysv1.UpdateWebhookRequest{UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"format"}}})
	if err := (Rules{}).Update(&w, cleared); err == nil {
		t.Error("a format was cleared")
	}
}

// Every word has a number and every number but the first a word.
func TestWordsAndNumbers(t *testing.T) {
	for n := range apikeysv1.WebhookFormat_name {
		if word := FormatOf(apikeysv1.WebhookFormat(n)); (word == "") != (n == 0) {
			t.Errorf("format %d is %q", n, word)
		} else if _, ok := contentTypes[word]; ok != (n != 0) {
			t.Errorf("format %q has no body", word)
		}
	}
	for n := range apikeysv1.DeliveryState_name {
		if word := StateOf(apikeysv1.DeliveryState(n)); (word == "") != (n == 0) {
			t.Errorf("state %d is %q", n, word)
		}
	}
	if len(triggerEnum) != len(apikeysv1.DeliveryTrigger_name)-1 || len(reasonEnum) != len(apikeysv1.WebhookDisabledReason_name)-1 {
		t.Error("a trigger or a reason has no word")
	}
}

func TestOverlap(t *testing.T) {
	for want, seconds := range map[time.Duration]*int32{DefaultOverlap: nil, 0: proto.Int32(0), time.Hour: proto.Int32(3600)} {
		if got := Overlap(&apikeysv1.RotateWebhookSecretRequest{OverlapSeconds: seconds}); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestEventTypes(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range EventTypeMessages() {
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
