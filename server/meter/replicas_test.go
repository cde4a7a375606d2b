package meter

import (
	"context"
	"errors"
	"log/slog"
	"math/big"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
)

// sharedStore is storage that several meters share. It can apply an ask and fail to
// say so.
type sharedStore struct {
	mu     sync.Mutex
	quota  apikey.Quota
	limit  apikey.RateLimit // the key's
	shared apikey.SharedLimiter
	lose   bool // the next answer
	asks   int
}

var errLost = errors.New("the answer is lost")

func (s *sharedStore) answer() error {
	s.asks++
	if s.lose {
		s.lose = false
		return errLost
	}
	return nil
}

// loseNext loses the next answer.
func (s *sharedStore) loseNext() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = true
}

// limits returns the key's.
func (s *sharedStore) limits() (apikey.RateLimit, apikey.Quota) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit, s.quota
}

func (s *sharedStore) AddUsage(_ context.Context, counts []apikey.UsageCount) (int, error) {
	return len(counts), nil
}

func (s *sharedStore) ReserveRate(_ context.Context, asks []apikey.RateAsk, now time.Time) ([]apikey.RateGrant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	grants := make([]apikey.RateGrant, len(asks))
	for i, a := range asks {
		stale := a.Limit != s.limit
		if stale {
			a.Limit, a.Want, a.Least, a.More = s.limit, 0, 0, 0
		}
		grants[i] = s.shared.Reserve(&a, now.UnixMicro())
		grants[i].Stale = stale
	}
	return grants, s.answer()
}

func (s *sharedStore) ReserveQuota(_ context.Context, asks []apikey.QuotaAsk, now time.Time) ([]apikey.QuotaGrant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	grants := make([]apikey.QuotaGrant, len(asks))
	for i, a := range asks {
		if a.Quota.Epoch != s.quota.Epoch {
			continue
		}
		s.quota = s.quota.At(now)
		units := apikey.Block(a.Want, s.quota.Remaining)
		s.quota.Remaining -= units
		grants[i] = apikey.QuotaGrant{Units: units, Quota: s.quota}
	}
	return grants, s.answer()
}

func (s *sharedStore) ReturnQuota(_ context.Context, returns []apikey.QuotaReturn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range returns {
		if s.quota.Epoch == r.Epoch && s.quota.RefilledAt.Equal(r.RefilledAt) {
			s.quota.Remaining += r.Units
		}
	}
	return s.answer()
}

// replica is one server's meter over a shared store, and a call of it that is under
// way.
type replica struct {
	*Meter
	counters *Counters
	key      apikey.Key
	waiting  Ticket
	cost     int
}

// replicas are three servers, their storage and their clock.
type replicas struct {
	store *sharedStore
	clock *clock.Clock
	all   [3]*replica
	spent []spent
}

// spent is what one call spent, and when.
type spent struct {
	at    time.Time
	units int64
}

func newReplicas(key apikey.Key, now time.Time) *replicas {
	r := &replicas{store: &sharedStore{limit: key.RateLimit, quota: key.Quota}, clock: clock.At(now)}
	for i := range r.all {
		r.start(i, key)
	}
	return r
}

// start starts a server anew: what it held is known to nobody.
func (r *replicas) start(i int, key apikey.Key) {
	m := New(Config{
		Usage: r.store, Quotas: r.store, Rates: r.store, Now: r.clock.Now,
		Logger: slog.New(slog.DiscardHandler),
	})
	key.ID = "api_key_1"
	one := &replica{Meter: m, key: key}
	one.counters = m.Acquire(&one.key)
	r.all[i] = one
}

// call begins a call at a server or, where one is under way, goes on with it. done is
// false where it waits for storage.
func (r *replicas) call(i, cost int) (v apikey.Verification, done bool) {
	one := r.all[i]
	if one.waiting.Pending() {
		cost = one.cost
		stale, err := one.Wait(context.Background(), one.waiting)
		one.waiting = Ticket{}
		if err != nil {
			return v, true
		}
		if stale {
			one.key.RateLimit, one.key.Quota = r.store.limits()
		}
	}
	v = apikey.Verification{Key: &one.key, Code: apikey.CodeValid, At: r.clock.Now()}
	if one.waiting = one.Charge(one.counters, cost, &apikey.CheckRequest{}, &v); one.waiting.Pending() {
		one.cost = cost
		return v, false
	}
	if v.Code == apikey.CodeValid && cost > 0 {
		r.spent = append(r.spent, spent{v.At, int64(cost)})
	}
	return v, true
}

