package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/client/hooks"
)

func TestHeaderRules(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("v", maxHeaderBytes)
	cases := []struct {
		name, value, want string
	}{
		{"Authorization", "Bearer hunter2", ""},
		{"X-Tenant", "", ""},
		{"X-Tenant", "a, b; c=\"d\"", ""},
		{"X-Tenant", "naïve", ""},
		{"Cookie", "a=b", ""},
		{"User-Agent", "mine/1", ""},
		{"X-Content-Kind", "x", ""},
		{"X-Tenant", long[len("X-Tenant"):], ""},
		{"X-Tenant", long[len("X-Tenant")-1:], "must have at most 4096 bytes with its name"},
		{"X-Tenant", "a\r\nX-Evil: b", "must not hold control characters"},
		{"X-Tenant", "a\nb", "must not hold control characters"},
		{"X-Tenant", "a\x00", "must not hold control characters"},
		{"X-Tenant", "a\tb", "must not hold control characters"},
		{"X-Tenant", "a\x7f", "must not hold control characters"},
		{"X-Tenant", " a", "must not begin or end with a space"},
		{"X-Tenant", "a ", "must not begin or end with a space"},
		{"X-Tenant", HeaderMask, "must be a value; ******** is what is shown in place of one"},
		{"", "x", "must have a name of letters, digits and !#$%&'*+-.^_`|~"},
		{"X Tenant", "x", "must have a name of letters, digits and !#$%&'*+-.^_`|~"},
		{"X:Tenant", "x", "must have a name of letters, digits and !#$%&'*+-.^_`|~"},
		{":authority", "x", "must have a name of letters, digits and !#$%&'*+-.^_`|~"},
		{"X-Tenant\r\nX-Evil", "x", "must have a name of letters, digits and !#$%&'*+-.^_`|~"},
		{"X-Tenänt", "x", "must have a name of letters, digits and !#$%&'*+-.^_`|~"},
		{"Host", "x", "must not be set: it is HTTP's own"},
		{"hOsT", "x", "must not be set: it is HTTP's own"},
		{"Connection", "close", "must not be set: it is HTTP's own"},
		{"Keep-Alive", "x", "must not be set: it is HTTP's own"},
		{"TE", "trailers", "must not be set: it is HTTP's own"},
		{"Trailer", "x", "must not be set: it is HTTP's own"},
		{"Transfer-Encoding", "chunked", "must not be set: it is HTTP's own"},
		{"transfer_encoding", "chunked", "must not be set: it is HTTP's own"},
		{"Upgrade", "h2c", "must not be set: it is HTTP's own"},
		{"Expect", "100-continue", "must not be set: it is HTTP's own"},
		{"Accept-Encoding", "gzip", "must not be set: it is HTTP's own"},
		{"Proxy-Authorization", "x", "must not be set: names that begin with proxy- are reserved"},
		{"Content-Length", "0", "must not be set: names that begin with content- are reserved"},
		{"content-type", "x", "must not be set: names that begin with content- are reserved"},
		{"Webhook-Signature", "x", "must not be set: names that begin with webhook- are reserved"},
		{"webhook_id", "x", "must not be set: names that begin with webhook- are reserved"},
		{"X-Webhook-Event", "x", "must not be set: names that begin with x-webhook- are reserved"},
		{"X_Webhook-Signature", "x", "must not be set: names that begin with x-webhook- are reserved"},
	}
	for _, c := range cases {
		got := ""
		if found := headerProblems(NewHeaders(map[string]string{c.name: c.value})); len(found) > 0 {
			got = found[0].Problem
		}
		if got != c.want {
			t.Errorf("%q: %.20q: %q, want %q", c.name, c.value, got, c.want)
		}
	}
	if found := headerProblems(NewHeaders(map[string]string{"x-a": "1", "X-A": "2"})); len(found) != 1 || found[0].Field != "headers.X-A" {
		t.Errorf("one name twice: %v", found)
	}
	many := map[string]string{}
	for i := range maxHeaders + 1 {
		many[fmt.Sprintf("X-%d", i)] = "x"
	}
	if found := headerProblems(NewHeaders(many)); len(found) != 1 {
		t.Errorf("too many: %v", found)
	}
	secret := map[string]string{"sk_live_" + strings.Repeat("x", 60) + " ": "v"}
	if found := headerProblems(NewHeaders(secret)); strings.Contains(found[0].Field, strings.Repeat("x", 30)) {
		t.Errorf("the name is repeated: %v", found)
	}
}

// What the rules take, HTTP takes, and it replaces nothing of ours.
func TestHeadersThatAreTakenCanBeSent(t *testing.T) {
	t.Parallel()
	ours := testWebhook().headerOf(nil)
	// The transport checks the headers before it connects.
	errTaken := errors.New("the headers are good")
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errTaken }}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.String(), rapid.StringMatching(`[Xx]?[-_]?([Ww]ebhook|[Cc]ontent)?[-_A-Za-z]{1,20}`)).Draw(t, "name")
		value := rapid.String().Draw(t, "value")
		custom := NewHeaders(map[string]string{name: value})
		if len(headerProblems(custom)) > 0 {
			return
		}
		sent := testWebhook().headerOf(custom)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://example.com", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = sent
		//nolint:bodyclose // no connection, no answer
		if _, err := transport.RoundTrip(r); !errors.Is(err, errTaken) {
			t.Fatalf("%q: %q cannot be sent: %v", name, value, err)
		}
		for key := range ours {
			if key != "User-Agent" && key != "Accept" && sent.Get(key) != ours.Get(key) {
				t.Fatalf("%q replaced %s", name, key)
			}
		}
		if sent[custom[0].Name][0] != value {
			t.Fatalf("%q is not sent", name)
		}
	})
}

// headerOf returns what w sends of a delivery when its custom headers are list.
func (w Webhook) headerOf(list []Header) http.Header {
	w.Headers = list
	return w.Header(&Delivery{ID: "delivery_1", Event: "api_key.created", Format: FormatCloudEvents}, []byte("{}"), testNow)
}

func TestOldSecretsStopSigning(t *testing.T) {
	t.Parallel()
	w := testWebhook()
	if err := (Rules{}).RotateSecret(&w, otherSecret, Rotation{Overlap: time.Hour}, testNow); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]int{0: 2, time.Hour - 1: 2, time.Hour: 1} {
		h := w.Header(&Delivery{ID: "delivery_1", Format: FormatClassic}, nil, testNow.Add(after))
		if got := len(strings.Fields(h.Get(hooks.HeaderSignature))); got != want {
			t.Errorf("after %v: %d signatures, want %d", after, got, want)
		}
		if got := h.Get(hooks.HeaderClassicSignature); got != hooks.SignClassic(otherSecret, nil) {
			t.Errorf("after %v the classic signature is not the newest secret's", after)
		}
	}
}
