package webhook

import (
	"strings"
	"testing"
	"time"
)

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
