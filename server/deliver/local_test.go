package deliver

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/apikeys-dev/apikeys/client/hooks"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

func TestLocalWants(t *testing.T) {
	t.Parallel()
	cases := []struct {
		types []string
		event apikey.EventType
		want  bool
	}{
		{[]string{"*"}, apikey.KeyCreated, true},
		{[]string{"*"}, "api_key.of_a_later_version", true},
		{[]string{"*"}, webhook.WebhookCreated, false},
		{[]string{"*"}, webhook.WebhookTest, false},
		{[]string{"*", "webhook.test"}, webhook.WebhookTest, true},
		{[]string{"webhook.created"}, webhook.WebhookCreated, true},
		{[]string{"webhook.created"}, apikey.KeyCreated, false},
	}
	for _, c := range cases {
		if got := NewLocal("http://localhost", c.types, webhook.FormatClassic, testSecret).Wants(&apikeysv1.Event{Type: string(c.event)}); got != c.want {
			t.Errorf("of %v it wants %s: %v", c.types, c.event, got)
		}
	}
}

// What a local webhook is sent is what a server's would be, of the same ids, url
// and time.
func TestLocalRequest(t *testing.T) {
	t.Parallel()
	for _, format := range []webhook.Format{webhook.FormatClassic, webhook.FormatResource, webhook.FormatStandard, webhook.FormatCloudEvents} {
		e := testEvent(t, apikey.KeyUpdated, testKey(), "label")
		m, err := wire.Event(e)
		if err != nil {
			t.Fatal(err)
		}
		local := NewLocal("http://localhost:3000/hook", []string{"*"}, format, testSecret)
		header, body, err := local.Request(m, testNow)
		if err != nil {
			t.Fatal(err)
		}
		w := testWebhook()
		w.ID, w.URL, w.Format, w.Headers = LocalID, "http://localhost:3000/hook", format, nil
		d := webhook.NewDelivery(&w, e, webhook.TriggerSchedule, testNow)
		d.ID = "delivery_0197bd94-d729-76ef-b486-cf2765090000" // the event's
		want, err := Body(nil, &d, e)
		if err != nil {
			t.Fatal(err)
		}
		if string(body) != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", format, body, want)
		}
		if err := hooks.Verify(testSecret.Reveal(), header, body, testNow); err != nil {
			t.Error(err)
		}
		for name, values := range w.Header(&d, want, testNow) {
			if header.Get(name) != values[0] {
				t.Errorf("%s: %q, want %q", name, header.Get(name), values[0])
			}
		}
		again, _, err := local.Request(m, testNow.Add(1e9))
		if err != nil || again.Get(hooks.HeaderID) != header.Get(hooks.HeaderID) {
			t.Errorf("the event comes again as %s: %v", again.Get(hooks.HeaderID), err)
		}
	}
	if _, _, err := NewLocal("http://localhost", nil, webhook.FormatClassic, testSecret).Request(&apikeysv1.Event{}, testNow); err == nil {
		t.Error("an event without a resource has a body")
	}
}

func TestUnguarded(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"http://localhost:3000/hook", "http://127.0.0.1", "http://10.0.0.1", "https://[fd00::1]", "http://169.254.1.1", "http://host.docker.internal", "https://example.com",
	} {
		if _, err := webhook.Unguarded().URL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	c := NewClient(ClientConfig{Guard: webhook.Unguarded()})
	defer c.Close()
	if o, err := c.Send(t.Context(), s.URL, http.Header{}, nil); err != nil || o.Status != http.StatusNotFound {
		t.Errorf("%+v, %v", o, err)
	}
}
