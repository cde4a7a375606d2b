package deliver

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// leased returns how many deliveries are under a lease.
func (q *fakeQueue) leased() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.rows {
		if r.lease != "" {
			n++
		}
	}
	return n
}

// startQuick runs a worker with ten webhooks that do well, answer within a time, and have
// each so many deliveries waiting; their organization has room for 16 attempts.
func startQuick(t *testing.T, takes time.Duration, each int) *harness {
	r := startHarness(t, func(c *WorkerConfig) { c.PerOrganization = 16 })
	for i := range 10 {
		id := fmt.Sprint("w", i)
		r.add(id)
		r.put(id, 20)
	}
	time.Sleep(time.Minute)
	for i := range 10 {
		id := fmt.Sprint("w", i)
		r.says(id, slow(takes))
		r.put(id, each)
	}
	time.Sleep(2 * takes)
	return r
}

// While a claim takes its time, attempts go on with what was claimed before, within the
// same bounds.
func TestWorkerPrefetches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startQuick(t, 10*time.Millisecond, 200)
		before := r.requests("")
		r.fakeQueue.mu.Lock()
		r.claimTakes = 300 * time.Millisecond
		r.fakeQueue.mu.Unlock()
		claims := r.called("Claim")
		for r.called("Claim") == claims { // The slow one is counted when it is over.
			time.Sleep(time.Millisecond)
		}
		if n := r.requests("") - before; n < 40 {
			t.Errorf("%d requests began before the claim was over", n)
		}
		time.Sleep(2 * time.Second)
		if n := r.count("", webhook.StateDelivered); n != 2200 || r.requests("") != 2200 {
			t.Errorf("%d of 2200 delivered with %d requests", n, r.requests(""))
		}
		if n := r.atMost(""); n != 16 {
			t.Errorf("%d at a time of 16", n)
		}
	})
}

// What is prefetched for an endpoint that does not do well any more, or when the worker
// stops, is given back and counts as no attempt.
func TestWorkerGivesPrefetchedBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(r *harness)
		leases int // that remain
	}{
		"it hangs": {func(r *harness) {
			for i := range 10 {
				r.says(fmt.Sprint("w", i), hang)
			}
			time.Sleep(2 * time.Second)
		}, 16},
		"it fails": {func(r *harness) {
			for i := range 10 {
				r.says(fmt.Sprint("w", i), 500)
			}
			time.Sleep(2 * time.Second)
		}, 0},
		"the worker stops": {func(r *harness) { r.stop() }, 0},
	} {
		inBubble(t, name, func(t *testing.T) {
			r := startQuick(t, 50*time.Millisecond, 200)
			if n := r.leased(); n <= 16 || n > 16+maxPrefetchedShare {
				t.Fatalf("%d claimed while 16 are under way", n)
			}
			c.change(r)
			if n := r.leased(); n != c.leases {
				t.Errorf("%d claimed, want %d", n, c.leases)
			}
			attempts := 0
			r.fakeQueue.mu.Lock()
			for _, row := range r.rows {
				attempts += row.Attempts
			}
			r.fakeQueue.mu.Unlock()
			if n := r.requests(""); attempts != n-c.leases {
				t.Errorf("%d attempts counted of %d requests", attempts, n)
			}
		})
	}
}

// What is prefetched of some does not keep the room of their organization from one that
// is new.
func TestWorkerPrefetchLeavesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startQuick(t, 50*time.Millisecond, 2000)
		r.add("new")
		r.put("new", 1)
		time.Sleep(time.Second)
		if n := r.count("new", webhook.StateDelivered); n != 1 {
			t.Error("the new one waits for those that were claimed before")
		}
		if r.count("w0", webhook.StatePending) == 0 {
			t.Error("nothing else was waiting")
		}
	})
}

// Nothing is prefetched for an endpoint that is slow: it would be given back.
func TestWorkerPrefetchesNothingForSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.says("w", func(req *http.Request) (int, error) { return slow(3 * quickAttempt)(req) })
		r.put("w", 100)
		for range 100 {
			time.Sleep(quickAttempt)
			synctest.Wait()
			if n := r.leased(); n > 8 {
				t.Fatalf("%d claimed, and 8 may be under way", n)
			}
		}
		if n := r.called("Release"); n != 0 || r.count("w", webhook.StateDelivered) != 100 {
			t.Errorf("%d times given back, %d delivered", n, r.count("w", webhook.StateDelivered))
		}
	})
}
