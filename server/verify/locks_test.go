package verify

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// delay lets the others run for a while, at random.
func delay() {
	for range rand.IntN(50) {
		runtime.Gosched()
	}
}

// TestLockOrder does everything at once, with delays wherever the clock or storage
// is asked, which is where locks are held. A wrong order of locks ends in a deadlock
// here, and what a lock fails to guard is found by the race detector.
func TestLockOrder(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	quotas := &fakeQuotas{byID: make(map[string]apikey.Quota), onAsk: delay, onReturn: delay, onGrant: func(int64) { delay() }}
	keys.quotas = quotas
	keys.onRead = func(context.Context) error { delay(); return nil }
	keys.onAdd = func(_ context.Context, counts []apikey.UsageCount) (int, error) {
		delay()
		return keys.store(counts[:len(counts)/2]), errBroken
	}
	v := newHarness(t, keys, Config{Now: func() time.Time { delay(); return noon }, CacheSize: 3})

	var all []apikey.Key
	var secrets []string
	quota := apikey.Quota{Limit: 1_000_000, Remaining: 1_000_000, Refill: apikey.RefillNone, Epoch: 1}
	for i := range 6 {
		k := apikey.Key{OrganizationID: "org_a"}
		if i%2 == 0 {
			k.Quota, k.RateLimit = quota, apikey.RateLimit{Requests: 1000, WindowSeconds: 60}
		}
		k, secret := keys.create(t, k, i%2)
		if k.Quota.Limit > 0 {
			quotas.byID[k.ID] = quota
		}
		all, secrets = append(all, k), append(secrets, secret)
	}
	var group sync.WaitGroup
	loop := func(f func(i int)) {
		for range 2 {
			group.Go(func() {
				for range 200 {
					f(rand.IntN(len(all)))
				}
			})
		}
	}
	fail := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	loop(func(i int) { _, err := v.Verify(t.Context(), Request{Secret: secrets[i], Cost: 1 + i}); fail(err) })
	loop(func(i int) { _, err := v.Authenticate(t.Context(), Credential{Secret: secrets[i]}); fail(err) })
	loop(func(i int) { _, err := v.Recheck(t.Context(), Credential{Secret: secrets[i]}); fail(err) })
	loop(func(i int) {
		_, err := v.VerifyBatch(t.Context(), []Request{{Secret: secrets[i], Cost: 300}, {Secret: secrets[0], Cost: 1}, {Secret: "junk", Organization: "org_a", Cost: 1}})
		fail(err)
	})
	loop(func(i int) { // gives up at any point
		ctx, cancel := context.WithCancel(t.Context())
		go func() { delay(); cancel() }()
		_, _ = v.Verify(ctx, Request{Secret: secrets[i], Cost: 5000})
	})
	loop(func(i int) { keys.change(v, all[i]) })
	loop(func(i int) { v.Drop([]string{all[i].ID, "nobody"}, 0) })
	loop(func(int) { _ = v.Flush(t.Context()) })
	loop(func(int) { v.Sweep(t.Context()); v.Len() })
	loop(func(int) { v.RefundAll(t.Context()) })
	loop(func(i int) { k := all[i]; v.FillRemaining(&k) })
	loop(func(i int) {
		resume, err := v.PauseQuota(t.Context(), all[i].ID)
		fail(err)
		delay()
		resume()
	})
	group.Wait()
}
