package webhook

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// problems returns the faulty fields that err names.
func problems(err error) []string {
	e := apikey.AsError(err)
	if e == nil {
		return nil
	}
	var fields []string
	for _, f := range e.Fields {
		fields = append(fields, f.Field)
	}
	return fields
}

func TestCreate(t *testing.T) {
	t.Parallel()
	many := make([]apikey.EventType, 0, 51)
	for i := range 51 {
		many = append(many, apikey.EventType(fmt.Sprint(i)))
	}
	cases := []struct {
		name   string
		change func(*Webhook)
		want   []string
	}{
		{"good", func(*Webhook) {}, nil},
		{"no label", func(w *Webhook) { w.Label = "" }, []string{"label"}},
		{"no url", func(w *Webhook) { w.URL = "" }, []string{"url"}},
		{"an inner url", func(w *Webhook) { w.URL = "https://10.0.0.1/" }, []string{"url"}},
		{"no events", func(w *Webhook) { w.Events = nil }, []string{"events"}},
		{"an unknown event", func(w *Webhook) { w.Events = []apikey.EventType{"*", "api_key.melted"} }, []string{"events[1]"}},
		{"the test event", func(w *Webhook) { w.Events = []apikey.EventType{WebhookTest} }, []string{"events[0]"}},
		{"a part of a type", func(w *Webhook) { w.Events = []apikey.EventType{"webhook.*"} }, []string{"events[0]"}},
		{"too many events", func(w *Webhook) { w.Events = many }, nil},
		{"no format", func(w *Webhook) { w.Format = "" }, []string{"format"}},
		{"a reserved header", func(w *Webhook) { w.Headers = NewHeaders(map[string]string{"host": "x"}) }, []string{"headers.Host"}},
		{"all at once", func(w *Webhook) { w.Label, w.URL, w.Events, w.Format = "", "", nil, "x" }, []string{"label", "url", "events", "format"}},
	}
	for _, c := range cases {
		w := testWebhook()
		c.change(&w)
		_, err := Rules{}.Create(w, testSecret, testNow)
		if c.name == "too many events" {
			if got := problems(err); len(got) != 1 || got[0] != "events" {
				t.Errorf("%s: %v", c.name, got)
			}
			continue
		}
		if diff := cmp.Diff(c.want, problems(err)); diff != "" || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v\n%s", c.name, err, diff)
		}
	}
	w := testWebhook()
	w.Events = []apikey.EventType{"webhook.failing", "*", "webhook.failing"}
	w, err := Rules{}.Create(w, testSecret, testNow)
	if err != nil || !slices.Equal(w.Events, []apikey.EventType{"webhook.failing", "*"}) {
		t.Errorf("got %v, %v", w.Events, err)
	}
	if w.ETag() != "1" || w.SecretMask != testSecret.Mask() || !w.CreatedAt.Equal(testNow) {
		t.Errorf("got %+v", w)
	}
}

