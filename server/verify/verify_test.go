package verify

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Each check is answered before all that follow it: the key fails everything, and
// from row to row one thing more is put right.
func TestOrderOfCodes(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{
		OrganizationID: "org_a", Scopes: apikey.Scopes{"events.read"}, RevokedAt: noon, ExpiresAt: noon,
		IPAllowList: apikey.AllowList{netip.MustParsePrefix("192.0.2.0/24")}, RateLimit: apikey.RateLimit{Requests: 1, WindowSeconds: 60},
	}, 0)
	k.Enabled = false
	keys.change(v, k)
	r := Request{Secret: secret[1:], Organization: "org_b", Scopes: []string{"users.update"}, Cost: 1}
	for _, c := range []struct {
		want apikey.Code
		next func()
	}{
		{apikey.CodeMalformed, func() { r.Secret = newSecret(t) }},
		{apikey.CodeNotFound, func() { r.Secret = secret }},
		{apikey.CodeNotFound, func() { r.Organization = "org_a" }},
		{apikey.CodeRevoked, func() { k.RevokedAt = time.Time{} }},
		{apikey.CodeDisabled, func() { k.Enabled = true }},
		{apikey.CodeExpired, func() { k.ExpiresAt = noon.Add(1) }},
		{apikey.CodeIPNotAllowed, func() { r.Addr = netip.MustParseAddr("198.51.100.1") }},
		{apikey.CodeIPNotAllowed, func() { r.Addr = netip.MustParseAddr("::ffff:192.0.2.1") }},
		{apikey.CodeInsufficientScope, func() { r.Scopes = []string{"events.read"} }},
		// All that was refused so far has spent nothing of the budget of one.
		{apikey.CodeValid, func() {}},
		{apikey.CodeRateLimited, func() { r.Scopes = nil; r.Cost = 0 }},
		{apikey.CodeValid, func() { r.Organization = ""; r.Cost = 1 }},
		{apikey.CodeRateLimited, func() { clock.Advance(time.Minute) }},
		{apikey.CodeExpired, func() {}},
	} {
		got := ask(t, v, r)
		if got.Code != c.want {
			t.Errorf("code %s, want %s", got.Code, c.want)
		}
		found := c.want != apikey.CodeMalformed && c.want != apikey.CodeNotFound
		if found != (got.Key != nil) || found != (got.Limit.Limit == 1) {
			t.Errorf("%s tells key %v, limit %v", c.want, got.Key, got.Limit)
		}
		c.next()
		keys.change(v, k)
	}
}

func TestForeignCaller(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{OrganizationID: "org_a"}, 0)
	credential := Credential{Secret: secret, Organization: "org_b"}
	wantCaller(t, v.Authenticate, credential, apikey.CodeWrongOrganization)
	wantCaller(t, v.Recheck, credential, apikey.CodeWrongOrganization)
	k.Enabled = false
	keys.change(v, k)
	wantCaller(t, v.Authenticate, credential, apikey.CodeDisabled)
	wantCaller(t, v.Recheck, credential, apikey.CodeDisabled)
}

