package gate

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// brokenStore is a store that fails.
type brokenStore struct{}

func (brokenStore) KeysBySecret(context.Context, []apikey.Hash) ([]apikey.Key, int64, error) {
	return nil, 0, errors.New("the disk is gone")
}

func newGate(t *testing.T) (*Gate, *logtest.Buffer) {
	t.Helper()
	keys, err := keyring.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	logger, log := logtest.New(slog.LevelDebug)
	verifier, err := verify.New(verify.Config{Keys: brokenStore{}, Meter: meter.New(meter.Config{}), Peppers: keys.Peppers()})
	if err != nil {
		t.Fatal(err)
	}
	sources, err := ParseSources([]string{"X-API-Key"}, "")
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{
		Verifier: verifier, Sources: sources, Env: "production", Logger: logger, Refusals: &authn.Refusals{Logger: logger}, Otherwise: http.NotFoundHandler(),
	}), log
}

// answerTo returns the encoded answer to a question of Envoy.
func answerTo(t testing.TB, g *Gate, q question) []byte {
	t.Helper()
	x := g.newExchange()
	defer g.release(x)
	x.question = q
	return g.answerOf(t.Context(), x)
}

// TestFailsClosed refuses every request while storage fails, with a time to come back.
func TestFailsClosed(t *testing.T) {
	t.Parallel()
	secret, err := apikey.NewSecret("sk_live_", nil)
	if err != nil {
		t.Fatal(err)
	}
	g, log := newGate(t)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/forward_auth", nil)
	r.Header.Set("X-API-Key", secret.Reveal())
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Body)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || w.Header().Get("X-Api-Key-Error") != "unavailable" ||
		len(w.Header().Values("X-Api-Key-Id")) != 1 || !strings.Contains(string(body), `"env":"production"`) {
		t.Errorf("the answer is %d %v %s", w.Code, w.Header(), body)
	}
	var resp authv3.CheckResponse
	encoded := answerTo(t, g, question{http: true, fields: []pair{{"x-api-key", secret.Reveal()}}})
	if err := proto.Unmarshal(encoded, &resp); err != nil || resp.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Errorf("Envoy is told %v, %v", &resp, err)
	}
	if text := log.String(); !strings.Contains(text, "the disk is gone") || strings.Contains(text, secret.Reveal()) || strings.Contains(string(body), "disk") {
		t.Errorf("the log is %s, the body %s", text, body)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	w = httptest.NewRecorder()
	g.ServeHTTP(w, r.WithContext(gone))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("a gateway that has gone: %d", w.Code)
	}
}

// TestPanics has a fault refuse the request, and the server live.
func TestPanics(t *testing.T) {
	t.Parallel()
	g, log := newGate(t)
	g.Verifier = nil
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/forward_auth", nil)
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	if w.Code != http.StatusInternalServerError || w.Header().Get("X-Api-Key-Error") != "internal" || strings.Contains(w.Body.String(), "nil pointer") {
		t.Errorf("the answer is %d %v %s", w.Code, w.Header(), w.Body)
	}
	var resp authv3.CheckResponse
	if err := proto.Unmarshal(answerTo(t, g, question{http: true}), &resp); err != nil || resp.GetDeniedResponse().GetStatus().GetCode() != 500 {
		t.Errorf("Envoy is told %v, %v", &resp, err)
	}
	if !strings.Contains(log.String(), "panic") {
		t.Errorf("the log is %s", log)
	}
}

// TestChallenge has each refusal say how to authenticate, as RFC 6750 has it.
func TestChallenge(t *testing.T) {
	t.Parallel()
	need := &requirement{scopes: []string{"a", `b"\\`}}
	for want, a := range map[string]*answer{
		`Bearer realm="apikeys"`: (&answer{need: need}).refuse(codeMissing, apikey.ErrNoKey),
		`Bearer realm="apikeys", error="invalid_token", error_description="The credential is not valid."`: (&answer{need: need}).refuse("revoked", apikey.ErrBadCredential()),
		`Bearer realm="apikeys", error="insufficient_scope", error_description="The API key lacks a scope.", scope="a b"`: (&answer{need: need}).refuse(
			string(apikey.CodeInsufficientScope), apikey.Refusal(apikey.CodeInsufficientScope, "a")),
		"": (&answer{need: need}).refuse(codeNoRule, errNoRule),
	} {
		if got := a.refusal.Challenge("apikeys", a.need.scopes); got != want {
			t.Errorf("the challenge is %s, want %s", got, want)
		}
	}
}
