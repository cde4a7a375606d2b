package verify

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// A change that is answered while a batch waits for units, or for another key, is
// seen by all of it.
func TestBatchSeesChanges(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(r *quotaHarness, other string, change func()){
		"units": func(r *quotaHarness, _ string, change func()) { r.quotas.onAsk = sync.OnceFunc(change) },
		"a key": func(r *quotaHarness, _ string, change func()) {
			once := sync.OnceFunc(change)
			r.keys.onRead = func(context.Context) error { once(); return nil }
		},
		"both, again and again": func(r *quotaHarness, other string, change func()) {
			once, n := sync.OnceFunc(change), 0
			k := r.keys.byID[r.keys.idOf[r.keys.peppers.Hash(0, other)]]
			r.keys.onRead = func(context.Context) error {
				if n++; n == maxLooks {
					once()
				} else if n < maxLooks {
					r.keys.change(r.harness, k)
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newQuotaHarness(t)
			_, metered := r.create(t, 100, apikey.RefillNone, apikey.RateLimit{})
			plain, secret := r.keys.create(t, apikey.Key{OrganizationID: "org_a"}, 0)
			wantCode(t, r.harness, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
			var revokedAt time.Time
			wait(r, metered, func() {
				revokedAt = r.clock.Now()
				plain.RevokedAt = revokedAt
				r.keys.change(r.harness, plain)
			})
			got := r.batch(t, Request{Secret: metered, Cost: 1}, Request{Secret: secret, Cost: 1}, Request{Secret: newSecret(t), Cost: 1})
			if revokedAt.IsZero() || got[0].Code != apikey.CodeValid || got[1].Code != apikey.CodeRevoked || got[2].Code != apikey.CodeNotFound {
				t.Errorf("revoked at %v: %s, %s, %s", revokedAt, got[0].Code, got[1].Code, got[2].Code)
			}
		})
	}
}

// Where others' keys change all the time, a batch reads nothing more once it has
// begun to spend: not even secrets that nobody has.
func TestBatchOnABusyServer(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	_, metered := r.create(t, 100, apikey.RefillNone, apikey.RateLimit{})
	other, _ := r.keys.create(t, apikey.Key{OrganizationID: "org_a"}, 0)
	wantCode(t, r.harness, Request{Secret: metered, Cost: 50}, apikey.CodeValid)
	looks := 0
	r.keys.onRead = func(context.Context) error {
		if looks++; looks > maxLooks {
			return errBroken
		}
		r.keys.change(r.harness, other)
		return nil
	}
	got := r.batch(t, Request{Secret: metered, Cost: 10}, Request{Secret: newSecret(t), Cost: 1})
	if looks != maxLooks || got[0].Code != apikey.CodeValid || got[1].Code != apikey.CodeNotFound {
		t.Errorf("%d looks: %s, %s", looks, got[0].Code, got[1].Code)
	}
}

// A limit that is lowered while the batch waits fails nothing of it.
func TestBatchLimitIsLowered(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	other, metered := r.create(t, 100, apikey.RefillNone, apikey.RateLimit{})
	_, first := r.create(t, 5, apikey.RefillNone, apikey.RateLimit{})
	wantCode(t, r.harness, Request{Secret: metered, Cost: 1}, apikey.CodeValid)
	began, let := r.holdUp()
	results := r.inBackground(t.Context(), Request{Secret: first, Cost: 5}, Request{Secret: metered, Cost: 50})
	<-began
	other.Quota.Limit, other.Quota.Remaining, other.Quota.Epoch = 10, 10, 2
	r.quotas.mu.Lock()
	r.quotas.byID[other.ID] = other.Quota
	r.quotas.mu.Unlock()
	r.keys.change(r.harness, other)
	let()
	got, err := results()
	if err != nil || got[0].Code != apikey.CodeValid || got[1].Code != apikey.CodeQuotaExceeded || got[1].RetryAfter != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if left := r.spend(t, metered, 20, 1); left != 10 {
		t.Errorf("%d of 10 are left", left)
	}
}

// What the limits refuse is not kept in reserve.
func TestBatchKeepsNoMoreThanABlock(t *testing.T) {
	t.Parallel()
	slow := apikey.RateLimit{Requests: 1000, WindowSeconds: 86_400}
	t.Run("rate limit", func(t *testing.T) {
		r := newQuotaHarness(t)
		var most int64 // that was ever reserved
		k, secret := r.create(t, 1_000_000, apikey.RefillNone, slow)
		r.quotas.onGrant = func(units int64) { most = max(most, units) }
		if n := valid(r.batch(t, times(1000, secret, 1000)...)); n != 1 {
			t.Errorf("%d valid", n)
		}
		r.wantStored(t, k.ID, 999_000)
		if most > 1000+1024 {
			t.Errorf("%d were reserved", most)
		}
	})
	t.Run("rotation", func(t *testing.T) {
		r := newQuotaHarness(t)
		k, older := r.create(t, 1_000_000, apikey.RefillNone, slow)
		newer := newSecret(t)
		k.Previous, k.PreviousExpiresAt = k.Secret, noon.Add(time.Hour)
		k.Secret = apikey.StoredSecret{Hash: r.keys.peppers.Hash(0, newer), Mask: "mask"}
		r.keys.put(k)
		if n := valid(r.batch(t, append(times(3, older, 300), times(3, newer, 100)...)...)); n != 4 {
			t.Errorf("%d valid", n)
		}
		r.wantStored(t, k.ID, 999_000)
	})
	t.Run("less is left than one costs", func(t *testing.T) {
		r := newQuotaHarness(t)
		k, secret := r.create(t, 1_000_000, apikey.RefillNone, apikey.RateLimit{})
		wantCode(t, r.harness, Request{Secret: secret}, apikey.CodeValid) // known as it was
		k.Quota.Remaining = 900
		r.quotas.byID[k.ID] = k.Quota // another server spent it
		if n := valid(r.batch(t, times(1000, secret, 400)...)); n != 2 {
			t.Errorf("%d valid", n)
		}
		r.wantStored(t, k.ID, 100)
		asked := r.quotas.count()
		if n := valid(r.batch(t, times(1000, secret, 400)...)); n != 0 || r.quotas.count() != asked {
			t.Errorf("%d valid, %d more transactions", n, r.quotas.count()-asked)
		}
	})
}