func TestDefaultFormat(t *testing.T) {
	t.Parallel()
	for collection, want := range map[string]Format{"": FormatClassic, "webhooks": FormatClassic, "subscriptions": FormatResource} {
		if got := DefaultFormat(collection); got != want {
			t.Errorf("%q: %s", collection, got)
		}
	}
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	if err := (Rules{}).Admit(10_000); err != nil {
		t.Error("without a bound:", err)
	}
	two := Rules{MaxWebhooks: 2}
	if err := two.Admit(1); err != nil {
		t.Error(err)
	}
	if e := apikey.AsError(two.Admit(2)); e == nil || e.Reason != ReasonTooManyWebhooks {
		t.Errorf("got %v", e)
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	values := Webhook{
		Label: "New", URL: "https://new.example/", Events: []apikey.EventType{"api_key.created", "api_key.created"}, Format: FormatStandard,
		Headers: NewHeaders(map[string]string{"x-new": "n", "x-tenant": HeaderMask}),
	}
	cases := []struct {
		name    string
		paths   []string
		changes []string
		faults  []string
	}{
		{"nothing", nil, nil, nil},
		{"label", []string{"label"}, []string{"label"}, nil},
		{"description, cleared already", []string{"description"}, nil, nil},
		{"url, and masked headers stay", []string{"url"}, nil, []string{"headers"}},
		{"url, and the headers go", []string{"url", "headers.`x-tenant`"}, nil, []string{"headers"}}, // the values hold its mask
		{"events", []string{"events"}, []string{"events"}, nil},
		{"format", []string{"format"}, []string{"format"}, nil},
		{"headers", []string{"headers"}, []string{"headers"}, nil},
		{"one header", []string{"headers.`X-New`"}, []string{"headers"}, nil},
		{"one header, quoted by nobody", []string{"headers.x-new"}, []string{"headers"}, nil},
		{"a header as it was read", []string{"headers.`X-Tenant`"}, nil, nil},
		{"a header that goes, and was not there", []string{"headers.`x-gone`"}, nil, nil},
		{"a header in half a quotation", []string{"headers.`x-new"}, nil, []string{"update_mask"}},
		{"a header below a header", []string{"headers.`x-new`.a"}, nil, []string{"update_mask"}},
		{"a header without a name", []string{"headers."}, nil, []string{"update_mask"}},
		{"disabled", []string{"enabled"}, []string{"enabled"}, nil},
		{"secret", []string{"secret"}, nil, []string{"update_mask"}},
		{"unknown", []string{"label", "colour"}, nil, []string{"update_mask"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := testWebhook()
			after := before
			err := Rules{}.Update(&after, Patch{c.paths, values})
			if diff := cmp.Diff(c.faults, problems(err)); diff != "" {
				t.Fatalf("%v\n%s", err, diff)
			}
			if err == nil {
				if diff := cmp.Diff(c.changes, Changes(&before, &after)); diff != "" {
					t.Error(diff)
				}
			}
			if before.Headers[0].Value.Reveal() != "hunter3" {
				t.Error("the webhook before was changed")
			}
		})
	}
}

func TestUpdateOfHeaders(t *testing.T) {
	t.Parallel()
	w := testWebhook()
	update := func(values map[string]string, paths ...string) error {
		return Rules{}.Update(&w, Patch{paths, Webhook{Headers: NewHeaders(values)}})
	}
	shown := func() string {
		var b strings.Builder
		for _, h := range w.Headers {
			fmt.Fprintf(&b, "%s=%s ", h.Name, h.Value.Reveal())
		}
		return b.String()
	}
	if err := update(map[string]string{"a": "1", "x-tenant": HeaderMask}, "headers"); err != nil || shown() != "A=1 X-Tenant=hunter3 " {
		t.Errorf("%v: %s", err, shown())
	}
	if err := update(map[string]string{"b": "2"}, "headers.`b`", "headers.`a`"); err != nil || shown() != "B=2 X-Tenant=hunter3 " {
		t.Errorf("%v: %s", err, shown())
	}
	if err := update(map[string]string{"c": HeaderMask}, "headers.`c`"); problems(err) == nil {
		t.Error("the mask is taken for a value")
	}
	w = testWebhook()
	if err := update(nil, "headers"); err != nil || shown() != "" {
		t.Errorf("%v: %s", err, shown())
	}
}

// A webhook that a later configuration forbids can still be renamed.
func TestUpdateChecksWhatItChanges(t *testing.T) {
	t.Parallel()
	w := testWebhook()
	w.URL = "http://127.0.0.1/"
	if err := (Rules{}).Update(&w, Patch{[]string{"label"}, Webhook{Label: "x"}}); err != nil {
		t.Error(err)
	}
	if err := (Rules{}).Update(&w, Patch{[]string{"url"}, Webhook{URL: w.URL}}); err != nil {
		t.Error("a url that stays is checked anew:", err)
	}
	if err := (Rules{}).Update(&w, Patch{[]string{"url"}, Webhook{URL: "http://127.0.0.1/x"}}); problems(err) == nil {
		t.Error("a forbidden url is taken")
	}
}

// A masked header value never goes to a place for which its owner did not give it.
func TestAnotherOriginNeedsHeadersAnew(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, url string
		paths     []string
		headers   map[string]string
		want      []string
	}{
		{"another path", "https://example.com/other?x=y", nil, nil, nil},
		{"the port in full, another case", "https://EXAMPLE.com:443/hook", nil, nil, nil},
		{"another host", "https://evil.example/hook", nil, nil, []string{"headers"}},
		{"a name below it", "https://a.example.com/hook", nil, nil, []string{"headers"}},
		{"another port", "https://example.com:8443/hook", nil, nil, []string{"headers"}},
		{"another scheme", "http://example.com/hook", nil, nil, []string{"headers"}},
		{"another scheme on the same port", "http://example.com:443/hook", nil, nil, []string{"url", "headers"}},
		{"with a dot behind it", "https://example.com./hook", nil, nil, []string{"headers"}},
		{"all as they were read", "https://evil.example/", []string{"headers"}, map[string]string{"x-tenant": HeaderMask, "x-b": HeaderMask}, []string{"headers"}},
		{"one given", "https://evil.example/", []string{"headers.`x-tenant`"}, map[string]string{"x-tenant": "hunter3"}, []string{"headers"}},
		{"one given, one as it was read", "https://evil.example/", []string{"headers"}, map[string]string{"x-tenant": "hunter3", "x-b": HeaderMask}, []string{"headers"}},
		{"both given", "https://evil.example/", []string{"headers"}, map[string]string{"x-tenant": "hunter3", "x-b": "2"}, nil},
		{"one given, one gone", "https://evil.example/", []string{"headers"}, map[string]string{"x-b": "2"}, nil},
		{"both gone", "https://evil.example/", []string{"headers"}, nil, nil},
		{"both given, one by one", "https://evil.example/", []string{"headers.`x-b`", "headers.x-tenant"}, map[string]string{"x-tenant": "1", "x-b": "2"}, nil},
		{"another one is new", "https://evil.example/", []string{"headers.`x-new`"}, map[string]string{"x-new": "1"}, []string{"headers"}},
	}
	for _, c := range cases {
		w := testWebhook()
		w.Headers = NewHeaders(map[string]string{"x-tenant": "hunter3", "x-b": "hunter4"})
		err := Rules{Guard: Guard{Loopback: true}}.Update(&w, Patch{append([]string{"url"}, c.paths...), Webhook{URL: c.url, Headers: NewHeaders(c.headers)}})
		if diff := cmp.Diff(c.want, problems(err)); diff != "" {
			t.Errorf("%s: %v\n%s", c.name, err, diff)
		}
	}
}

