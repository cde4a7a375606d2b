package deliver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// What another server has made is found at the next look through the queue, or as soon
// as the worker is told that there is something, and being told often costs little.
func TestWorkerLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t, func(c *WorkerConfig) { c.Rescan = time.Second })
		r.add("w")
		r.wake = func([]string) {}
		time.Sleep(2*time.Second + 500*time.Millisecond)
		r.put("w", 2)
		if time.Sleep(501 * time.Millisecond); r.count("w", webhook.StateDelivered) != 2 {
			t.Errorf("%d of 2 delivered at the next look", r.count("w", webhook.StateDelivered))
		}
		time.Sleep(lookInterval)
		r.put("w", 1)
		r.worker.Look()
		if time.Sleep(time.Millisecond); r.count("w", webhook.StateDelivered) != 3 {
			t.Errorf("%d of 3 delivered when told", r.count("w", webhook.StateDelivered))
		}
		before := r.called("Due")
		for range 1000 {
			r.worker.Look()
			time.Sleep(time.Millisecond)
		}
		if n := r.called("Due") - before; n < 3 || n > 6 {
			t.Errorf("%d looks in a second", n)
		}
	})
}

// An attempt that would begin when its lease is half over, as after the process stood
// still, is not made: another server could have the delivery before it ends.
func TestWorkerBeginsNothingLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := startHarness(t)
		r.add("w")
		r.fakeQueue.mu.Lock()
		r.claimTakes = leaseLength / 2
		r.fakeQueue.mu.Unlock()
		r.put("w", 3)
		time.Sleep(leaseLength/2 - time.Second)
		if n := r.requests("w"); n != 0 {
			t.Errorf("%d requests", n)
		}
		time.Sleep(2 * time.Second)
		for _, id := range []string{"delivery_000000", "delivery_000001", "delivery_000002"} {
			if row := r.row(id); row.State != webhook.StateDelivered || row.Attempts != 1 {
				t.Errorf("%s is %s after %d attempts", id, row.State, row.Attempts)
			}
		}
		if n := r.called("Release"); n == 0 || r.requests("w") != 3 {
			t.Errorf("%d given back, %d requests", n, r.requests("w"))
		}
	})
}
