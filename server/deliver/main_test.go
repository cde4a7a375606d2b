package deliver

import (
	"io"
	"log"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

func TestMain(m *testing.M) {
	// The transport logs what endpoints send without being asked.
	log.SetOutput(io.Discard)
	goleak.VerifyTestMain(m)
}

// The values that tests begin with.
var (
	testNow    = time.Date(2026, 11, 21, 9, 30, 0, 123_456_000, time.UTC)
	testSecret = mustSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	failed     = webhook.Outcome{Status: 500, Failure: statusFailure(500)}
)

func mustSecret(text string) hooks.Secret {
	s, err := hooks.ParseSecret(text)
	if err != nil {
		panic(err)
	}
	return s
}

func testWebhook() webhook.Webhook {
	w, err := webhook.Rules{}.Create(webhook.Webhook{
		ID:             "webhook_0197b617-b4c8-773f-bbd9-3ba84dd93d70",
		OrganizationID: "org_default",
		Label:          "Billing",
		URL:            "https://example.com/hook?token=hunter2",
		Events:         []apikey.EventType{webhook.AllEvents},
		Format:         webhook.FormatClassic,
		Headers:        webhook.NewHeaders(map[string]string{"x-tenant": "hunter3"}),
		Enabled:        true,
	}, testSecret, testNow)
	if err != nil {
		panic(err)
	}
	return w
}
