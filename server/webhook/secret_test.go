package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
)

// What a webhook sends verifies under each of the secrets that sign.
func TestWhatIsSentVerifies(t *testing.T) {
	t.Parallel()
	w := testWebhook()
	w.Secrets = []SigningSecret{{Secret: otherSecret}, {Secret: testSecret, ExpiresAt: testNow.Add(time.Hour)}}
	body := []byte(`{"a":1}`)
	h := w.Header(&Delivery{ID: "delivery_1", Format: FormatClassic}, body, testNow)
	for _, secret := range []hooks.Secret{testSecret, otherSecret} {
		if err := hooks.Verify(secret.Reveal(), h, body, testNow); err != nil {
			t.Errorf("%s: %v", secret.Mask(), err)
		}
	}
}

func TestWebhookDoesNotPrintSecrets(t *testing.T) {
	t.Parallel()
	w := testWebhook()
	other := struct {
		secret hooks.Secret
		value  HeaderValue
		w      Webhook
	}{testSecret, w.Headers[0].Value, w}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", testSecret, "value", w.Headers[0].Value, "webhook", w)
	js, err := json.Marshal(map[string]any{"secret": testSecret, "value": w.Headers[0].Value, "webhook": w, "header": w.Headers})
	if err != nil {
		t.Fatal(err)
	}
	shown := log.String() + string(js)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
		shown += fmt.Sprintf(verb, testSecret) + fmt.Sprintf(verb, w.Headers[0].Value) +
			fmt.Sprintf(verb, other) + fmt.Sprintf(verb, &other) + fmt.Sprintf(verb, w) + fmt.Sprintf(verb, w.Secrets)
	}
	for _, secret := range []string{testSecret.Reveal(), "hunter3"} {
		for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprint([]byte(secret))} {
			if strings.Contains(shown, form) {
				t.Errorf("it printed %q", form)
			}
		}
	}
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	w := testWebhook()
	Rules{}.RotateSecret(&w, otherSecret, Rotation{Overlap: time.Hour}, testNow)
	private, err := w.Private()
	if err != nil {
		t.Fatal(err)
	}
	opened := Webhook{ID: w.ID}
	if err := opened.SetPrivate(private); err != nil {
		t.Fatal(err)
	}
	if newest(&opened) != otherSecret.Reveal() || opened.SecretMask != otherSecret.Mask() || !equalHeaders(opened.Headers, w.Headers) ||
		len(opened.Secrets) != 2 || opened.Secrets[1].Secret.Reveal() != testSecret.Reveal() || !opened.Secrets[1].ExpiresAt.Equal(testNow.Add(time.Hour)) {
		t.Errorf("got %+v", opened)
	}
	for name, text := range map[string]string{
		"empty": "", "cut": string(private[:len(private)-1]), "without secrets": `{"headers": {"A": "hunter3"}}`,
		"a secret of another form": `{"secrets": [{"secret": "hunter3"}]}`,
	} {
		if err := (&Webhook{}).SetPrivate([]byte(text)); err == nil || strings.Contains(err.Error(), "hunter3") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
