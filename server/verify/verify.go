package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
)

// Keys is where keys are stored.
type Keys interface {
	// KeysBySecret returns the keys that have one of hashes as their current or
	// previous secret, in any order, and the position of the log at which they were
	// read, or an earlier one. Hashes of no key are passed over.
	KeysBySecret(ctx context.Context, hashes []apikey.Hash) ([]apikey.Key, int64, error)
	// AddUsage adds counts, which it may sort, and returns how many of them, from
	// the first, are stored: all, unless there is an error.
	AddUsage(ctx context.Context, counts []apikey.UsageCount) (stored int, err error)
}

// Quotas is where what is left of quotas is stored.
type Quotas interface {
	// ReserveQuota takes units off what is left, for good once it returns, and
	// grants them: as many as the ask wants, or more, or all there are. The grants
	// are in the order of asks. A grant without a quota says that the key has none
	// of that epoch.
	ReserveQuota(ctx context.Context, asks []apikey.QuotaAsk, now time.Time) ([]apikey.QuotaGrant, error)
	// ReturnQuota adds units again that were granted and not spent, unless their
	// epoch or period is over.
	ReturnQuota(ctx context.Context, returns []apikey.QuotaReturn) error
}

// Config says what a Verifier works with.
type Config struct {
	// Keys is required.
	Keys Keys
	// Quotas is required where keys have quotas.
	Quotas Quotas
	// Peppers is required.
	Peppers *keyring.Peppers
	// CacheSize is how many secrets are kept in memory. Defaults to 200,000.
	CacheSize int
	// Loads is how many keys are read at a time. Defaults to 2.
	Loads int
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
	// Logger hears of counters and quotas that could not be stored. Defaults to
	// slog.Default.
	Logger *slog.Logger
}

// Verifier judges secrets. Its methods are safe for concurrent use.
type Verifier struct {
	peppers *keyring.Peppers
	keys    Keys
	now     func() time.Time
	start   time.Time // limits are reckoned from here, see micros
	log     *slog.Logger
	states  states
	quotas  quotas
	cache   *cache
}

// New returns a Verifier. It starts nothing: Run stores the counters.
func New(c Config) (*Verifier, error) {
	v := &Verifier{peppers: c.Peppers, keys: c.Keys, now: c.Now, log: c.Logger}
	if v.now == nil {
		v.now = time.Now
	}
	v.start = v.now()
	if v.log == nil {
		v.log = slog.Default()
	}
	if c.CacheSize == 0 {
		c.CacheSize = 200_000
	}
	if c.Loads == 0 {
		c.Loads = 2
	}
	v.states.byID = make(map[string]*state)
	v.quotas.store, v.quotas.now, v.quotas.log = c.Quotas, v.now, v.log
	var err error
	if v.cache, err = newCache(c.Keys, &v.states, c.CacheSize, c.Loads); err != nil {
		return nil, fmt.Errorf("make the key cache: %w", err)
	}
	return v, nil
}

// Request is what is asked of a secret.
type Request struct {
	// Secret is the text that was presented; anything is taken.
	Secret string
	// Organization confines the answer to keys of one; empty means any.
	Organization string
	// Scopes must all be held by the key.
	Scopes []string
	// Addr is where the secret came from; the zero Addr is unknown.
	Addr netip.Addr
	// Cost is what the call takes of the key's rate limit and quota. Zero takes
	// nothing and checks everything.
	Cost int
	// Caller marks the credential of a call on this server rather than one that
	// such a call asks about: a key of another organization is then known, and
	// refused as such, after its state.
	Caller bool
	// Again judges anew the credential of a call that is still under way: nothing
	// is spent or counted, and no limit refuses it.
	Again bool

	// batched makes a cost that the key's limits can never meet a refusal. Alone it
	// is an error.
	batched bool
}

// Verify judges a secret. A refusal is not an error, and spends nothing. An error
// is one of the storage, of the kind KindUnavailable, or a cost that the key's
// limits can never meet.
func (v *Verifier) Verify(ctx context.Context, r Request) (apikey.Verification, error) {
	e, err := v.lookUp(ctx, r.Secret)
	if err != nil {
		return apikey.Verification{}, err
	}
	result, c, err := v.attempt(e, &r)
	if c.reservation == nil {
		return result, err
	}
	return v.attemptAgain(ctx, e, r, c)
}

