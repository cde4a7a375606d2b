package verify

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/feed"
)

// sharedLog is the log of keys that other servers change too, and the clocks of this
// machine. Time passes when a test says so.
type sharedLog struct {
	keys *fakeKeys

	mu      sync.Mutex
	elapsed time.Duration
	onNow   func() // called once at the next look at the clock
}

func (l *sharedLog) time(context.Context) (time.Time, error) { return noon.Add(l.boot()), nil }

func (l *sharedLog) boot() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.elapsed
}

func (l *sharedLog) now() (time.Time, time.Duration) {
	l.mu.Lock()
	hook := l.onNow
	l.onNow = nil
	l.mu.Unlock()
	if hook != nil {
		hook()
	}
	elapsed := l.boot()
	return noon.Add(elapsed), elapsed
}

func (l *sharedLog) pass(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.elapsed += d
}

// follow has the log read: the keys with these ids have changed.
func (l *sharedLog) follow(t testing.TB, v *harness, ids ...string) {
	t.Helper()
	l.keys.mu.Lock()
	position := l.keys.position
	l.keys.mu.Unlock()
	v.Drop(ids, position)
	if err := v.clock.Read(context.Background(), l.time); err != nil {
		t.Fatal(err)
	}
}

// newShared returns a verifier of keys that other servers change too.
func newShared(t testing.TB) (*harness, *fakeKeys, *sharedLog) {
	t.Helper()
	keys := newFakeKeys()
	log := &sharedLog{keys: keys, elapsed: time.Hour}
	clock := feed.NewClock(feed.ClockConfig{Machine: feed.Machine{Now: log.now, Boot: log.boot}})
	v := newHarness(t, keys, Config{Clock: clock})
	log.follow(t, v)
	return v, keys, log
}

// disable is what another server does to a key: this one is not told.
func disable(keys *fakeKeys, k apikey.Key) {
	k.Enabled = false
	keys.put(k)
}

// TestOldReadingServesNothing asks in every way about a key that another server has
// disabled: memory answers while the log has been read lately, and storage after that,
// whatever is in memory.
func TestOldReadingServesNothing(t *testing.T) {
	t.Parallel()
	ways := map[string]func(v *harness, secret string) (apikey.Code, error){
		"verify": func(v *harness, secret string) (apikey.Code, error) {
			r, err := v.Verify(context.Background(), Request{Secret: secret, Cost: 1})
			return r.Code, err
		},
		"batch": func(v *harness, secret string) (apikey.Code, error) {
			r, err := v.VerifyBatch(context.Background(), []Request{{Secret: newText}, {Secret: secret, Cost: 1}})
			if err != nil {
				return "", err
			}
			return r[1].Code, nil
		},
		"authenticate": func(v *harness, secret string) (apikey.Code, error) {
			r, err := v.Authenticate(context.Background(), Credential{Secret: secret})
			return r.Code, err
		},
		"recheck": func(v *harness, secret string) (apikey.Code, error) {
			r, err := v.Recheck(context.Background(), Credential{Secret: secret})
			return r.Code, err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, keys, log := newShared(t)
			k, secret := keys.create(t, apikey.Key{}, 0)
			want := func(step string, code apikey.Code, reads int) {
				t.Helper()
				got, err := way(v, secret)
				if n := keys.readCount(); err != nil || got != code || n != reads {
					t.Errorf("%s: %s, %v after %d reads, want %s after %d", step, got, err, n, code, reads)
				}
			}
			want("cold", apikey.CodeValid, 1)
			want("warm", apikey.CodeValid, 1)
			disable(keys, k)
			log.pass(feed.MaxAge - 1)
			want("within the time", apikey.CodeValid, 1)
			log.pass(1)
			want("after it", apikey.CodeDisabled, 2)
			want("and again", apikey.CodeDisabled, 3)
			log.follow(t, v, k.ID)
			// What was read at the position of the change or later is good.
			want("the log is read again", apikey.CodeDisabled, 3)
		})
	}
}

const newText = "no key"

// TestReadingComesBeforeTheLook has the log read again just between the look into memory
// and the look at the clock: what was found before is not taken for new.
func TestReadingComesBeforeTheLook(t *testing.T) {
	t.Parallel()
	v, keys, log := newShared(t)
	k, secret := keys.create(t, apikey.Key{}, 0)
	wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
	disable(keys, k)
	log.pass(time.Hour)
	log.mu.Lock()
	log.onNow = func() { log.follow(t, v, k.ID) }
	log.mu.Unlock()
	wantCode(t, v, Request{Secret: secret}, apikey.CodeDisabled)
}