// finish makes a call to its end.
func (r *replicas) finish(i, cost int) apikey.Verification {
	for {
		if v, done := r.call(i, cost); done {
			return v
		}
	}
}

// wantExact fails where all servers together spent more of a limit than it allows in
// any time: its burst, and what is refilled meanwhile.
func (r *replicas) wantExact(t interface{ Fatalf(string, ...any) }, limit apikey.RateLimit) {
	for i := range r.spent {
		var units int64
		for j := i; j < len(r.spent); j++ {
			units += r.spent[j].units
			micros := r.spent[j].at.Sub(r.spent[i].at).Microseconds()
			most := big.NewInt(micros)
			most.Mul(most, big.NewInt(int64(limit.Requests)))
			most.Quo(most, big.NewInt(int64(limit.WindowSeconds)*1_000_000))
			if most.Add(most, big.NewInt(int64(limit.Requests))); units > most.Int64() {
				t.Fatalf("%d were spent in %d microseconds, %v may be", units, micros, most)
			}
		}
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Three servers over one store never spend more of an exact rate limit than one would,
// whatever they hold, give back, lose and forget, and however their calls interleave.
func TestExactRateLimitOfReplicas(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := apikey.RateLimit{
			Requests:      rapid.OneOf(rapid.IntRange(1, 5), rapid.IntRange(1, 400)).Draw(t, "requests"),
			WindowSeconds: rapid.OneOf(rapid.IntRange(1, 5), rapid.IntRange(1, 100)).Draw(t, "window"), Exact: true,
		}
		key := apikey.Key{RateLimit: limit}
		r := newReplicas(key, noon)
		replica := rapid.IntRange(0, len(r.all)-1)
		cost := rapid.OneOf(rapid.IntRange(0, min(3, limit.Requests)), rapid.IntRange(0, limit.Requests))
		pause := rapid.OneOf(rapid.Int64Range(0, 1000), rapid.Int64Range(0, 2_000_000), rapid.Int64Range(0, 25_000_000))
		call := func(t *rapid.T) {
			v, done := r.call(replica.Draw(t, "replica"), cost.Draw(t, "cost"))
			if !done || v.Key == nil {
				return
			}
			if v.Limit.Limit != limit.Requests || v.Limit.Remaining < 0 || v.Limit.Remaining > limit.Requests {
				t.Fatalf("%+v", v.Limit)
			}
			window := time.Duration(limit.WindowSeconds) * time.Second
			if full := v.Limit.ResetAt.Sub(r.clock.Now()); full < 0 || full > window {
				t.Fatalf("full in %v", full)
			}
			if v.RetryAfter < 0 || v.RetryAfter > window || (v.Code == apikey.CodeRateLimited) != (v.RetryAfter > 0) {
				t.Fatalf("%s, retry after %v", v.Code, v.RetryAfter)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"call": call, "call again": call,
			"burst": func(t *rapid.T) {
				i := replica.Draw(t, "replica")
				for range rapid.IntRange(1, 40).Draw(t, "calls") {
					r.finish(i, 1)
				}
			},
			"pause":     func(t *rapid.T) { r.clock.Advance(time.Duration(pause.Draw(t, "micros")) * time.Microsecond) },
			"give back": func(t *rapid.T) { r.all[replica.Draw(t, "replica")].ReturnIdle(context.Background()) },
			"crash":     func(t *rapid.T) { r.start(replica.Draw(t, "replica"), key) },
			"stop": func(t *rapid.T) {
				i := replica.Draw(t, "replica")
				r.all[i].RefundAll(context.Background())
				r.start(i, key)
			},
			"lost answer": func(*rapid.T) { r.store.loseNext() },
			"":            func(t *rapid.T) { r.wantExact(t, limit) },
		})
	})
}

// Nothing of an exact limit stays unused for long: once the servers have given back
// what they hold, or have been dead for longer than a block lives, one of them can
// spend what a single one could.
func TestExactRateLimitIsNotStranded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := apikey.RateLimit{Requests: rapid.IntRange(1, 200).Draw(t, "requests"), WindowSeconds: 86_400, Exact: true}
		r := newReplicas(apikey.Key{RateLimit: limit}, noon)
		first := 0
		for range rapid.IntRange(1, 20).Draw(t, "calls") {
			i := rapid.IntRange(0, 2).Draw(t, "replica")
			if v := r.finish(i, 1); v.Code == apikey.CodeValid {
				first++
			}
		}
		r.clock.Advance(2 * time.Second)
		for range 3 { // seconds
			for _, one := range r.all {
				one.ReturnIdle(context.Background())
			}
		}
		left := limit.Requests - first
		if r.store.shared.Reserved+r.store.shared.ReservedBefore != 0 {
			t.Fatalf("still reserved: %+v", r.store.shared)
		}
		i := rapid.IntRange(0, 2).Draw(t, "the one that spends the rest")
		for n := range left {
			if v := r.finish(i, 1); v.Code != apikey.CodeValid {
				t.Fatalf("%d of %d: %s", n, left, v.Code)
			}
		}
		if v := r.finish(i, 1); v.Code != apikey.CodeRateLimited {
			t.Fatalf("one more: %s", v.Code)
		}
	})
}

