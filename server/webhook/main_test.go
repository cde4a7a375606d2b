package webhook

import (
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The values that tests begin with.
var (
	testNow     = time.Date(2026, 11, 21, 9, 30, 0, 123_456_000, time.UTC)
	testSecret  = mustSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	otherSecret = mustSecret("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
)

func mustSecret(text string) hooks.Secret {
	s, err := hooks.ParseSecret(text)
	if err != nil {
		panic(err)
	}
	return s
}

func testWebhook() Webhook {
	w, err := Rules{}.Create(Webhook{
		ID:             "webhook_0197b617-b4c8-773f-bbd9-3ba84dd93d70",
		OrganizationID: "org_default",
		Label:          "Billing",
		URL:            "https://example.com/hook?token=hunter2",
		Events:         []apikey.EventType{AllEvents},
		Format:         FormatClassic,
		Headers:        NewHeaders(map[string]string{"x-tenant": "hunter3"}),
		Enabled:        true,
	}, testSecret, testNow)
	if err != nil {
		panic(err)
	}
	return w
}