// attempt judges a secret that finds e, or nil. It spends nothing where it returns
// a claim, which the call has to wait for.
func (v *Verifier) attempt(e *entry, r *Request) (result apikey.Verification, c claim, err error) {
	// The clock is read after the entry: a key that expired while it was being
	// read has expired.
	now := v.now()
	result, foreign := v.find(e, r, now)
	if result.Code != "" {
		if !r.Caller && r.Organization != "" {
			v.states.countUnknown(r.Organization, result.Code, now)
		}
		return result, claim{}, nil
	}
	result = judge(e, r, foreign, now)
	if r.Again {
		if result.Code == "" {
			result.Code = apikey.CodeValid
		}
		return result, claim{}, nil
	}
	if result.Code == "" {
		if result.Code, err = outOfReach(&e.key, r.Cost); err != nil && !r.batched {
			return result, claim{}, err
		}
	}
	return result, v.account(e, r.Cost, &result), nil
}

// cached returns the entry of a secret from memory; false where it has to be
// loaded. Junk has no entry, and need not be loaded.
func (v *Verifier) cached(secret string) (*entry, bool) {
	if len(secret) != apikey.SecretLength {
		return nil, true
	}
	for i := range v.peppers.Len() {
		if e, ok := v.cache.entries.GetIfPresent(v.peppers.Hash(i, secret)); ok {
			return e, true
		}
	}
	// Only here, since what is cached was well-formed: a warm call is spared the
	// checksum, and junk costs a hash but never a read.
	_, ok := apikey.ParseSecret(secret)
	return nil, !ok
}

// lookUp returns the entry of a secret, from memory or else from storage; nil where
// there is none.
func (v *Verifier) lookUp(ctx context.Context, secret string) (*entry, error) {
	if e, ok := v.cached(secret); ok {
		return e, nil
	}
	entries, err := v.cache.load(ctx, v.peppers.Hashes(secret))
	if err != nil {
		return nil, notJudged(ctx, err)
	}
	return entries[0], nil
}

// find tells whether the caller may know of the key that e is. The code is empty
// where that is so; foreign marks a key of another organization, of which only the
// one who calls with it may know.
func (v *Verifier) find(e *entry, r *Request, now time.Time) (result apikey.Verification, foreign bool) {
	if e == nil {
		if _, ok := apikey.ParseSecret(r.Secret); !ok {
			return apikey.Verification{Code: apikey.CodeMalformed}, false
		}
		return apikey.Verification{Code: apikey.CodeNotFound}, false
	}
	foreign = r.Organization != "" && e.key.OrganizationID != r.Organization
	if e.previous && !e.key.PreviousWorks(now) || foreign && !r.Caller {
		return apikey.Verification{Code: apikey.CodeNotFound}, false
	}
	return result, foreign
}

// judge runs the checks in their order, as far as they spend nothing. The code is
// empty where all have passed.
func judge(e *entry, r *Request, foreign bool, now time.Time) apikey.Verification {
	key := &e.key
	result := apikey.Verification{Key: key, Previous: e.previous, At: now}
	switch key.State(now) {
	case apikey.StateRevoked:
		result.Code = apikey.CodeRevoked
	case apikey.StateDisabled:
		result.Code = apikey.CodeDisabled
	case apikey.StateExpired:
		result.Code = apikey.CodeExpired
	case apikey.StateActive:
		switch {
		case foreign:
			result.Code = apikey.CodeWrongOrganization
		case !key.IPAllowList.Allows(r.Addr):
			result.Code = apikey.CodeIPNotAllowed
		case !key.Scopes.HasAll(r.Scopes):
			result.Code = apikey.CodeInsufficientScope
		}
	}
	return result
}