// What a server that died had reserved counts as spent when its block ends, and is
// refilled from then on.
func TestExactRateLimitAfterCrash(t *testing.T) {
	t.Parallel()
	key := apikey.Key{RateLimit: apikey.RateLimit{Requests: 10, WindowSeconds: 10, Exact: true}}
	r := newReplicas(key, noon)
	for range 4 {
		r.finish(0, 1)
	}
	r.start(0, key)
	if v := r.finish(1, 7); v.Code != apikey.CodeRateLimited || v.Limit.Remaining != 6 {
		t.Fatalf("after the crash: %+v", v)
	}
	r.clock.Advance(4*apikey.BlockLife + 4*time.Second)
	if v := r.finish(1, 10); v.Code != apikey.CodeValid {
		t.Fatalf("once it is refilled: %+v", v)
	}
}

// Not even at the end of a slot is forgotten what a server that died had spent.
func TestExactRateLimitLongAfterCrash(t *testing.T) {
	t.Parallel()
	key := apikey.Key{RateLimit: apikey.RateLimit{Requests: 10, WindowSeconds: 86_400, Exact: true}}
	for offset := range 8 {
		r := newReplicas(key, noon.Add(time.Duration(offset)*apikey.BlockLife/4))
		for range 4 {
			r.finish(0, 1)
		}
		r.start(0, key)
		for range 40 {
			r.clock.Advance(apikey.BlockLife / 4)
			if v := r.finish(1, 7); v.Code != apikey.CodeRateLimited || v.Limit.Remaining != 6 {
				t.Fatalf("after %v: %s, %+v", r.clock.Now().Sub(noon), v.Code, v.Limit)
			}
		}
	}
}

// A server alone answers under an exact limit as it does under a local one: the same
// codes, the same wait, the same of what is left.
func TestExactRateLimitOfOneServer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := apikey.RateLimit{Requests: rapid.IntRange(1, 15).Draw(t, "requests"), WindowSeconds: rapid.IntRange(1, 60).Draw(t, "window")}
		local := newReplicas(apikey.Key{RateLimit: limit}, noon)
		limit.Exact = true
		exact := newReplicas(apikey.Key{RateLimit: limit}, noon)
		for range rapid.IntRange(1, 40).Draw(t, "calls") {
			pause := time.Duration(rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(0, 5_000_000)).Draw(t, "pause")) * time.Microsecond
			local.clock.Advance(pause)
			exact.clock.Advance(pause)
			cost := rapid.IntRange(0, limit.Requests).Draw(t, "cost")
			want, got := local.finish(0, cost), exact.finish(0, cost)
			if got.Code != want.Code || got.RetryAfter != want.RetryAfter || got.Limit != want.Limit {
				t.Fatalf("%s %v %+v, want %s %v %+v", got.Code, got.RetryAfter, got.Limit, want.Code, want.RetryAfter, want.Limit)
			}
		}
	})
}

// A limit that was changed holds at every server once it has the key anew, and what it
// held of the old limit is not spent.
func TestExactRateLimitChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) apikey.RateLimit {
			return apikey.RateLimit{Requests: rapid.IntRange(1, 100).Draw(t, name), WindowSeconds: 86_400, Exact: true}
		}
		from, to := draw("from"), draw("to")
		r := newReplicas(apikey.Key{RateLimit: from}, noon)
		for range rapid.IntRange(0, 120).Draw(t, "calls before") {
			r.finish(rapid.IntRange(0, 2).Draw(t, "replica"), 1)
		}
		before := len(r.spent)
		r.store.limit = to
		for i := range r.all {
			r.all[i].key.RateLimit = to
		}
		for range 120 {
			r.finish(rapid.IntRange(0, 2).Draw(t, "replica"), 1)
		}
		if after := len(r.spent) - before; after > max(to.Requests-before, 0) {
			t.Fatalf("%d were spent of %+v, and then %d of %+v", before, from, after, to)
		}
	})
}
