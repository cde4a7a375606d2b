package verify

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// holdUp makes the next transaction of asks wait until let is called, after it has
// told of itself.
func (r *quotaHarness) holdUp() (began <-chan struct{}, let func()) {
	in, out := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.quotas.mu.Lock()
	defer r.quotas.mu.Unlock()
	r.quotas.onAsk = func() { once.Do(func() { close(in); <-out }) }
	return in, sync.OnceFunc(func() { close(out) })
}

// inBackground verifies a batch and returns what comes of it.
func (r *quotaHarness) inBackground(ctx context.Context, requests ...Request) (results func() ([]apikey.Verification, error)) {
	var all []apikey.Verification
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		all, err = r.VerifyBatch(ctx, requests)
	}()
	return func() ([]apikey.Verification, error) {
		<-done
		return all, err
	}
}

// wantStored fails where a crash would now lose more than a block of what is left.
func (r *quotaHarness) wantStored(t *testing.T, id string, left int64) {
	t.Helper()
	if stored := r.quotas.remaining(id); stored > left || stored < left-apikey.Block(0, left) {
		t.Errorf("%d are stored of %d that are left", stored, left)
	}
}

// A call that costs more than is left keeps no more than a block of it.
func TestRefusedCallKeepsNoMoreThanABlock(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 1_000_000, apikey.RefillNone, apikey.RateLimit{})
	wantCode(t, r.harness, Request{Secret: secret}, apikey.CodeValid)
	k.Quota.Remaining = 900_000
	r.quotas.byID[k.ID] = k.Quota
	wantCode(t, r.harness, Request{Secret: secret, Cost: 1_000_000}, apikey.CodeQuotaExceeded)
	r.wantStored(t, k.ID, 900_000)
	if got := ask(t, r.harness, Request{Secret: secret, Cost: 900_000}); got.Code != apikey.CodeValid || got.Quota.Remaining != 0 {
		t.Errorf("%s, %+v", got.Code, got.Quota)
	}
}

// Units on their way back are missed by nobody: a call that comes meanwhile waits
// until they are stored, rather than being told that there are none.
func TestUnitsOnTheirWayBack(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 100, apikey.RefillNone, apikey.RateLimit{})
	wantCode(t, r.harness, Request{Secret: secret}, apikey.CodeValid)
	k.Quota.Remaining = 40
	r.quotas.byID[k.ID] = k.Quota
	var meanwhile sync.WaitGroup
	r.quotas.onReturn = sync.OnceFunc(func() {
		asked := r.quotas.count()
		meanwhile.Go(func() { wantCode(t, r.harness, Request{Secret: secret, Cost: 10}, apikey.CodeValid) })
		for range 10_000 { // for long enough that it would have asked
			runtime.Gosched()
		}
		if r.quotas.count() > asked {
			t.Error("storage was asked what is left before it had all of it")
		}
	})
	// It takes all that is left, which is not enough, and gives it back.
	wantCode(t, r.harness, Request{Secret: secret, Cost: 61}, apikey.CodeQuotaExceeded)
	meanwhile.Wait()
	if got := ask(t, r.harness, Request{Secret: secret, Cost: 30}); got.Code != apikey.CodeValid || got.Quota.Remaining != 0 {
		t.Errorf("%s, %+v", got.Code, got.Quota)
	}
	r.wantStored(t, k.ID, 0)
}

// Calls that give up leave nothing reserved, whether their units were on the way
// already or not.
func TestGivingUpReservesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newQuotaHarness(t)
		inFlight, first := r.create(t, 1_000_000, apikey.RefillNone, apikey.RateLimit{})
		queued, second := r.create(t, 1_000_000, apikey.RefillNone, apikey.RateLimit{})
		began, let := r.holdUp()
		ctx, cancel := context.WithCancel(t.Context())
		results := r.inBackground(ctx, times(1000, first, 500)...)
		<-began
		for range 10 {
			go func() {
				if _, err := r.Verify(ctx, Request{Secret: second, Cost: 50_000}); !errors.Is(err, context.Canceled) {
					t.Errorf("err = %v", err)
				}
			}()
		}
		go wantCode(t, r.harness, Request{Secret: second, Cost: 7}, apikey.CodeValid)
		synctest.Wait() // all of them have asked
		cancel()
		if _, err := results(); !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v", err)
		}
		synctest.Wait()
		let()
		synctest.Wait()
		r.wantStored(t, queued.ID, 1_000_000-7)
		r.wantStored(t, inFlight.ID, 1_000_000)
	})
}

// Calls that give up in the moment in which their units come have either spent them
// or left them.
func TestGivingUpWhileUnitsCome(t *testing.T) {
	t.Parallel()
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			r := newQuotaHarness(t)
			k, secret := r.create(t, 1_000_000, apikey.RefillNone, apikey.RateLimit{})
			for cost := 1000; cost < 6000; cost += 500 {
				ctx, cancel := context.WithCancel(t.Context())
				r.quotas.onGrant = func(int64) { cancel() }
				if _, err := r.Verify(ctx, Request{Secret: secret, Cost: cost}); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("err = %v", err)
				}
				synctest.Wait()
				ctx, cancel = context.WithCancel(t.Context())
				if _, err := r.VerifyBatch(ctx, times(10, secret, cost)); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("err = %v", err)
				}
				cancel()
				synctest.Wait()
			}
			r.wantStored(t, k.ID, ask(t, r.harness, Request{Secret: secret}).Quota.Remaining)
		})
	}
}
