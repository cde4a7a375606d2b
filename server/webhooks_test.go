package server_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// A receiver is an endpoint that does as its path says.
type receiver struct {
	url string

	mu   sync.Mutex
	got  map[string][]received // by path
	does map[string]http.HandlerFunc
}

type received struct {
	header http.Header
	body   string
	at     time.Time
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{got: make(map[string][]received), does: make(map[string]http.HandlerFunc)}
	s := httptest.NewServer(r)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	r.url = s.URL
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body) // The test looks at what has come.
	r.mu.Lock()
	r.got[req.URL.Path] = append(r.got[req.URL.Path], received{req.Header, string(body), time.Now()})
	do := r.does[req.URL.Path]
	r.mu.Unlock()
	if do != nil {
		do(w, req)
	}
}

// at returns what has come to a path.
func (r *receiver) at(path string) []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got[path])
}

// say makes a path answer with a status.
func (r *receiver) say(path string, status int, headers ...string) {
	r.do(path, func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "%d it is", status)
	})
}

func (r *receiver) do(path string, do http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.does[path] = do
}

// A delivery as REST shows it.
type shownDelivery struct {
	ID, State, Event, URL string
	WebhookID             string  `json:"webhook_id"`
	ResourceID            string  `json:"resource_id"`
	ResponseStatus        *int    `json:"response_status"`
	ResponseBody          *string `json:"response_body"`
	Error                 *struct{ Class, Message string }
	Retries               int
	UpdatedAt             *string `json:"updated_at"`
	NextAttemptAt         *string `json:"next_attempt_at"`
	DelayMS               int64   `json:"delay_ms"`
	Payload               map[string]any
	Attempts              []struct {
		Number         int
		Trigger, URL   string
		ResponseStatus *int `json:"response_status"`
		Error          *struct{ Class string }
	}
}

// hookHarness is a server with a receiver.
type hookHarness struct {
	*servertest.Server
	*receiver
	t *testing.T
}

func newHookHarness(t *testing.T, change ...func(*server.Config)) *hookHarness {
	return &hookHarness{Server: servertest.Start(t, change...), receiver: newReceiver(t), t: t}
}

// hook makes a webhook at a path of the receiver.
func (r *hookHarness) hook(path, more string) (id, secret string) {
	r.t.Helper()
	var made struct{ ID, Secret string }
	r.Call(r.t, http.MethodPost, hooksPath, fmt.Sprintf(`{"label": "x", "url": %q, "events": ["*"]%s}`, r.url+path, more)).Into(r.t, &made)
	return made.ID, made.Secret
}

func (r *hookHarness) key() (id string) {
	r.t.Helper()
	var made struct{ ID string }
	r.Call(r.t, http.MethodPost, keysPath, `{"label": "A key"}`).Into(r.t, &made)
	return made.ID
}

func (r *hookHarness) list(query url.Values) (list []shownDelivery) {
	r.t.Helper()
	r.Call(r.t, http.MethodGet, queuePath+"?"+query.Encode(), "").Into(r.t, &list)
	return list
}

// await returns the one delivery of a webhook when it fits.
func (r *hookHarness) await(webhookID string, fits func(d shownDelivery) bool) shownDelivery {
	r.t.Helper()
	var d shownDelivery
	eventually(r.t, func() bool {
		list := r.list(url.Values{"webhook_id": {webhookID}})
		if len(list) != 1 {
			return false
		}
		r.Call(r.t, http.MethodGet, queuePath+"/"+list[0].ID, "").Into(r.t, &d)
		return fits(d)
	}, func() string { return fmt.Sprintf("%+v", d) })
	return d
}

func inState(state string) func(shownDelivery) bool {
	return func(d shownDelivery) bool { return d.State == state }
}

// eventually waits until done reports so.
func eventually(t *testing.T, done func() bool, say func() string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come: %s", say())
		}
	}
}

