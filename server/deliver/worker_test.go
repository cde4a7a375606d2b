package deliver

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// inBubble runs a test whose time passes as soon as everybody waits for it.
func inBubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

func TestWorkerSends(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t)
		for i := range 5 {
			w := r.add(fmt.Sprint("w", i))
			r.says(w.ID, func(req *http.Request) (int, error) {
				if err := hooks.Verify(w.Secrets[0].Secret.Reveal(), req.Header, bodyOf(t, req), time.Now()); err != nil {
					t.Error(err)
				}
				return 204, nil
			})
			r.put(w.ID, 30)
		}
		synctest.Wait()
		if n := r.count("", webhook.StateDelivered); n != 150 || r.requests("") != 150 {
			t.Errorf("%d of 150 delivered with %d requests", n, r.requests(""))
		}
	})
}

func bodyOf(t *testing.T, r *http.Request) []byte {
	t.Helper()
	body := make([]byte, r.ContentLength)
	if _, err := r.Body.Read(body); err != nil {
		t.Error(err)
	}
	return body
}

// What hangs has its share and no more, whatever waits for it, and the others go
// on as if it were not there.
func TestWorkerBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t, func(c *WorkerConfig) { c.PerWebhook, c.InFlight = 8, 512 })
		r.add("hangs")
		r.says("hangs", hang)
		r.put("hangs", 1000)
		r.add("slow")
		r.says("slow", slow(time.Second))
		r.put("slow", 80)
		for i := range 20 {
			r.add(fmt.Sprint("w", i))
		}
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			for i := range 20 {
				r.put(fmt.Sprint("w", i), 1)
			}
			synctest.Wait()
			if n := r.count("", webhook.StatePending) - r.count("hangs", webhook.StatePending) - r.count("slow", webhook.StatePending); n != 0 {
				t.Fatalf("%d of those that do well wait", n)
			}
		}
		time.Sleep(10 * time.Second)
		if n := r.count("slow", webhook.StateDelivered); n != 80 || r.atMost("slow") != 8 {
			t.Errorf("%d of the slow one's 80, at most %d at a time", n, r.atMost("slow"))
		}
		if r.atMost("hangs") > 8 || r.requests("hangs") != 2 {
			t.Errorf("the one that hangs got %d requests, %d at a time", r.requests("hangs"), r.atMost("hangs"))
		}
		time.Sleep(10 * time.Minute)
		if r.atMost("hangs") > 8 || r.requests("hangs") > 30 {
			t.Errorf("the one that hangs got %d requests, %d at a time", r.requests("hangs"), r.atMost("hangs"))
		}
	})
}

// A hundred that hang leave room for one that does not.
func TestWorkerTotalBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t, func(c *WorkerConfig) { c.InFlight = 64 })
		r.add("well")
		r.put("well", 1)
		synctest.Wait()
		for i := range 100 {
			id := fmt.Sprint("hangs", i)
			r.add(id)
			r.says(id, hang)
			r.put(id, 20)
		}
		for range 200 {
			time.Sleep(500 * time.Millisecond)
			r.put("well", 3)
			synctest.Wait()
			if n := r.count("well", webhook.StatePending); n != 0 {
				t.Fatalf("%d of the one that does well wait", n)
			}
		}
		if r.atMost("") > 64 {
			t.Errorf("%d at a time", r.atMost(""))
		}
	})
}

// An endpoint that comes back gets one request, then two, and only then all that
// it can take.
func TestWorkerDrainsSlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t, func(c *WorkerConfig) { c.Backoff.Delays = []time.Duration{time.Minute, time.Minute, time.Minute} })
		r.add("w")
		r.says("w", 503)
		r.put("w", 200)
		time.Sleep(90 * time.Second)
		r.says("w", slow(time.Second))
		time.Sleep(30 * time.Second)
		var most []int
		for range 5 {
			r.atMost("w") // from now on
			time.Sleep(time.Second)
			synctest.Wait()
			most = append(most, r.atMost("w"))
		}
		if !slices.IsSorted(most) || most[0] > 2 || most[4] != 8 {
			t.Errorf("at a time: %v", most)
		}
		time.Sleep(2 * time.Minute)
		if n := r.count("w", webhook.StateDelivered); n != 200 {
			t.Errorf("%d of 200 delivered", n)
		}
	})
}