// wantCaller fails unless an operation answers a credential with a code.
func wantCaller(t *testing.T, operation func(context.Context, Credential) (apikey.Verification, error), c Credential, want apikey.Code) {
	t.Helper()
	if got, err := operation(t.Context(), c); err != nil || got.Code != want {
		t.Errorf("code %s, want %s; %v", got.Code, want, err)
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	v := newVerifier(t, keys, nil)
	k, secret := keys.create(t, apikey.Key{}, 0)
	wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
	for _, text := range []string{
		"", " ", secret + " ", secret[:len(secret)-1], strings.Repeat("x", 57), strings.Repeat("x", 513),
		string(k.Secret.Hash[:]), secret[:50] + "0000000", strings.ToUpper(secret), secret + secret,
	} {
		wantCode(t, v, Request{Secret: text}, apikey.CodeMalformed)
	}
	if n := keys.readCount(); n != 1 {
		t.Errorf("%d reads; junk reaches storage", n)
	}
}

func TestCost(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{RateLimit: apikey.RateLimit{Requests: 10, WindowSeconds: 10}}, 0)
	r := Request{Secret: secret}
	for _, cost := range []int{11, 1_000_000, -1} {
		r.Cost = cost
		_, err := v.Verify(t.Context(), r)
		if e := apikey.AsError(err); e == nil || e.Kind != apikey.KindInvalid || e.Fields[0].Field != "cost" {
			t.Errorf("cost %d: %v", cost, err)
		}
	}
	for _, c := range []struct {
		cost int
		want apikey.LimitStatus
		code apikey.Code
		wait time.Duration
	}{
		{0, apikey.LimitStatus{Limit: 10, Remaining: 10, ResetAt: noon}, apikey.CodeValid, 0},
		{4, apikey.LimitStatus{Limit: 10, Remaining: 6, ResetAt: noon.Add(4 * time.Second)}, apikey.CodeValid, 0},
		{7, apikey.LimitStatus{Limit: 10, Remaining: 6, ResetAt: noon.Add(4 * time.Second)}, apikey.CodeRateLimited, time.Second},
		{6, apikey.LimitStatus{Limit: 10, Remaining: 0, ResetAt: noon.Add(10 * time.Second)}, apikey.CodeValid, 0},
		{0, apikey.LimitStatus{Limit: 10, Remaining: 0, ResetAt: noon.Add(10 * time.Second)}, apikey.CodeValid, 0},
		{10, apikey.LimitStatus{Limit: 10, Remaining: 0, ResetAt: noon.Add(10 * time.Second)}, apikey.CodeRateLimited, 10 * time.Second},
	} {
		r.Cost = c.cost
		got := ask(t, v, r)
		want := apikey.Verification{Code: c.code, Limit: c.want, RetryAfter: c.wait, At: noon}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(apikey.Verification{}, "Key", "Usage")); diff != "" {
			t.Errorf("cost %d: %s", c.cost, diff)
		}
	}
	// A key that cannot be used anyway says so, whatever the cost; one without a
	// limit takes every cost.
	r.Cost = 11
	k.Enabled = false
	keys.change(v, k)
	wantCode(t, v, r, apikey.CodeDisabled)
	k.Enabled, k.RateLimit = true, apikey.RateLimit{}
	keys.change(v, k)
	wantCode(t, v, r, apikey.CodeValid)
}

// A credential that is checked again spends and counts nothing, and is refused for
// its state only.
func TestRecheck(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{RateLimit: apikey.RateLimit{Requests: 1, WindowSeconds: 60}}, 0)
	credential := Credential{Secret: secret}
	for range 3 {
		wantCaller(t, v.Recheck, credential, apikey.CodeValid)
	}
	if got, err := v.Authenticate(t.Context(), credential); err != nil || got.Code != apikey.CodeValid || got.Usage.TotalRequests != 1 {
		t.Errorf("%s, %+v, %v", got.Code, got.Usage, err)
	}
	wantCaller(t, v.Authenticate, credential, apikey.CodeRateLimited)
	wantCaller(t, v.Recheck, credential, apikey.CodeValid)
	k.Enabled = false
	keys.change(v, k)
	wantCaller(t, v.Recheck, credential, apikey.CodeDisabled)
}

// Both secrets of a rotation work for the overlap, on one budget and one count.
func TestRotationOverlap(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, older := keys.create(t, apikey.Key{RateLimit: apikey.RateLimit{Requests: 4, WindowSeconds: 86_400}}, 0)
	wantCode(t, v, Request{Secret: older, Cost: 1}, apikey.CodeValid)

	newer := newSecret(t)
	stored := apikey.StoredSecret{Hash: keys.peppers.Hash(0, newer), Mask: "newer"}
	if err := (apikey.Rules{}).Rotate(&k, apikey.DefaultKeyFormats()[0], stored, time.Hour, noon); err != nil {
		t.Fatal(err)
	}
	keys.change(v, k)
	for i, secret := range []string{older, newer, older, newer} {
		got := ask(t, v, Request{Secret: secret, Cost: 1})
		want := apikey.CodeValid
		if i == 3 {
			want = apikey.CodeRateLimited
		}
		if got.Code != want || got.Previous != (secret == older) {
			t.Errorf("call %d: %s, previous = %t", i, got.Code, got.Previous)
		}
		if got.Usage.TotalRequests != min(int64(i+2), 4) {
			t.Errorf("call %d: %d requests in all", i, got.Usage.TotalRequests)
		}
	}
	clock.Advance(time.Hour - 1)
	wantCode(t, v, Request{Secret: older}, apikey.CodeValid)
	clock.Advance(1)
	wantCode(t, v, Request{Secret: older}, apikey.CodeNotFound)
	wantCode(t, v, Request{Secret: newer}, apikey.CodeValid)

	// A second rotation without overlap ends both at once.
	newest := newSecret(t)
	stored.Hash = keys.peppers.Hash(0, newest)
	if err := (apikey.Rules{}).Rotate(&k, apikey.DefaultKeyFormats()[0], stored, 0, clock.Now()); err != nil {
		t.Fatal(err)
	}
	v.Drop([]string{k.ID}, keys.put(k))
	wantCode(t, v, Request{Secret: newer}, apikey.CodeNotFound)
	wantCode(t, v, Request{Secret: newest}, apikey.CodeValid)
}

