package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Keys is where keys are stored.
type Keys interface {
	// KeyBySecret returns the key that has one of hashes as its current or
	// previous secret and the position of the log at which it was read, or
	// apikey.ErrNotFound.
	KeyBySecret(ctx context.Context, hashes []apikey.Hash) (apikey.Key, int64, error)
	// AddUsage adds counts, which it may sort, and returns how many of them, from
	// the first, are stored: all, unless there is an error.
	AddUsage(ctx context.Context, counts []apikey.UsageCount) (stored int, err error)
}

// Config says what a Verifier works with.
type Config struct {
	// Keys is required.
	Keys Keys
	// Peppers is required.
	Peppers *apikey.Peppers
	// CacheSize is how many secrets are kept in memory. Defaults to 200,000.
	CacheSize int
	// Loads is how many keys are read at a time. Defaults to 2.
	Loads int
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
	// Logger hears of counters that could not be stored. Defaults to slog.Default.
	Logger *slog.Logger
}

// Verifier judges secrets. Its methods are safe for concurrent use.
type Verifier struct {
	peppers *apikey.Peppers
	keys    Keys
	now     func() time.Time
	start   time.Time // limits are reckoned from here, see micros
	log     *slog.Logger
	states  states
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
	// Cost is what the call takes of the key's rate limit. Zero takes nothing and
	// checks everything.
	Cost int
	// Caller marks the credential of a call on this server rather than one that
	// such a call asks about: a key of another organization is then known, and
	// refused as such, after its state.
	Caller bool
	// Again judges anew the credential of a call that is still under way: nothing
	// is spent or counted, and no limit refuses it.
	Again bool
}

// Verify judges a secret. A refusal is not an error, and spends and counts
// nothing. An error is one of the storage, or a cost that the key's limit can
// never meet.
func (v *Verifier) Verify(ctx context.Context, r Request) (apikey.Verification, error) {
	if len(r.Secret) != apikey.SecretLength {
		return apikey.Verification{Code: apikey.CodeMalformed}, nil
	}
	e := v.cached(r.Secret)
	if e == nil {
		// Only here, since what is cached was well-formed: a warm call is spared the
		// checksum, and junk costs a hash but never a read.
		if _, ok := apikey.ParseSecret(r.Secret); !ok {
			return apikey.Verification{Code: apikey.CodeMalformed}, nil
		}
		var err error
		if e, err = v.load(ctx, r.Secret); err != nil {
			return apikey.Verification{}, err
		}
	}
	// The clock is read after the entry: a key that expired while it was being
	// read has expired.
	now := v.now()
	if e == nil || e.previous && !e.key.PreviousWorks(now) {
		return apikey.Verification{Code: apikey.CodeNotFound}, nil
	}
	foreign := r.Organization != "" && e.key.OrganizationID != r.Organization
	if foreign && !r.Caller {
		return apikey.Verification{Code: apikey.CodeNotFound}, nil
	}
	return v.judge(e, &r, foreign, now)
}

// cached returns the cached entry of a secret, or nil.
func (v *Verifier) cached(secret string) *entry {
	for i := range v.peppers.Len() {
		if e, ok := v.cache.entries.GetIfPresent(v.peppers.Hash(i, secret)); ok {
			return e
		}
	}
	return nil
}

// load reads the entry of a secret from storage; nil where there is none.
func (v *Verifier) load(ctx context.Context, secret string) (*entry, error) {
	e, err := v.cache.load(ctx, v.peppers.Hashes(secret))
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return e, err
}

// judge runs the checks in their order.
func (v *Verifier) judge(e *entry, r *Request, foreign bool, now time.Time) (apikey.Verification, error) {
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
	if r.Again {
		if result.Code == "" {
			result.Code = apikey.CodeValid
		}
		return result, nil
	}
	return result, v.account(e, r.Cost, &result)
}

// account spends and counts a call that has passed every other check, and fills
// in what is left.
func (v *Verifier) account(e *entry, cost int, result *apikey.Verification) error {
	limit := e.key.RateLimit
	limited := limit != (apikey.RateLimit{})
	switch {
	case result.Code != "":
	case cost < 0:
		return apikey.InvalidField("cost", "must not be negative")
	case limited && cost > limit.Requests:
		return apikey.InvalidField("cost", "must not be above the key's rate limit of %d requests", limit.Requests)
	}
	st := v.states.lock(e.state)
	defer st.mu.Unlock()
	if limited {
		now := v.micros(result.At)
		st.bucket.drain(limit, now)
		if result.Code == "" {
			if result.RetryAfter = st.bucket.take(cost, now); result.RetryAfter > 0 {
				result.Code = apikey.CodeRateLimited
			}
		}
		remaining, full := st.bucket.left(now)
		result.Limit = apikey.LimitStatus{Limit: limit.Requests, Remaining: remaining, ResetAt: result.At.Add(full)}
	}
	result.Usage = st.usage
	if result.Code == "" {
		result.Code = apikey.CodeValid
		result.Usage = v.states.countLocked(st, result.At)
	}
	return nil
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
// returns: after a clean stop they are exact.
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
			v.states.sweep(v.micros(v.now()))
		case <-ctx.Done():
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
