package deliver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// A stop waits for what is under way as long as the grace, and gives back the
// rest as it was.
func TestWorkerStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t, func(c *WorkerConfig) { c.Grace = 10 * time.Second })
		r.add("hangs")
		r.says("hangs", hang)
		r.put("hangs", 10)
		r.add("slow")
		r.says("slow", slow(8*time.Second))
		r.put("slow", 10)
		synctest.Wait()
		began := time.Now()
		r.stop()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("stopped after %v", took)
		}
		if n, sent := r.count("slow", webhook.StateDelivered), r.requests("slow"); n != sent || n == 0 {
			t.Errorf("%d of %d under way were delivered", n, sent)
		}
		for id, row := range r.rows {
			if row.WebhookID == "hangs" && (row.Attempts != 0 || row.lease != "" || !row.due.Equal(row.NextAttemptAt)) {
				t.Errorf("%s was not given back: %+v", id, row)
			}
		}
		if r.webhook("hangs").Health != (webhook.Health{}) || len(r.log.String()) > 0 {
			t.Errorf("health %+v, log %s", r.webhook("hangs").Health, r.log)
		}
	})
	inBubble(t, "without work", func(t *testing.T) {
		r := startHarness(t)
		began := time.Now()
		if r.stop(); time.Since(began) != 0 {
			t.Errorf("stopped after %v", time.Since(began))
		}
	})
	inBubble(t, "without the database", func(t *testing.T) {
		r := startHarness(t, func(c *WorkerConfig) { c.Grace = 10 * time.Second })
		r.add("hangs")
		r.says("hangs", hang)
		r.put("hangs", 2)
		r.add("well")
		r.setAway(errAway, "Settle", "Release")
		r.put("well", 2)
		synctest.Wait()
		began := time.Now()
		if r.stop(); time.Since(began) > 20*time.Second {
			t.Errorf("stopped after %v", time.Since(began))
		}
	})
}

// A database that cannot be reached costs the endpoint nothing.
func TestWorkerWithoutDatabase(t *testing.T) {
	t.Parallel()
	inBubble(t, "away for a while", func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.setAway(errAway, "Due", "Claim", "Settle", "Release")
		r.put("w", 20)
		time.Sleep(5 * time.Minute)
		if r.requests("w") != 0 || r.called("Claim") > 700 {
			t.Errorf("%d requests, %d claims", r.requests("w"), r.called("Claim"))
		}
		r.setAway(nil, "Due", "Claim", "Settle", "Release")
		if time.Sleep(2 * time.Second); r.count("w", webhook.StateDelivered) != 20 {
			t.Errorf("%d of 20 delivered", r.count("w", webhook.StateDelivered))
		}
		text := r.log.String()
		for begin, end := range map[string]string{"Deliveries could not be claimed": "Deliveries are claimed again", "The queue could not be looked through": "The queue is looked through again"} {
			if strings.Count(text, begin) > 1 || strings.Count(text, end) != strings.Count(text, begin) {
				t.Errorf("an outage is told more than once: %s", text)
			}
		}
		if !strings.Contains(text, "Deliveries could not be claimed") {
			t.Errorf("nothing is told: %s", text)
		}
	})
	inBubble(t, "away while sending", func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.setAway(errAway, "Settle")
		r.put("w", 20)
		time.Sleep(10 * time.Second)
		seen := r.requests("w")
		r.setAway(nil, "Settle")
		time.Sleep(2 * time.Second)
		if r.count("w", webhook.StateDelivered) != 20 || r.requests("w") != 20 {
			t.Errorf("%d of 20 delivered with %d requests, %d of them before", r.count("w", webhook.StateDelivered), r.requests("w"), seen)
		}
		r.setAway(errAway, "Settle")
		r.put("w", 2)
		time.Sleep(20 * time.Second) // longer than it is waited for
		r.setAway(nil, "Settle")
		if time.Sleep(75 * time.Second); r.count("w", webhook.StateDelivered) != 22 {
			t.Errorf("%d of 22 delivered", r.count("w", webhook.StateDelivered))
		}
		r.stop()
		for _, row := range r.rows {
			if row.Failures != 0 {
				t.Errorf("counted: %+v", row.Delivery)
			}
		}
	})
}

// What another server held when it died is tried again within 75 seconds, and
// what another made is found without a wake-up.
func TestWorkerFindsWhatOthersLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.wake = func([]string) {}
		time.Sleep(3 * time.Second)
		r.put("w", 3)
		r.fakeQueue.mu.Lock()
		r.rows["delivery_000000"].lease, r.rows["delivery_000000"].due = "dead", time.Now().Add(leaseLength)
		r.fakeQueue.mu.Unlock()
		if time.Sleep(rescan); r.count("w", webhook.StateDelivered) != 2 {
			t.Errorf("%d of 2 that wait delivered", r.count("w", webhook.StateDelivered))
		}
		if time.Sleep(75*time.Second - rescan); r.count("w", webhook.StateDelivered) != 3 {
			t.Errorf("%d of 3 delivered", r.count("w", webhook.StateDelivered))
		}
	})
}

