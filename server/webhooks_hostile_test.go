package server_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestHostileReceivers has endpoints do their worst, all at once; one beside them
// does well.
func TestHostileReceivers(t *testing.T) {
	t.Parallel()
	r := newHookHarness(t, func(c *server.Config) { c.WebhooksDelays = []time.Duration{50 * time.Millisecond, time.Hour} })
	r.say("/200", 200)
	r.say("/500", 500)
	r.say("/302", 302, "Location", r.url+"/followed")
	r.say("/410", 410)
	r.say("/429", 429, "Retry-After", "3600")
	r.do("/never", func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
	endless := func(chunk []byte, pause time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			for sent := 0; sent < 1<<30 && req.Context().Err() == nil; sent += len(chunk) {
				if _, err := w.Write(chunk); err != nil {
					return
				}
				if pause > 0 {
					_ = http.NewResponseController(w).Flush()
					time.Sleep(pause)
				}
			}
		}
	}
	r.do("/drip", endless([]byte("x"), 100*time.Millisecond))
	r.do("/gigabyte", endless(make([]byte, 1<<20), 0))
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 50 {
		if _, err := z.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	r.do("/bomb", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes()) // Whoever reads has had enough at some point.
	})
	r.do("/headers", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 20 << 10 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1<<10))
		}
	})
	ids := make(map[string]string)
	for _, path := range []string{"/200", "/500", "/302", "/410", "/429", "/never", "/drip", "/gigabyte", "/bomb", "/headers"} {
		ids[path], _ = r.hook(path, "")
	}
	r.key()
	attempts := func(n int) func(shownDelivery) bool {
		return func(d shownDelivery) bool { return len(d.Attempts) >= n }
	}
	for path, fits := range map[string]func(shownDelivery) bool{
		"/200": inState("delivered"), "/gigabyte": inState("delivered"), "/bomb": inState("delivered"),
		"/500": attempts(2), "/302": attempts(2), "/headers": attempts(2), "/410": attempts(1), "/429": attempts(1),
	} {
		d := r.await(ids[path], fits)
		if d.ResponseBody != nil && len(*d.ResponseBody) > 64<<10 { // 16 KiB, of which each byte may be shown as three
			t.Errorf("%s: a body of %d bytes", path, len(*d.ResponseBody))
		}
		class := map[string]string{"/500": "http_status", "/302": "http_status", "/410": "http_status", "/429": "http_status", "/headers": "invalid_response"}[path]
		if (d.Error == nil) != (class == "") || d.Error != nil && d.Error.Class != class {
			t.Errorf("%s: %+v", path, d.Error)
		}
		if path == "/429" && d.DelayMS < 3_600_000 {
			t.Errorf("429: again after %d ms", d.DelayMS)
		}
	}
	if got := r.at("/followed"); len(got) != 0 {
		t.Errorf("a redirect was followed: %+v", got)
	}
	var gone struct {
		Enabled        bool
		DisabledReason string `json:"disabled_reason"`
	}
	r.Call(t, http.MethodGet, hooksPath+"/"+ids["/410"], "").Into(t, &gone)
	if gone.Enabled || gone.DisabledReason != "gone" {
		t.Errorf("gone: %+v", gone)
	}
	log := r.Call(t, http.MethodGet, "/developers/events?after=start&types=webhook.disabled", "")
	var events []struct {
		Type  string
		Actor struct{ Kind string }
	}
	if err := json.Unmarshal(log.Envelope.Data, &events); err != nil || len(events) != 1 || events[0].Actor.Kind != "system" {
		t.Errorf("events %s, %v", log.Body, err)
	}
	// Those that never end have what they had; the others go on.
	began := time.Now()
	for range 20 {
		r.key()
	}
	eventually(t, func() bool { return len(r.at("/200")) == 21 }, func() string { return fmt.Sprint(len(r.at("/200"))) })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("beside them 20 took %v", took)
	}
	if n := len(r.at("/never")); n > 8 {
		t.Errorf("what never answers got %d requests", n)
	}
}

// TestStopGivesBack stops a server while an endpoint keeps it waiting: the stop
// takes no longer than it may, and the attempt is not counted.
func TestStopGivesBack(t *testing.T) {
	t.Parallel()
	r := newHookHarness(t, func(c *server.Config) { c.ShutdownTimeout = 300 * time.Millisecond })
	r.do("/never", func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
	id, _ := r.hook("/never", "")
	r.key()
	eventually(t, func() bool { return len(r.at("/never")) == 1 }, func() string { return "the attempt" })
	began := time.Now()
	r.Stop()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("stopped after %v", took)
	}
	r.say("/never", 200)
	r.Server = servertest.Start(t, func(c *server.Config) { c.DataDir = r.Dir })
	d := r.await(id, inState("delivered"))
	if got := r.at("/never"); len(got) != 2 || len(d.Attempts) != 1 || d.Retries != 0 || got[0].header.Get("Webhook-Id") != got[1].header.Get("Webhook-Id") {
		t.Errorf("%d requests, %+v", len(got), d)
	}
}
