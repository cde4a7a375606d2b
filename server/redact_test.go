package server

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

func TestRedactor(t *testing.T) {
	t.Parallel()
	secret, err := apikey.NewSecret("sk_live_", nil)
	if err != nil {
		t.Fatal(err)
	}
	text := secret.Reveal()
	var out bytes.Buffer
	log := slog.New(redactor{slog.NewTextHandler(&out, nil), nil})
	log.With("with", text).WithGroup("group").Info("message "+text,
		"path", "/developers/api_keys/"+text,
		"error", errors.New("bad "+text),
		slog.Group("inner", "deep", text),
		"plain", "sk_live_H9q8W09JOqkZ...YhOzI")
	if strings.Contains(out.String(), text[8:]) {
		t.Errorf("the log holds the secret: %s", out.String())
	}
	if !strings.Contains(out.String(), "sk_live_H9q8W09JOqkZ...YhOzI") {
		t.Errorf("the mask is not a secret and should stay: %s", out.String())
	}
}