// While a webhook is disabled its deliveries wait without an attempt; enabled it
// gets them. One that is deleted gets nothing.
func TestWorkerDisabledWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.add("gone")
		r.change("w", func(w *webhook.Webhook) { w.Enabled = false })
		r.put("w", 20)
		r.fakeQueue.mu.Lock()
		delete(r.webhooks, "gone")
		r.fakeQueue.mu.Unlock()
		r.wake([]string{"gone", "never"})
		time.Sleep(20 * 24 * time.Hour)
		if n := r.requests(""); n != 0 {
			t.Errorf("%d requests", n)
		}
		r.change("w", func(w *webhook.Webhook) { w.Enabled = true })
		synctest.Wait()
		if n := r.count("w", webhook.StateDelivered); n != 20 {
			t.Errorf("%d of 20 delivered", n)
		}
		if d := r.row("delivery_000000"); d.Attempts != 1 || d.Failures != 0 {
			t.Errorf("got %+v", d.Delivery)
		}
	})
}

// A delivery goes through its schedule, each attempt at its time.
func TestWorkerKeepsTheSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.says("w", 500)
		began := time.Now()
		r.put("w", 1)
		time.Sleep(4 * 24 * time.Hour)
		d := r.row("delivery_000000")
		if d.State != webhook.StateFailed || len(d.attempts) != 12 {
			t.Fatalf("%s after %d attempts", d.State, len(d.attempts))
		}
		at := began
		for i, a := range d.attempts {
			if late := a.StartedAt.Sub(at); late < 0 || late > time.Second {
				t.Errorf("attempt %d was %v late", i+1, late)
			}
			if i < len(webhook.DefaultDelays()) {
				at = a.StartedAt.Add(webhook.DefaultDelays()[i])
			}
		}
		if !slices.Equal(r.told(), []apikey.EventType{webhook.WebhookFailing}) {
			t.Errorf("events %v", r.told())
		}
	})
}

func TestWorkerObeysRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.says("w", 429)
		r.retryAfter = "3600"
		r.put("w", 1)
		time.Sleep(time.Minute)
		r.says("w", 200)
		if time.Sleep(58 * time.Minute); r.requests("w") != 1 {
			t.Errorf("%d requests within the hour", r.requests("w"))
		}
		if time.Sleep(2 * time.Minute); r.count("w", webhook.StateDelivered) != 1 {
			t.Error("not delivered after the hour")
		}
	})
}

func TestWorkerHealth(t *testing.T) {
	t.Parallel()
	inBubble(t, "gone", func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.says("w", http.StatusGone)
		r.put("w", 100)
		synctest.Wait()
		if w := r.webhook("w"); w.Enabled || w.DisabledReason != webhook.DisabledGone || !slices.Equal(r.told(), []apikey.EventType{webhook.WebhookDisabled}) {
			t.Errorf("got %+v, %v", w, r.told())
		}
		seen := r.requests("w")
		if time.Sleep(24 * time.Hour); seen > 8 || r.requests("w") != seen {
			t.Errorf("%d requests, then %d", seen, r.requests("w"))
		}
		r.says("w", 200)
		r.change("w", func(w *webhook.Webhook) { w.Enabled, w.DisabledReason, w.Health = true, "", webhook.Health{} })
		if time.Sleep(time.Minute); r.count("w", webhook.StateDelivered) != 100 {
			t.Errorf("%d of 100 delivered after it was enabled", r.count("w", webhook.StateDelivered))
		}
	})
	inBubble(t, "failing once a spell", func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		for range 2 {
			r.says("w", 500)
			r.put("w", 5)
			time.Sleep(24 * time.Hour)
			r.says("w", 200)
			r.put("w", 1)
			time.Sleep(24 * time.Hour)
		}
		if want := []apikey.EventType{webhook.WebhookFailing, webhook.WebhookFailing}; !slices.Equal(r.told(), want) {
			t.Errorf("events %v", r.told())
		}
		if h := r.webhook("w").Health; h.State() != webhook.HealthHealthy || !r.webhook("w").Enabled {
			t.Errorf("health %+v", h)
		}
	})
	inBubble(t, "five days", func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.says("w", hang)
		began := time.Now()
		for range 6 {
			r.put("w", 1)
			time.Sleep(24 * time.Hour)
		}
		w := r.webhook("w")
		if want := []apikey.EventType{webhook.WebhookFailing, webhook.WebhookDisabled}; !slices.Equal(r.told(), want) || w.Enabled || w.DisabledReason != webhook.DisabledFailing {
			t.Errorf("events %v, %+v", r.told(), w)
		}
		if after := w.UpdatedAt.Sub(began); after < 5*24*time.Hour || after > 6*24*time.Hour {
			t.Errorf("disabled after %v", after)
		}
	})
	inBubble(t, "a success in between", func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		var n atomic.Int64 // of attempts, some at the same time
		r.says("w", func(*http.Request) (int, error) {
			if n.Add(1)%20 == 0 {
				return 200, nil
			}
			return 500, nil
		})
		for range 20 {
			r.put("w", 4)
			time.Sleep(12 * time.Hour)
		}
		if !r.webhook("w").Enabled {
			t.Errorf("disabled: %v", r.told())
		}
	})
}