// TestDeliveries follows deliveries through REST from the change to the end.
func TestDeliveries(t *testing.T) {
	t.Parallel()
	r := newHookHarness(t)
	id, secret := r.hook("/ok", `, "headers": {"X-Tenant": "blue"}`)
	began := time.Now().UTC().Format(time.DateTime)
	key := r.key()
	d := r.await(id, inState("delivered"))
	got := r.at("/ok")
	if len(got) != 1 {
		t.Fatalf("%d requests", len(got))
	}
	if err := hooks.Verify(secret, got[0].header, []byte(got[0].body), time.Now()); err != nil {
		t.Error(err)
	}
	if h := got[0].header; h.Get("X-Tenant") != "blue" || h.Get("X-Webhook-Event") != "api_key.created" || h.Get("X-Webhook-Delivery") != d.ID || h.Get("Webhook-Id") != d.ID {
		t.Errorf("headers %v", h)
	}
	if d.Event != "api_key.created" || d.ResourceID != key || d.Payload["id"] != key || *d.ResponseStatus != 200 || d.Error != nil || d.Retries != 0 || d.NextAttemptAt != nil ||
		len(d.Attempts) != 1 || d.Attempts[0].Trigger != "schedule" || d.Attempts[0].Number != 1 || d.URL != r.url+"/ok" {
		t.Errorf("got %+v", d)
	}
	for name, c := range map[string]struct {
		query url.Values
		want  int
	}{
		"none":       {url.Values{}, 1},
		"state":      {url.Values{"state": {"delivered"}}, 1},
		"other":      {url.Values{"state": {"failed"}}, 0},
		"event":      {url.Values{"event": {"api_key.created"}, "resource_id": {key}}, 1},
		"no event":   {url.Values{"event": {"api_key.updated"}}, 0},
		"since":      {url.Values{"since": {began}}, 1},
		"until":      {url.Values{"until": {began}}, 0},
		"no webhook": {url.Values{"webhook_id": {"webhook_1"}}, 0},
	} {
		if got := r.list(c.query); len(got) != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, query := range []string{"state=open", "since=soon", "until=x", "page_size=1001", "page_token=!", "colour=red", "webhook_id=" + strings.Repeat("x", 129)} {
		field, _, _ := strings.Cut(query, "=")
		if a := r.Call(t, http.MethodGet, queuePath+"?"+query, ""); a.Status != http.StatusBadRequest || a.Envelope.Validator[field] == "" {
			t.Errorf("%s: %s", query, a)
		}
	}
	for _, path := range []string{"", "/retry", "/cancel"} {
		method := http.MethodPost
		if path == "" {
			method = http.MethodGet
		}
		for _, id := range []string{"delivery_1", "x", "delivery_0197c0ec-a197-719f-84a9-99270a79b42a"} {
			if a := r.Call(t, method, queuePath+"/"+id+path, ""); a.Status != http.StatusNotFound || a.Envelope.Log["reason"] != "DELIVERY_NOT_FOUND" {
				t.Errorf("%s %s%s: %s", method, id, path, a)
			}
		}
		if a := r.Call(t, method, queuePath+"/"+d.ID+path, "", "X-Organization-Id: org_other"); a.Status != http.StatusNotFound {
			t.Errorf("of another organization: %s", a)
		}
	}

	// The same again is the same to the byte, but for when it was sent.
	if a := r.Call(t, http.MethodPost, queuePath+"/"+d.ID+"/cancel", ""); a.Envelope.Log["reason"] != "DELIVERY_NOT_PENDING" {
		t.Errorf("cancelled what was delivered: %s", a)
	}
	r.Call(t, http.MethodPost, queuePath+"/"+d.ID+"/retry", "").Into(t, new(any))
	d = r.await(id, func(d shownDelivery) bool { return d.Retries == 1 && d.State == "delivered" })
	if got := r.at("/ok"); len(got) != 2 || got[0].body != got[1].body || got[1].header.Get("Webhook-Id") != d.ID || d.Attempts[1].Trigger != "retry" {
		t.Errorf("sent again: %+v", got)
	}
	var replayed struct {
		Matched, Queued int
		Until           string
	}
	since := fmt.Sprintf(`{"since": %q}`, began)
	r.Call(t, http.MethodPost, hooksPath+"/"+id+"/replay", since).Into(t, &replayed)
	if replayed.Matched != 1 || replayed.Queued != 1 || replayed.Until == "" {
		t.Errorf("replayed %+v", replayed)
	}
	d = r.await(id, func(d shownDelivery) bool { return d.Retries == 2 && d.State == "delivered" })
	if d.Attempts[2].Trigger != "replay" {
		t.Errorf("attempts %+v", d.Attempts)
	}
	late, _ := r.hook("/late", "")
	r.Call(t, http.MethodPost, hooksPath+"/"+late+"/replay", since).Into(t, &replayed)
	if d := r.await(late, inState("delivered")); d.ResourceID != key || replayed.Queued != 1 {
		t.Errorf("replayed to a new one: %+v", d)
	}
	var sent shownDelivery
	r.Call(t, http.MethodPost, hooksPath+"/"+late+"/test", "").Into(t, &sent)
	eventually(t, func() bool { return len(r.at("/late")) == 2 }, func() string { return "the test" })
	if got := r.at("/late")[1]; got.header.Get("X-Webhook-Event") != "webhook.test" || got.header.Get("Webhook-Id") != sent.ID {
		t.Errorf("test %+v", got.header)
	}
}

// TestFailingWebhookTells is what an operator sees of an endpoint that fails and is mended:
// its health, the list of those that fail, the url of each attempt, and what it takes to
// send all that waits.
func TestFailingWebhookTells(t *testing.T) {
	t.Parallel()
	r := newHookHarness(t)
	id, _ := r.hook("/bad", "")
	r.say("/bad", 500)
	good, _ := r.hook("/good", "")
	for range 3 {
		r.key()
	}
	type health struct {
		State     string
		LastError *struct{ Class, Message string } `json:"last_error"`
		Pending   int
	}
	read := func(id string) health {
		var w struct{ Health health }
		r.Call(t, http.MethodGet, hooksPath+"/"+id, "").Into(t, &w)
		return w.Health
	}
	eventually(t, func() bool {
		return read(id).State == "failing" && read(id).Pending == 3 &&
			len(r.at("/good")) == 3 && read(good).State == "healthy" && read(good).Pending == 0
	}, func() string { return fmt.Sprintf("%+v, %+v", read(id), read(good)) })
	if h := read(id); h.Pending != 3 || h.LastError == nil || h.LastError.Class != "http_status" {
		t.Errorf("health %+v", h)
	}
	for query, want := range map[string]string{"true": id, "false": good} {
		var list []struct{ ID string }
		r.Call(t, http.MethodGet, hooksPath+"?failing="+query, "").Into(t, &list)
		if len(list) != 1 || list[0].ID != want {
			t.Errorf("failing=%s: %+v", query, list)
		}
	}
	retry := func(id, body string) (queued int) {
		t.Helper()
		var answer struct{ Queued int }
		r.Call(t, http.MethodPost, hooksPath+"/"+id+"/retry", body).Into(t, &answer)
		return answer.Queued
	}
	if n := retry(good, `{"states": ["pending", "failed", "cancelled"]}`); n != 0 {
		t.Errorf("%d retried of the good one", n)
	}
	r.Call(t, http.MethodPatch, hooksPath+"/"+id, fmt.Sprintf(`{"url": %q}`, r.url+"/mended")).Into(t, new(any))
	if n := retry(id, `{"states": ["pending"]}`); n != 3 {
		t.Errorf("%d retried", n)
	}
	eventually(t, func() bool { return read(id).State == "healthy" && read(id).Pending == 0 }, func() string { return fmt.Sprint(read(id)) })
	var d shownDelivery
	r.Call(t, http.MethodGet, queuePath+"/"+r.list(url.Values{"webhook_id": {id}})[0].ID, "").Into(t, &d)
	if first, last := d.Attempts[0].URL, d.Attempts[len(d.Attempts)-1].URL; first != r.url+"/bad" || last != r.url+"/mended" || d.URL != r.url+"/bad" {
		t.Errorf("sent to %s, then %s", first, last)
	}
	for body, field := range map[string]string{`{}`: "states", `{"states": []}`: "states", `{"states": ["delivered"]}`: "states", `{"states": ["open"]}`: "states"} {
		if a := r.Call(t, http.MethodPost, hooksPath+"/"+id+"/retry", body); a.Status != http.StatusBadRequest || len(a.Envelope.Validator) == 0 {
			t.Errorf("%s (%s): %s", body, field, a)
		}
	}
	if a := r.Call(t, http.MethodPost, hooksPath+"/"+id+"/retry", `{"states": ["failed"]}`, "X-Organization-Id: org_other"); a.Status != http.StatusNotFound {
		t.Errorf("of another organization: %s", a)
	}
	r.Call(t, http.MethodPatch, hooksPath+"/"+id, `{"enabled": false}`).Into(t, new(any))
	if a := r.Call(t, http.MethodPost, hooksPath+"/"+id+"/retry", `{"states": ["failed"]}`); a.Envelope.Log["reason"] != "WEBHOOK_DISABLED" {
		t.Errorf("of a disabled one: %s", a)
	}
}

// TestDisabledAndDeleted is what becomes of deliveries whose webhook is disabled,
// moved or deleted under them.
func TestDisabledAndDeleted(t *testing.T) {
	t.Parallel()
	r := newHookHarness(t, func(c *server.Config) { c.WebhooksDelays = []time.Duration{time.Hour} })
	r.say("/no", 503)
	id, _ := r.hook("/no", "")
	r.key()
	d := r.await(id, func(d shownDelivery) bool { return len(d.Attempts) == 1 })
	if d.State != "pending" || d.NextAttemptAt == nil || d.DelayMS < 48*60_000 || d.DelayMS > 72*60_000 || d.Error.Class != "http_status" || *d.ResponseBody != "503 it is" {
		t.Errorf("got %+v", d)
	}
	change := func(body string) { r.Call(t, http.MethodPatch, hooksPath+"/"+id, body).Into(t, new(any)) }
	change(`{"enabled": false}`)
	if a := r.Call(t, http.MethodPost, queuePath+"/"+d.ID+"/retry", ""); a.Status != http.StatusBadRequest || a.Envelope.Log["reason"] != "WEBHOOK_DISABLED" {
		t.Errorf("retried while disabled: %s", a)
	}
	change(fmt.Sprintf(`{"enabled": true, "url": %q}`, r.url+"/moved"))
	r.Call(t, http.MethodPost, queuePath+"/"+d.ID+"/retry", "").Into(t, new(any))
	d = r.await(id, inState("delivered"))
	if got := r.at("/moved"); len(got) != 1 || got[0].body != r.at("/no")[0].body || d.URL != r.url+"/no" {
		t.Errorf("moved: %+v", got)
	}
	change(fmt.Sprintf(`{"url": %q}`, r.url+"/no"))
	for range 3 {
		r.key()
	}
	eventually(t, func() bool { return len(r.at("/no")) == 4 }, func() string { return "the attempts" })
	r.Call(t, http.MethodPost, queuePath+"/"+r.list(url.Values{"state": {"pending"}})[0].ID+"/cancel", "").Into(t, &d)
	if d.State != "cancelled" || d.NextAttemptAt != nil {
		t.Errorf("cancelled: %+v", d)
	}
	r.Call(t, http.MethodPost, queuePath+"/"+d.ID+"/cancel", "").Into(t, new(any))
	r.Call(t, http.MethodDelete, hooksPath+"/"+id, "").Into(t, new(any))
	eventually(t, func() bool { return len(r.list(url.Values{"state": {"cancelled"}})) == 3 },
		func() string { return "the end of what was on its way" })
	if a := r.Call(t, http.MethodPost, queuePath+"/"+d.ID+"/retry", ""); a.Status != http.StatusBadRequest {
		t.Errorf("retried of a deleted one: %s", a)
	}
}
