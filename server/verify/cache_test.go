package verify

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// A gate holds up reads after they have read their row, until it is opened.
type gate struct{ reached, open chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}, 1000), make(chan struct{})} }

func (g *gate) pass(ctx context.Context) error {
	g.reached <- struct{}{}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hold makes the reads from now on wait at a new gate.
func (f *fakeKeys) hold() *gate {
	g := newGate()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onRead = g.pass
	return g
}

func (f *fakeKeys) unhold() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onRead = nil
}

// A read that is late puts nothing back: it read the key before the change, and
// returns after the change was answered.
func TestLateReadPutsNothingBack(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	v := newVerifier(t, keys, nil)
	k, secret := keys.create(t, apikey.Key{}, 0)
	late := keys.hold()
	first := make(chan apikey.Code)
	go func() { first <- ask(t, v, Request{Secret: secret}).Code }()
	<-late.reached

	k.Enabled = false
	keys.unhold()
	keys.change(v, k)
	// A call that starts now does not join the read from before.
	wantCode(t, v, Request{Secret: secret}, apikey.CodeDisabled)
	close(late.open)
	// The one that started before may still see the key as it was.
	if got := <-first; got != apikey.CodeValid {
		t.Errorf("the first call: %s", got)
	}
	wantCode(t, v, Request{Secret: secret}, apikey.CodeDisabled)
	if n := keys.readCount(); n != 2 {
		t.Errorf("%d reads", n)
	}
}

// The same where nothing has been read again in between.
func TestLateReadIsNotKept(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	v := newVerifier(t, keys, nil)
	k, secret := keys.create(t, apikey.Key{}, 0)
	late := keys.hold()
	first := make(chan apikey.Code)
	go func() { first <- ask(t, v, Request{Secret: secret}).Code }()
	<-late.reached
	k.Enabled = false
	keys.unhold()
	keys.change(v, k)
	close(late.open)
	<-first
	wantCode(t, v, Request{Secret: secret}, apikey.CodeDisabled)
	// Its counters are held by nobody but the entry that was kept.
	v.Drop([]string{k.ID}, keys.put(k))
	if v.Sweep(t.Context()); v.Len() != 0 {
		t.Errorf("%d keys have counters", v.Len())
	}
}

// Drops against loads, at random: what starts after a change was answered
// sees it.
func TestDropAgainstLoads(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	v := newVerifier(t, keys, nil)
	k, secret := keys.create(t, apikey.Key{}, 0)
	var answered atomic.Int64 // the newest version that was answered
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := answered.Load()
				if got := ask(t, v, Request{Secret: secret}); got.Key == nil || got.Key.Version < least {
					t.Errorf("version %v after %d was answered", got.Key, least)
					return
				}
			}
		})
	}
	for version := int64(1); version <= 500; version++ {
		k.Version = version
		keys.change(v, k)
		answered.Store(version)
	}
	close(stop)
	group.Wait()
}

func TestManyWaitersShareOneLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := newFakeKeys()
		v := newVerifier(t, keys, nil)
		_, secret := keys.create(t, apikey.Key{}, 0)
		held := keys.hold()
		for range 50 {
			go wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
		}
		synctest.Wait()
		close(held.open)
		synctest.Wait()
		if n := keys.readCount(); n != 1 {
			t.Errorf("%d reads", n)
		}
	})
}

// One of two waiters gives up: it is let go at once, and the other is served by
// the same read, although the first had begun it.
func TestWaiterGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := newFakeKeys()
		v := newVerifier(t, keys, nil)
		_, secret := keys.create(t, apikey.Key{}, 0)
		held := keys.hold()
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() {
			_, err := v.Verify(ctx, Request{Secret: secret})
			gaveUp <- err
		}()
		synctest.Wait()
		go wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("Verify = %v", err)
		}
		close(held.open)
		synctest.Wait()
		if n := keys.readCount(); n != 1 {
			t.Errorf("%d reads", n)
		}
	})
}

// A flood of secrets that nobody has: few reads run at a time, hot keys do not
// notice, those who give up leave nothing waiting, and nothing stays behind.
func TestFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := newFakeKeys()
		v := newVerifier(t, keys, nil)
		_, hot := keys.create(t, apikey.Key{}, 0)
		wantCode(t, v, Request{Secret: hot}, apikey.CodeValid)
		held := keys.hold()
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for range 500 {
			group.Go(func() {
				if _, err := v.Verify(ctx, Request{Secret: newSecret(t)}); !errors.Is(err, context.Canceled) {
					t.Errorf("Verify = %v", err)
				}
			})
		}
		synctest.Wait()
		wantCode(t, v, Request{Secret: hot}, apikey.CodeValid)
		if keys.most > 2 {
			t.Errorf("%d reads at a time", keys.most)
		}
		cancel()
		group.Wait()
		synctest.Wait()
		if len(v.cache.lookups) != 0 || keys.running != 0 {
			t.Errorf("%d loads are left, %d of them running", len(v.cache.lookups), keys.running)
		}
		// A few begin while the callers leave one by one.
		if n := keys.readCount(); n > 100 {
			t.Errorf("%d reads, most of them for callers that had gone", n)
		}
		close(held.open)
		keys.unhold()

		before := v.Len()
		for range 100 {
			wantCode(t, v, Request{Secret: newSecret(t)}, apikey.CodeNotFound)
		}
		if v.Len() != before || v.cache.entries.EstimatedSize() != 1 || len(v.cache.lookups) != 0 {
			t.Errorf("unknown keys left %d states, %d entries, %d loads",
				v.Len(), v.cache.entries.EstimatedSize(), len(v.cache.lookups))
		}
	})
}

// A key that was looked for in vain is found as soon as it is there.
func TestNoNegativeEntries(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	v := newVerifier(t, keys, nil)
	secret := newSecret(t)
	wantCode(t, v, Request{Secret: secret}, apikey.CodeNotFound)
	keys.put(apikey.Key{ID: "api_key_1", Enabled: true, Secret: apikey.StoredSecret{Hash: keys.peppers.Hash(0, secret)}})
	wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
}

// The cache is bounded, and the states of what it dropped go with it.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newHarness(t, keys, Config{Now: clock.Now, CacheSize: 10})
	for range 200 {
		_, secret := keys.create(t, apikey.Key{}, 0)
		wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
	}
	v.cache.entries.CleanUp()
	if err := v.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Sweep(t.Context())
	if entries, states := v.cache.entries.EstimatedSize(), v.Len(); entries > 10 || states != entries {
		t.Errorf("%d entries, %d states", entries, states)
	}
}
