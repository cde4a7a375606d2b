package verify

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// N callers at once on a budget of M: min(N, M) pass, whatever they cost.
func TestConcurrentBudget(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ callers, budget, cost, want int }{
		{64, 10, 1, 10}, {10, 64, 1, 10}, {64, 64, 1, 64}, {64, 100, 7, 14}, {64, 3, 0, 64},
	} {
		keys, clock := newFakeKeys(), newClock()
		v := newVerifier(t, keys, clock.Now)
		_, secret := keys.create(t, apikey.Key{RateLimit: apikey.RateLimit{Requests: c.budget, WindowSeconds: 3600}}, 0)
		var passed, refused atomic.Int64
		var group sync.WaitGroup
		for range c.callers {
			group.Go(func() {
				switch r := ask(t, v, Request{Secret: secret, Cost: c.cost}); r.Code {
				case apikey.CodeValid:
					passed.Add(1)
				case apikey.CodeRateLimited:
					refused.Add(1)
				default:
					t.Errorf("code %s", r.Code)
				}
			})
		}
		group.Wait()
		if int(passed.Load()) != c.want || int(refused.Load()) != c.callers-c.want {
			t.Errorf("%+v: %d passed, %d refused", c, passed.Load(), refused.Load())
		}
	}
}