func TestRotateSecret(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w, now := testWebhook(), testNow
		for range rapid.IntRange(1, 8).Draw(t, "rotations") {
			now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "wait")) * time.Hour)
			overlap := time.Duration(rapid.IntRange(0, 100).Draw(t, "overlap")) * time.Hour
			old := w.signing(now)
			secret, err := hooks.NewSecret(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := (Rules{}).RotateSecret(&w, secret, Rotation{Overlap: overlap}, now); err != nil {
				if len(old) != maxSecrets || overlap == 0 || apikey.AsError(err).Reason != ReasonTooManySecrets {
					t.Fatalf("%d secrets sign: %v", len(old), err)
				}
				if len(w.signing(now)) != maxSecrets {
					t.Fatal("a rotation that was refused changed the secrets")
				}
				if err := (Rules{}).RotateSecret(&w, secret, Rotation{Overlap: overlap, EndOldest: true}, now); err != nil {
					t.Fatal(err)
				}
			}
			signing := w.signing(now)
			if newest(&w) != secret.Reveal() || w.SecretMask != secret.Mask() || len(w.Secrets) > maxSecrets {
				t.Fatalf("got %v", w.Secrets)
			}
			if overlap == 0 && len(signing) != 1 {
				t.Fatalf("%d secrets sign after a rotation without overlap", len(signing))
			}
			if overlap > 0 && signing[1].Reveal() != old[0].Reveal() {
				t.Fatal("the old secret does not sign")
			}
			if len(w.signing(now.Add(overlap))) != 1 {
				t.Fatal("an old secret signs past the overlap")
			}
		}
	})
}

func TestReceives(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		events []apikey.EventType
		event  apikey.Event
		want   bool
	}{
		{"the star and a key", []apikey.EventType{"*"}, apikey.Event{Type: "api_key.created"}, true},
		{"a type of days to come", []apikey.EventType{"*"}, apikey.Event{Type: "api_key.melted"}, true},
		{"the star and a webhook", []apikey.EventType{"*"}, apikey.Event{Type: "webhook.created"}, false},
		{"by name", []apikey.EventType{"*", "webhook.created"}, apikey.Event{Type: "webhook.created"}, true},
		{"another type", []apikey.EventType{"api_key.created"}, apikey.Event{Type: "api_key.updated"}, false},
		{"itself", []apikey.EventType{"webhook.failing"}, apikey.Event{Type: "webhook.failing", ResourceID: testWebhook().ID}, false},
		{"a test", []apikey.EventType{"*"}, apikey.Event{Type: WebhookTest}, false},
		{"another organization", []apikey.EventType{"*"}, apikey.Event{Type: "api_key.created", OrganizationID: "org_other"}, false},
	}
	for _, c := range cases {
		w := testWebhook()
		w.Events = c.events
		if c.event.OrganizationID == "" {
			c.event.OrganizationID = w.OrganizationID
		}
		if got := w.Receives(&c.event); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if w.Enabled = false; w.Receives(&c.event) {
			t.Errorf("%s: received while disabled", c.name)
		}
	}
}
