package webhook

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

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// inBubble runs a test whose time passes as soon as everybody waits for it.
func inBubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

func TestWorkerSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t)
		for i := range 5 {
			w := r.add(fmt.Sprint("w", i))
			r.says(w.ID, func(req *http.Request) (int, error) {
				if err := Verify(w.Secrets[0].Secret.Reveal(), req.Header, bodyOf(t, req), time.Now()); err != nil {
					t.Error(err)
				}
				return 204, nil
			})
			r.put(w.ID, 30)
		}
		synctest.Wait()
		if n := r.count("", StateDelivered); n != 150 || r.requests("") != 150 {
			t.Errorf("%d of 150 delivered with %d requests", n, r.requests(""))
		}
		if r.called("RecordHealth") != 0 {
			t.Errorf("health was recorded %d times", r.called("RecordHealth"))
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
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, func(c *WorkerConfig) { c.PerWebhook, c.InFlight = 8, 512 })
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
			if n := r.count("", StatePending) - r.count("hangs", StatePending) - r.count("slow", StatePending); n != 0 {
				t.Fatalf("%d of those that do well wait", n)
			}
		}
		time.Sleep(10 * time.Second)
		if n := r.count("slow", StateDelivered); n != 80 || r.atMost("slow") != 8 {
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
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, func(c *WorkerConfig) { c.InFlight = 64 })
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
			if n := r.count("well", StatePending); n != 0 {
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
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, func(c *WorkerConfig) { c.Backoff.Delays = []time.Duration{time.Minute, time.Minute, time.Minute} })
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
		if n := r.count("w", StateDelivered); n != 200 {
			t.Errorf("%d of 200 delivered", n)
		}
	})
}

// While a webhook is disabled its deliveries wait without an attempt; enabled it
// gets them. One that is deleted gets nothing.
func TestWorkerDisabledWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.add("gone")
		r.change("w", func(w *Webhook) { w.Enabled = false })
		r.put("w", 20)
		r.fakeQueue.mu.Lock()
		delete(r.webhooks, "gone")
		r.fakeQueue.mu.Unlock()
		r.wake([]string{"gone", "never"})
		time.Sleep(20 * 24 * time.Hour)
		if n := r.requests(""); n != 0 {
			t.Errorf("%d requests", n)
		}
		r.change("w", func(w *Webhook) { w.Enabled = true })
		synctest.Wait()
		if n := r.count("w", StateDelivered); n != 20 {
			t.Errorf("%d of 20 delivered", n)
		}
		if d := r.row("delivery_000000"); d.Attempts != 1 || d.Failures != 0 {
			t.Errorf("got %+v", d.Delivery)
		}
	})
}

// A delivery goes through its schedule, each attempt at its time.
func TestWorkerKeepsTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.says("w", 500)
		began := time.Now()
		r.put("w", 1)
		time.Sleep(4 * 24 * time.Hour)
		d := r.row("delivery_000000")
		if d.State != StateFailed || len(d.attempts) != 12 {
			t.Fatalf("%s after %d attempts", d.State, len(d.attempts))
		}
		at := began
		for i, a := range d.attempts {
			if late := a.StartedAt.Sub(at); late < 0 || late > time.Second {
				t.Errorf("attempt %d was %v late", i+1, late)
			}
			if i < len(DefaultDelays()) {
				at = a.StartedAt.Add(DefaultDelays()[i])
			}
		}
		if !slices.Equal(r.told(), []apikey.EventType{WebhookFailing}) {
			t.Errorf("events %v", r.told())
		}
	})
}

func TestWorkerObeysRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.says("w", 429)
		r.retryAfter = "3600"
		r.put("w", 1)
		time.Sleep(time.Minute)
		r.says("w", 200)
		if time.Sleep(58 * time.Minute); r.requests("w") != 1 {
			t.Errorf("%d requests within the hour", r.requests("w"))
		}
		if time.Sleep(2 * time.Minute); r.count("w", StateDelivered) != 1 {
			t.Error("not delivered after the hour")
		}
	})
}