// outOfReach returns an error where a cost can never be met, and the code of the
// first of the key's limits that it is above as a whole.
func outOfReach(k *apikey.Key, cost int) (apikey.Code, error) {
	switch {
	case cost < 0:
		return "", apikey.InvalidField("cost", "must not be negative")
	case k.RateLimit != (apikey.RateLimit{}) && cost > k.RateLimit.Requests:
		return apikey.CodeRateLimited, apikey.InvalidField("cost", "must not be above the key's rate limit of %d requests", k.RateLimit.Requests)
	case k.Quota.Limit > 0 && int64(cost) > k.Quota.Limit:
		return apikey.CodeQuotaExceeded, apikey.InvalidField("cost", "must not be above the key's quota of %d", k.Quota.Limit)
	}
	return "", nil
}

// account spends and counts a call that was judged, and fills in what is left. All
// limits are looked at before any of them is spent, so that one that refuses
// leaves the others whole. Where it returns a claim, it has done nothing.
func (v *Verifier) account(e *entry, cost int, result *apikey.Verification) claim {
	st := v.states.lock(e.state)
	defer st.mu.Unlock()
	key := &e.key
	limited := key.RateLimit != (apikey.RateLimit{})
	now := v.micros(result.At)
	if limited {
		st.bucket.drain(key.RateLimit, now)
		if result.Code == "" {
			if result.RetryAfter = st.bucket.wait(cost, now); result.RetryAfter > 0 {
				result.Code = apikey.CodeRateLimited
			}
		}
	}
	var b *budget
	if key.Quota.Limit > 0 {
		b = st.budgetLocked(&key.Quota, result.At)
		if need := int64(cost) - b.held; need > 0 && result.Code == "" {
			if b.mayHave(need, result.At) {
				return v.quotas.joinLocked(st, b, need)
			}
			result.Code = apikey.CodeQuotaExceeded
			if at := b.quota.NextRefill(); !at.IsZero() {
				result.RetryAfter = at.Sub(result.At)
			}
		}
	}
	if result.Code == "" {
		result.Code = apikey.CodeValid
		if limited {
			st.bucket.spend(cost)
		}
		if b != nil {
			b.held -= int64(cost)
		}
	}
	if limited {
		remaining, full := st.bucket.left(now)
		result.Limit = apikey.LimitStatus{Limit: key.RateLimit.Requests, Remaining: remaining, ResetAt: result.At.Add(full)}
	}
	if b != nil {
		result.Quota = b.status()
	}
	result.Usage = v.states.countLocked(st, result.Code, result.At)
	return claim{}
}

// micros is the time of the limits. A difference of two readings keeps to the
// monotonic clock where they have it, so setting the wall clock neither refills
// a limit nor shuts it.
func (v *Verifier) micros(now time.Time) int64 { return now.Sub(v.start).Microseconds() }

// Evict drops what is known of the secrets with these hashes. The one who changed
// their keys calls it after the commit, whose position it gives, and before
// anyone is told that the change was made.
func (v *Verifier) Evict(hashes []apikey.Hash, position int64) { v.cache.evict(hashes, position) }

// The rhythm of Run.
const (
	flushInterval = time.Second
	sweepInterval = 30 * time.Second
	flushTimeout  = 10 * time.Second
)

// Run stores the counters once a second until ctx ends, and once more before it
// returns, when it also gives back what is reserved of quotas: after a clean stop
// both are exact.
func (v *Verifier) Run(ctx context.Context) error {
	flush, sweep := time.NewTicker(flushInterval), time.NewTicker(sweepInterval)
	defer flush.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-flush.C:
			if err := v.flushWhole(ctx); err != nil {
				v.log.Error("The usage counters could not be stored; they are kept and tried again.", "error", err)
			}
		case <-sweep.C:
			v.giveBack(ctx, v.states.sweep(v.micros(v.now())))
		case <-ctx.Done():
			v.giveBack(ctx, v.states.reserving())
			if err := v.flushWhole(ctx); err != nil {
				return errors.Join(errors.New("the last usage counters are lost"), err)
			}
			return nil
		}
	}
}

// flushWhole is Flush for Run. The end of ctx does not break it off: of a batch
// that was being written then, nobody could say whether it is stored.
func (v *Verifier) flushWhole(ctx context.Context) error {
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	return v.Flush(whole)
}

// Flush stores what was counted since the last flush.
func (v *Verifier) Flush(ctx context.Context) error { return v.states.flush(ctx, v.keys) }