// Without ever looking through the queue the worker loses no wake-up, no retry
// and nothing that waits behind a full window, in whatever order things come.
func TestWorkerLosesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		inBubble(t, fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			r := startHarness(t, func(c *WorkerConfig) {
				c.PerWebhook, c.InFlight = 1+random.IntN(8), 4+random.IntN(64)
				c.Backoff.Delays = slices.Repeat([]time.Duration{time.Second, 3 * time.Second}, 20)
			})
			r.setAway(errAway, "Due")
			total := 0
			for i := range 10 {
				id := fmt.Sprint("w", i)
				r.add(id)
				chance, longest := random.Float64()/2, random.IntN(2000)
				answers := rand.New(rand.NewPCG(seed, uint64(i)+1))
				r.says(id, func(req *http.Request) (int, error) {
					r.endpoints.mu.Lock()
					fails, takes := answers.Float64() < chance, answers.IntN(longest+1)
					r.endpoints.mu.Unlock()
					if _, err := slow(time.Duration(takes) * time.Millisecond)(req); err != nil {
						return 0, err
					}
					if fails {
						return 500, nil
					}
					return 200, nil
				})
			}
			for range 200 {
				n := 1 + random.IntN(5)
				total += n
				r.put(fmt.Sprint("w", random.IntN(10)), n)
				if random.IntN(3) > 0 {
					time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
				}
				if random.IntN(20) == 0 {
					r.setAway(errAway, "Claim")
					time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
					r.setAway(nil, "Claim")
				}
				r.worker.scheduler.mu.Lock()
				r.worker.scheduler.checkLocked(t)
				r.worker.scheduler.mu.Unlock()
			}
			time.Sleep(30 * time.Minute)
			if n := r.count("", webhook.StateDelivered); n != total {
				t.Errorf("%d of %d delivered", n, total)
			}
		})
	}
}

// What breaks on our side ends nothing but its own attempt and is no fault of the
// endpoint.
func TestWorkerOwnFaults(t *testing.T) {
	t.Parallel()
	inBubble(t, "panic", func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.says("w", func(*http.Request) (int, error) { panic("in an attempt") })
		r.put("w", 2)
		r.add("other")
		r.put("other", 2)
		synctest.Wait()
		if d := r.row("delivery_000000"); d.State != webhook.StatePending || d.Last.Failure.Class != webhook.ClassInternal || d.NextAttemptAt.Before(time.Now()) {
			t.Errorf("got %+v", d.Delivery)
		}
		if r.count("other", webhook.StateDelivered) != 2 || !strings.Contains(r.log.String(), "in an attempt") || r.webhook("w").Health != (webhook.Health{}) {
			t.Errorf("health %+v, log %s", r.webhook("w").Health, r.log)
		}
		r.says("w", 200)
		if time.Sleep(time.Minute); r.count("w", webhook.StateDelivered) != 2 {
			t.Error("not delivered")
		}
	})
	inBubble(t, "event gone", func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.wake = func([]string) {}
		r.put("w", 1)
		r.fakeQueue.mu.Lock()
		r.rows["delivery_000000"].EventID = ""
		r.fakeQueue.mu.Unlock()
		r.worker.Wake([]string{"w"})
		time.Sleep(time.Minute)
		if d := r.row("delivery_000000"); d.State != webhook.StateFailed || d.Last.Failure.Class != webhook.ClassEventGone || len(d.attempts) != 1 {
			t.Errorf("got %+v", d.Delivery)
		}
		if r.requests("w") != 0 || r.webhook("w").Health != (webhook.Health{}) {
			t.Errorf("%d requests, health %+v", r.requests("w"), r.webhook("w").Health)
		}
	})
	inBubble(t, "no body", func(t *testing.T) {
		r := startHarness(t)
		r.add("w").Format = "unknown"
		r.change("w", func(w *webhook.Webhook) { w.Format = "unknown" })
		r.put("w", 20)
		r.change("w", func(w *webhook.Webhook) { w.Format = webhook.FormatClassic })
		r.put("w", 1)
		time.Sleep(time.Second)
		if r.count("w", webhook.StateDelivered) != 1 || r.called("Claim") > 50 {
			t.Errorf("%d delivered, %d claims", r.count("w", webhook.StateDelivered), r.called("Claim"))
		}
	})
}

// Wake and Run may meet in any order, and Wake blocks nobody, not even without a
// Run.
func TestWakeNeverBlocks(t *testing.T) {
	t.Parallel()
	w := NewWorker(WorkerConfig{Queue: newFakeQueue(), PerWebhook: 8, Client: NewClient(ClientConfig{})})
	for range 100 {
		w.Wake([]string{"a", "b"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
	w.Wake([]string{"a"})
}