func TestWorkerHealth(t *testing.T) {
	inBubble(t, "gone", func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.says("w", 410)
		r.put("w", 30)
		synctest.Wait()
		if w := r.webhook("w"); w.Enabled || w.DisabledReason != DisabledGone || !slices.Equal(r.told(), []apikey.EventType{WebhookDisabled}) {
			t.Errorf("got %+v, %v", w, r.told())
		}
		seen := r.requests("w")
		if time.Sleep(24 * time.Hour); seen > 8 || r.requests("w") != seen {
			t.Errorf("%d requests, then %d", seen, r.requests("w"))
		}
		r.says("w", 200)
		r.change("w", func(w *Webhook) { w.Enabled, w.DisabledReason, w.Health = true, "", Health{} })
		if time.Sleep(time.Minute); r.count("w", StateDelivered) != 30 {
			t.Errorf("%d of 30 delivered after it was enabled", r.count("w", StateDelivered))
		}
	})
	inBubble(t, "failing once a spell", func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		for range 2 {
			r.says("w", 500)
			r.put("w", 5)
			time.Sleep(24 * time.Hour)
			r.says("w", 200)
			r.put("w", 1)
			time.Sleep(24 * time.Hour)
		}
		if want := []apikey.EventType{WebhookFailing, WebhookFailing}; !slices.Equal(r.told(), want) {
			t.Errorf("events %v", r.told())
		}
		if h := r.webhook("w").Health; h != (Health{}) || !r.webhook("w").Enabled {
			t.Errorf("health %+v", h)
		}
	})
	inBubble(t, "five days", func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.says("w", hang)
		began := time.Now()
		for range 6 {
			r.put("w", 1)
			time.Sleep(24 * time.Hour)
		}
		w := r.webhook("w")
		if want := []apikey.EventType{WebhookFailing, WebhookDisabled}; !slices.Equal(r.told(), want) || w.Enabled || w.DisabledReason != DisabledFailing {
			t.Errorf("events %v, %+v", r.told(), w)
		}
		if after := w.UpdatedAt.Sub(began); after < 5*24*time.Hour || after > 6*24*time.Hour {
			t.Errorf("disabled after %v", after)
		}
	})
	inBubble(t, "a success in between", func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		n := 0
		r.says("w", func(*http.Request) (int, error) {
			if n++; n%20 == 0 {
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

// A stop waits for what is under way as long as the grace, and gives back the
// rest as it was.
func TestWorkerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, func(c *WorkerConfig) { c.Grace = 10 * time.Second })
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
		if n, sent := r.count("slow", StateDelivered), r.requests("slow"); n != sent || n == 0 {
			t.Errorf("%d of %d under way were delivered", n, sent)
		}
		for id, row := range r.rows {
			if row.WebhookID == "hangs" && (row.Attempts != 0 || row.lease != "" || !row.due.Equal(row.NextAttemptAt)) {
				t.Errorf("%s was not given back: %+v", id, row)
			}
		}
		if r.webhook("hangs").Health != (Health{}) || len(r.log.String()) > 0 {
			t.Errorf("health %+v, log %s", r.webhook("hangs").Health, r.log)
		}
	})
	inBubble(t, "without work", func(t *testing.T) {
		r := startRig(t)
		began := time.Now()
		if r.stop(); time.Since(began) != 0 {
			t.Errorf("stopped after %v", time.Since(began))
		}
	})
	inBubble(t, "without the database", func(t *testing.T) {
		r := startRig(t, func(c *WorkerConfig) { c.Grace = 10 * time.Second })
		r.add("hangs")
		r.says("hangs", hang)
		r.put("hangs", 2)
		r.add("well")
		r.setAway(errAway, "Settle", "Release", "RecordHealth")
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
	inBubble(t, "away for a while", func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.setAway(errAway, "Due", "Claim", "Settle", "Release", "RecordHealth")
		r.put("w", 20)
		time.Sleep(5 * time.Minute)
		if r.requests("w") != 0 || r.called("Claim") > 700 {
			t.Errorf("%d requests, %d claims", r.requests("w"), r.called("Claim"))
		}
		r.setAway(nil, "Due", "Claim", "Settle", "Release", "RecordHealth")
		if time.Sleep(2 * time.Second); r.count("w", StateDelivered) != 20 {
			t.Errorf("%d of 20 delivered", r.count("w", StateDelivered))
		}
	})
	inBubble(t, "away while sending", func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.setAway(errAway, "Settle")
		r.put("w", 20)
		time.Sleep(10 * time.Second)
		seen := r.requests("w")
		r.setAway(nil, "Settle")
		time.Sleep(2 * time.Second)
		if r.count("w", StateDelivered) != 20 || r.requests("w") != 20 {
			t.Errorf("%d of 20 delivered with %d requests, %d of them before", r.count("w", StateDelivered), r.requests("w"), seen)
		}
		r.setAway(errAway, "Settle")
		r.put("w", 2)
		time.Sleep(20 * time.Second) // longer than it is waited for
		r.setAway(nil, "Settle")
		if time.Sleep(75 * time.Second); r.count("w", StateDelivered) != 22 {
			t.Errorf("%d of 22 delivered", r.count("w", StateDelivered))
		}
		r.stop()
		for _, row := range r.rows {
			if row.Failures != 0 {
				t.Errorf("counted: %+v", row.Delivery)
			}
		}
	})
	inBubble(t, "no health", func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.says("w", 500)
		r.setAway(errAway, "RecordHealth")
		r.put("w", 1)
		time.Sleep(time.Minute)
		r.setAway(nil, "RecordHealth")
		r.says("w", 200)
		if time.Sleep(time.Hour); r.count("w", StateDelivered) != 1 {
			t.Error("not delivered")
		}
	})
}