func TestOlderPepper(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{}, 1)
	for range 3 {
		wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
	}
	if n := keys.readCount(); n != 1 {
		t.Errorf("%d reads", n)
	}
	// A store knows the stored hash only, and evicts by that.
	k.Enabled = false
	keys.change(v, k)
	wantCode(t, v, Request{Secret: secret}, apikey.CodeDisabled)
}

// Expiry is checked by the clock of the call, not by that of the load.
func TestExpiryOfCachedKey(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	_, secret := keys.create(t, apikey.Key{ExpiresAt: noon.Add(time.Second)}, 0)
	wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
	clock.Advance(time.Second - 1)
	wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
	clock.Advance(1)
	wantCode(t, v, Request{Secret: secret}, apikey.CodeExpired)
	// Also by one that expires while it is read.
	_, secret = keys.create(t, apikey.Key{ExpiresAt: noon.Add(time.Minute)}, 0)
	keys.onRead = func(context.Context) error { clock.Advance(time.Minute); return nil }
	wantCode(t, v, Request{Secret: secret}, apikey.CodeExpired)
}

func TestStorageFails(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	v := newVerifier(t, keys, nil)
	_, secret := keys.create(t, apikey.Key{}, 0)
	keys.onRead = func(context.Context) error { return errBroken }
	if r, err := v.Verify(t.Context(), Request{Secret: secret}); !errors.Is(err, errBroken) || r.Code != "" {
		t.Errorf("Verify = %q, %v", r.Code, err)
	} else {
		wantUnavailable(t, err)
	}
	// Who gives up hears of that alone.
	ctx, cancel := context.WithCancel(t.Context())
	keys.onRead = func(context.Context) error { cancel(); return errBroken }
	if _, err := v.Verify(ctx, Request{Secret: secret}); !errors.Is(err, context.Canceled) || apikey.AsError(err) != nil {
		t.Errorf("err = %v", err)
	}
	keys.onRead = nil
	wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
}

func TestWarmVerifyAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector sync.Pool forgets at random")
	}
	t.Run("alone", func(t *testing.T) {
		keys := newFakeKeys()
		warmVerifyAllocatesNothing(t, newHarness(t, keys, Config{Now: time.Now, Observations: NewObservations()}), keys)
	})
	t.Run("shared", func(t *testing.T) {
		v, keys, _ := newShared(t)
		warmVerifyAllocatesNothing(t, v, keys)
	})
}

func warmVerifyAllocatesNothing(t *testing.T, v *harness, keys *fakeKeys) {
	t.Helper()
	_, secret := keys.create(t, apikey.Key{
		OrganizationID: "org_a", Scopes: apikey.Scopes{"events.read"}, ExpiresAt: v.now().Add(time.Hour),
		IPAllowList: apikey.AllowList{netip.MustParsePrefix("192.0.2.0/24")}, RateLimit: apikey.RateLimit{Requests: 1_000_000, WindowSeconds: 1},
	}, 1) // the older pepper, so that both hash
	r := Request{Secret: secret, Organization: "org_a", Scopes: []string{"events.read"}, Addr: netip.MustParseAddr("192.0.2.1"), Cost: 1}
	ctx := t.Context()
	var wrong sync.Once
	allocs := testing.AllocsPerRun(2000, func() {
		if got, err := v.Verify(ctx, r); err != nil || got.Code != apikey.CodeValid {
			wrong.Do(func() { t.Errorf("Verify = %s, %v", got.Code, err) })
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations in a call", allocs)
	}
}

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
