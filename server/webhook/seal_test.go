package webhook

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

func TestSeal(t *testing.T) {
	first := apikey.NamedKey{ID: "e_1", Key: bytes.Repeat([]byte{1}, 32)}
	second := apikey.NamedKey{ID: "e_2", Key: bytes.Repeat([]byte{2}, 32)}
	sealer := func(keys ...apikey.NamedKey) *Sealer {
		s, err := NewSealer(keys)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	w := testWebhook()
	Rules{}.RotateSecret(&w, otherSecret, time.Hour, testNow)
	sealed, err := sealer(first).Seal(&w)
	if err != nil {
		t.Fatal(err)
	}
	if sealed.KeyID != "e_1" || bytes.Contains(sealed.Data, []byte("hunter3")) || bytes.Contains(sealed.Data, []byte("whsec_")) {
		t.Errorf("got %+v", sealed)
	}
	again, _ := sealer(first).Seal(&w)
	if bytes.Equal(sealed.Data, again.Data) {
		t.Error("equal webhooks have equal ciphertexts")
	}

	opened := Webhook{ID: w.ID}
	if err := sealer(second, first).Open(&opened, sealed); err != nil {
		t.Fatal(err)
	}
	if newest(&opened) != otherSecret.Reveal() || opened.SecretMask != otherSecret.Mask() || !equalHeaders(opened.Headers, w.Headers) ||
		len(opened.Secrets) != 2 || opened.Secrets[1].Secret.Reveal() != testSecret.Reveal() || !opened.Secrets[1].ExpiresAt.Equal(testNow.Add(time.Hour)) {
		t.Errorf("got %+v", opened)
	}

	flipped := Sealed{sealed.KeyID, bytes.Clone(sealed.Data)}
	flipped.Data[len(flipped.Data)-1] ^= 1
	for name, open := range map[string]func() error{
		"without its key":     func() error { return sealer(second).Open(&Webhook{ID: w.ID}, sealed) },
		"under another key":   func() error { return sealer(second).Open(&Webhook{ID: w.ID}, Sealed{"e_2", sealed.Data}) },
		"for another webhook": func() error { return sealer(first).Open(&Webhook{ID: "webhook_2"}, sealed) },
		"with a flipped bit":  func() error { return sealer(first).Open(&Webhook{ID: w.ID}, flipped) },
		"empty":               func() error { return sealer(first).Open(&Webhook{ID: w.ID}, Sealed{KeyID: "e_1"}) },
	} {
		if err := open(); err == nil || strings.Contains(err.Error(), "hunter3") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewSealer(nil); err == nil {
		t.Error("a sealer without keys")
	}
	if _, err := NewSealer([]apikey.NamedKey{{ID: "e_1", Key: []byte("short")}}); err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("a short key: %v", err)
	}
}