// What another server held when it died is tried again within 75 seconds, and
// what another made is found without a wake-up.
func TestWorkerFindsWhatOthersLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.wake = func([]string) {}
		time.Sleep(3 * time.Second)
		r.put("w", 3)
		r.fakeQueue.mu.Lock()
		r.rows["delivery_000000"].lease, r.rows["delivery_000000"].due = "dead", time.Now().Add(leaseLength)
		r.fakeQueue.mu.Unlock()
		if time.Sleep(rescan); r.count("w", StateDelivered) != 2 {
			t.Errorf("%d of 2 that wait delivered", r.count("w", StateDelivered))
		}
		if time.Sleep(75*time.Second - rescan); r.count("w", StateDelivered) != 3 {
			t.Errorf("%d of 3 delivered", r.count("w", StateDelivered))
		}
	})
}

// Without ever looking through the queue the worker loses no wake-up, no retry
// and nothing that waits behind a full window, in whatever order things come.
func TestWorkerLosesNothing(t *testing.T) {
	for seed := range uint64(20) {
		inBubble(t, fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			r := startRig(t, func(c *WorkerConfig) {
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
				r.worker.lanes.mu.Lock()
				r.worker.lanes.checkLocked(t)
				r.worker.lanes.mu.Unlock()
			}
			time.Sleep(30 * time.Minute)
			if n := r.count("", StateDelivered); n != total {
				t.Errorf("%d of %d delivered", n, total)
			}
		})
	}
}

// What breaks on our side ends nothing but its own attempt and is no fault of the
// endpoint.
func TestWorkerOwnFaults(t *testing.T) {
	inBubble(t, "panic", func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.says("w", func(*http.Request) (int, error) { panic("in an attempt") })
		r.put("w", 2)
		r.add("other")
		r.put("other", 2)
		synctest.Wait()
		if d := r.row("delivery_000000"); d.State != StatePending || d.Last.Failure.Class != ClassInternal || d.NextAttemptAt.Before(time.Now()) {
			t.Errorf("got %+v", d.Delivery)
		}
		if r.count("other", StateDelivered) != 2 || !strings.Contains(r.log.String(), "in an attempt") || r.webhook("w").Health != (Health{}) {
			t.Errorf("health %+v, log %s", r.webhook("w").Health, r.log)
		}
		r.says("w", 200)
		if time.Sleep(time.Minute); r.count("w", StateDelivered) != 2 {
			t.Error("not delivered")
		}
	})
	inBubble(t, "event gone", func(t *testing.T) {
		r := startRig(t)
		r.add("w")
		r.wake = func([]string) {}
		r.put("w", 1)
		r.fakeQueue.mu.Lock()
		r.rows["delivery_000000"].EventID = ""
		r.fakeQueue.mu.Unlock()
		r.worker.Wake([]string{"w"})
		time.Sleep(time.Minute)
		if d := r.row("delivery_000000"); d.State != StateFailed || d.Last.Failure.Class != ClassEventGone || len(d.attempts) != 1 {
			t.Errorf("got %+v", d.Delivery)
		}
		if r.requests("w") != 0 || r.webhook("w").Health != (Health{}) {
			t.Errorf("%d requests, health %+v", r.requests("w"), r.webhook("w").Health)
		}
	})
	inBubble(t, "no body", func(t *testing.T) {
		r := startRig(t)
		r.add("w").Format = "unknown"
		r.change("w", func(w *Webhook) { w.Format = "unknown" })
		r.put("w", 20)
		r.change("w", func(w *Webhook) { w.Format = FormatClassic })
		r.put("w", 1)
		time.Sleep(time.Second)
		if r.count("w", StateDelivered) != 1 || r.called("Claim") > 50 {
			t.Errorf("%d delivered, %d claims", r.count("w", StateDelivered), r.called("Claim"))
		}
	})
}

// Wake and Run may meet in any order, and Wake blocks nobody, not even without a
// Run.
func TestWakeNeverBlocks(t *testing.T) {
	w := NewWorker(WorkerConfig{Queue: newFakeQueue(), Client: NewClient(ClientConfig{})})
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