// TestNoCallJoinsAnOldRead has a read hang that began before a change of another
// server: a call that begins long after the change does not wait for it, and what it
// found is not kept over what was read later.
func TestNoCallJoinsAnOldRead(t *testing.T) {
	t.Parallel()
	v, keys, log := newShared(t)
	k, secret := keys.create(t, apikey.Key{}, 0)
	held := keys.hold()
	first, second := make(chan apikey.Code, 1), make(chan apikey.Code, 1)
	go func() { first <- ask(t, v, Request{Secret: secret}).Code }()
	<-held.reached
	log.pass(feed.MaxAge - 1)
	go func() { second <- ask(t, v, Request{Secret: secret}).Code }()
	for waiting := 0; waiting < 2; { // until the second call has joined
		v.cache.mu.Lock()
		for r := v.cache.reads.Front(); r != nil; r = r.Next() {
			waiting = r.Value.(*read).waiting
		}
		v.cache.mu.Unlock()
	}
	keys.unhold()
	disable(keys, k)
	log.pass(1)
	wantCode(t, v, Request{Secret: secret}, apikey.CodeDisabled)
	close(held.open)
	if a, b := <-first, <-second; a != apikey.CodeValid || b != apikey.CodeValid {
		t.Errorf("the first calls: %s, %s", a, b)
	}
	if n := keys.readCount(); n != 2 {
		t.Errorf("%d reads", n)
	}
	if e, _ := v.cached(secret); e == nil || e.key.Enabled {
		t.Error("what was read before is kept over what was read later")
	}
}

// TestLoadsThatHangAreUnavailable bounds how long a call waits for storage.
func TestLoadsThatHangAreUnavailable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, keys, _ := newShared(t)
		_, secret := keys.create(t, apikey.Key{}, 0)
		keys.onRead = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		began := time.Now()
		_, err := v.Verify(context.Background(), Request{Secret: secret})
		wantUnavailable(t, err)
		if d := time.Since(began); d != loadTimeout {
			t.Errorf("waited %s", d)
		}
		keys.onRead = nil
		wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
		v.cache.entries.StopAllGoroutines()
	})
}

// TestDropAll drops what is cached and what reads under way find.
func TestDropAll(t *testing.T) {
	t.Parallel()
	v, keys, _ := newShared(t)
	_, cached := keys.create(t, apikey.Key{}, 0)
	_, read := keys.create(t, apikey.Key{}, 0)
	wantCode(t, v, Request{Secret: cached}, apikey.CodeValid)
	held := keys.hold()
	first := make(chan apikey.Code, 1)
	go func() { first <- ask(t, v, Request{Secret: read}).Code }()
	<-held.reached
	keys.unhold()
	v.DropAll()
	close(held.open)
	if code := <-first; code != apikey.CodeValid {
		t.Error(code)
	}
	for _, secret := range []string{cached, read} {
		if e, ok := v.cached(secret); e != nil || ok {
			t.Error("an entry is left")
		}
	}
	if n := len(v.cache.index.byID); n != 0 {
		t.Errorf("%d keys are indexed", n)
	}
	wantCode(t, v, Request{Secret: cached}, apikey.CodeValid)
	if e, _ := v.cached(cached); e == nil {
		t.Error("nothing is kept any more")
	}
}

// TestNotFoundForgets has a slow read find that another server has deleted a key, which
// a faster one had found before: whoever was told so is not told otherwise by the next.
func TestNotFoundForgets(t *testing.T) {
	t.Parallel()
	v, keys, _ := newShared(t)
	k, secret := keys.create(t, apikey.Key{}, 0)
	gone := k
	gone.Secret.Hash = apikey.Hash{}
	keys.put(gone)
	held := keys.hold()
	slow := make(chan apikey.Code, 1)
	go func() { slow <- ask(t, v, Request{Secret: secret}).Code }()
	<-held.reached
	keys.unhold()
	keys.put(k)                               // As it was before,
	v.Drop([]string{"api_key_of_another"}, 0) // and a change of another key, so that no call joins the slow read.
	wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
	keys.put(gone)
	close(held.open)
	if code := <-slow; code != apikey.CodeNotFound {
		t.Fatalf("the slow read: %s", code)
	}
	wantCode(t, v, Request{Secret: secret}, apikey.CodeNotFound)
}

// TestDropKeepsWhatWasReadLater: the log tells of a change that the entry has seen.
func TestDropKeepsWhatWasReadLater(t *testing.T) {
	t.Parallel()
	v, keys, _ := newShared(t)
	k, secret := keys.create(t, apikey.Key{}, 0)
	keys.put(k)
	wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
	for _, c := range []struct {
		position int64
		kept     bool
	}{{keys.position - 1, true}, {keys.position, true}, {keys.position + 1, false}, {0, false}} {
		wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
		v.Drop([]string{k.ID}, c.position)
		if e, _ := v.cached(secret); (e != nil) != c.kept {
			t.Errorf("dropped at %d of %d: kept %t", c.position, keys.position, e != nil)
		}
	}
}
