package verify

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	noon      = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	errBroken = errors.New("the disk is gone")
)

// testPeppers hash in every test; the first is for new secrets.
func testPeppers() *keyring.Peppers {
	return keyring.NewPeppers(keyring.NewKey("edge", "the edge key of these tests"),
		keyring.NewKey("new", "the newest pepper of these tests"), keyring.NewKey("old", "an older pepper of these tests.."))
}

func newSecret(t testing.TB) string {
	t.Helper()
	s, err := apikey.NewSecret("sk_live_", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.Reveal()
}

// fakeKeys is a store in memory whose reads and writes tests can hold up.
type fakeKeys struct {
	peppers *keyring.Peppers

	mu       sync.Mutex
	byID     map[string]apikey.Key
	idOf     map[apikey.Hash]string // of all secrets there ever were
	position int64
	reads    int
	running  int // reads under way
	most     int // of running, ever
	totals   map[string]apikey.Usage
	quotas   *fakeQuotas // that are read with the keys; nil for none
	// onRead, where it is set, is called at the end of a read, after the row was
	// read and before it is returned; onAdd in place of storing counts.
	onRead func(ctx context.Context) error
	onAdd  func(ctx context.Context, counts []apikey.UsageCount) (int, error)
}

var (
	_ KeyStore         = (*fakeKeys)(nil)
	_ meter.UsageStore = (*fakeKeys)(nil)
)

func newFakeKeys() *fakeKeys {
	return &fakeKeys{
		peppers: testPeppers(), byID: make(map[string]apikey.Key), idOf: make(map[apikey.Hash]string),
		totals: make(map[string]apikey.Usage),
	}
}

// A harness is a verifier with the meter that it charges.
type harness struct {
	*Verifier
	*meter.Meter
}

func newVerifier(t testing.TB, keys *fakeKeys, now func() time.Time) *harness {
	t.Helper()
	return newHarness(t, keys, Config{Now: now})
}

// newHarness completes c with keys.
func newHarness(t testing.TB, keys *fakeKeys, c Config) *harness {
	t.Helper()
	mc := meter.Config{Usage: keys, Now: c.Now, Logger: slog.New(slog.DiscardHandler)}
	if keys.quotas != nil {
		mc.Quotas = keys.quotas
	}
	c.Keys, c.Meter, c.Peppers = keys, meter.New(mc), keys.peppers
	v, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &harness{v, c.Meter}
}

// create completes k as an enabled key, stores it under the pepper and returns
// it with its secret.
func (f *fakeKeys) create(t testing.TB, k apikey.Key, pepper int) (apikey.Key, string) {
	t.Helper()
	secret := newSecret(t)
	k.ID = apikey.NewID(apikey.IDPrefix)
	k.Enabled = true
	k.Secret = apikey.StoredSecret{Hash: f.peppers.Hash(pepper, secret), Mask: "mask"}
	f.put(k)
	return k, secret
}

// put commits k as it is now and returns the position.
func (f *fakeKeys) put(k apikey.Key) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byID[k.ID] = k
	for _, h := range k.Hashes() {
		f.idOf[h] = k.ID
	}
	f.position++
	return f.position
}

// change commits k and drops it from the cache, as a store does before it answers.
func (f *fakeKeys) change(v *harness, k apikey.Key) { v.Drop([]string{k.ID}, f.put(k)) }

func (f *fakeKeys) KeysBySecret(ctx context.Context, hashes []apikey.Hash) ([]apikey.Key, int64, error) {
	f.mu.Lock()
	f.reads++
	f.running++
	f.most = max(f.most, f.running)
	var found []apikey.Key
	for _, h := range hashes {
		if k := f.byID[f.idOf[h]]; k.ID != "" && (k.Secret.Hash == h || k.Previous.Hash == h) {
			k.Usage = f.totals[k.ID]
			if q, ok := f.quotas.of(k.ID); ok {
				k.Quota = q
			}
			found = append(found, k)
		}
	}
	position, hook := f.position, f.onRead
	f.mu.Unlock()
	var err error
	if hook != nil {
		err = hook(ctx)
	}
	f.mu.Lock()
	f.running--
	f.mu.Unlock()
	if err != nil {
		return nil, 0, err
	}
	return found, position, nil
}

func (f *fakeKeys) AddUsage(ctx context.Context, counts []apikey.UsageCount) (int, error) {
	f.mu.Lock()
	hook := f.onAdd
	f.mu.Unlock()
	if hook != nil {
		return hook(ctx, counts)
	}
	return f.store(counts), nil
}

// setOnAdd sets onAdd while others may be adding.
func (f *fakeKeys) setOnAdd(hook func(context.Context, []apikey.UsageCount) (int, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onAdd = hook
}

func (f *fakeKeys) store(counts []apikey.UsageCount) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range counts {
		u := f.totals[c.KeyID]
		u.TotalRequests += c.Count
		if c.LastUsedAt.After(u.LastUsedAt) {
			u.LastUsedAt = c.LastUsedAt
		}
		if p := &u.Previous; c.Previous.Rotation > p.Rotation {
			*p = c.Previous
		} else if c.Previous.Rotation == p.Rotation {
			p.Requests += c.Previous.Requests
			p.LastUsedAt = c.Previous.LastUsedAt
		}
		f.totals[c.KeyID] = u
	}
	return len(counts)
}

func (f *fakeKeys) readCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads
}

func newClock() *clock.Clock { return clock.At(noon) }

// ask verifies a secret and fails on errors.
func ask(t testing.TB, v *harness, r Request) apikey.Verification {
	t.Helper()
	result, err := v.Verify(context.Background(), r)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	return result
}

// wantUnavailable fails unless a caller of err is told to try again, in words that
// say nothing of the cause.
func wantUnavailable(t testing.TB, err error) {
	t.Helper()
	known := apikey.AsError(err)
	if known == nil || known.Kind != apikey.KindUnavailable || known.Message != "The key could not be checked; try again." {
		t.Errorf("err = %v", err)
	}
}

func wantCode(t testing.TB, v *harness, r Request, want apikey.Code) {
	t.Helper()
	if got := ask(t, v, r).Code; got != want {
		t.Errorf("code %s, want %s", got, want)
	}
}
