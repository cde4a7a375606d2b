package verify

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/meter"
)

// KeyStore is where keys are stored.
type KeyStore interface {
	// KeysBySecret returns the keys that have one of hashes as their current or
	// previous secret, in any order, and the position of the log at which they were
	// read, or an earlier one. Hashes of no key are passed over.
	KeysBySecret(ctx context.Context, hashes []apikey.Hash) ([]apikey.Key, int64, error)
}

// Config says what a Verifier works with.
type Config struct {
	// Keys is required.
	Keys KeyStore
	// Meter charges and counts what is verified. Required.
	Meter *meter.Meter
	// Peppers is required.
	Peppers *keyring.Peppers
	// Encode makes what an answer says of a key that stays while the key does not
	// change. It is made once, kept with the key, and handed out as the Encoded of a
	// verification. Defaults to none.
	Encode func(*apikey.Key) string
	// CacheSize is how many secrets are kept in memory. Defaults to 200,000.
	CacheSize int
	// Loads is how many reads of keys run at a time. Defaults to 2.
	Loads int
	// Observations is told of each verification. Defaults to nil, which is nobody.
	Observations *Observations
	// Clock is that of the log which several servers write; Now is then its time. What is
	// in memory is used while the log has been read lately, and storage is asked for the
	// rest. Defaults to none: only this process changes keys.
	Clock *feed.Clock
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

// Verifier decides whether secrets are good. Its methods are safe for concurrent
// use.
type Verifier struct {
	peppers      *keyring.Peppers
	meter        *meter.Meter
	cache        *cache
	clock        *feed.Clock // nil where only this process changes keys
	now          func() time.Time
	observations *Observations
}

// New returns a Verifier.
func New(c Config) (*Verifier, error) {
	if c.Clock != nil {
		c.Now = c.Clock.Now
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.CacheSize == 0 {
		c.CacheSize = 200_000
	}
	if c.Loads == 0 {
		c.Loads = 2
	}
	cache, err := newCache(&c)
	if err != nil {
		return nil, fmt.Errorf("make the key cache: %w", err)
	}
	return &Verifier{peppers: c.Peppers, meter: c.Meter, cache: cache, clock: c.Clock, now: c.Now, observations: c.Observations}, nil
}

// Request is what is asked of a secret.
type Request struct {
	// Secret is the text that was presented; anything is taken, and what
	// [apikey.BareSecret] takes off is taken off.
	Secret string
	// Organization confines the answer to keys of one; empty means any, or Among.
	Organization string
	// Among confines the answer to keys of some organizations; nil does not.
	Among []string
	// Scopes must all be held by the key.
	Scopes []string
	// Addr is where the secret came from; the zero Addr is unknown.
	Addr netip.Addr
	// UserAgent is the program that it came from, empty for an unknown one. It is for
	// the record.
	UserAgent string
	// Caller is whoever asks, for the record. Required.
	Caller *apikey.Actor
	// Cost is what the call takes of the key's rate limit and quota. Zero checks
	// everything, spends nothing and counts nothing.
	Cost int
	// Way is how the secret came, for whoever observes; of a batch it does not matter.
	Way Way
}

// Credential is the key that a call on this server is made with.
type Credential struct {
	// Secret is the text that was presented; anything is taken.
	Secret string
	// Organization is the one that the call names; empty for none.
	Organization string
	// Scopes are what the call needs.
	Scopes []string
	// Addr is where the call came from; the zero Addr is unknown.
	Addr netip.Addr
	// UserAgent is the program that it came from, empty for an unknown one.
	UserAgent string
}

// operation is on whose behalf a secret is checked.
type operation int8

const (
	verification   operation = iota // somebody asks about a secret
	batched                         // the same, in a batch
	authentication                  // somebody calls with it
)

// request is what an operation asks of a secret. It and the result are handed down by
// reference: copying them would be a fifth of a verification.
type request struct {
	apikey.CheckRequest
	cost      int
	operation operation
	way       Way
}

func (r *Request) as(o operation) request {
	return request{apikey.CheckRequest{Secret: apikey.BareSecret(r.Secret), Organization: r.Organization, Among: r.Among, Scopes: r.Scopes, Addr: r.Addr, UserAgent: r.UserAgent, Caller: r.Caller}, r.Cost, o, r.Way}
}

// Verify decides about a secret that somebody else has presented to the caller. A
// refusal is not an error, and spends nothing. An error is one of the storage, of
// the kind KindUnavailable, or a cost that the key's limits can never meet.
func (v *Verifier) Verify(ctx context.Context, r Request) (result apikey.Verification, err error) {
	if r.Cost < 0 {
		return result, apikey.InvalidField("cost", "must not be negative")
	}
	asked := r.as(verification)
	err = v.decide(ctx, &asked, &result)
	return result, err
}

// Authenticate decides about the key that a call on this server is made with, and
// charges it a cost of one. A key of another organization than the one that the call
// names is refused as such, after its state. What is no key is counted for nobody.
func (v *Verifier) Authenticate(ctx context.Context, c Credential) (result apikey.Verification, err error) {
	asked := c.request(1)
	err = v.decide(ctx, &asked, &result)
	return result, err
}

// Recheck decides about a credential that was authenticated once, for a call that
// is still under way. It spends and counts nothing, and no limit refuses it.
func (v *Verifier) Recheck(ctx context.Context, c Credential) (result apikey.Verification, err error) {
	e, at, err := v.lookUp(ctx, c.Secret)
	if err == nil {
		asked := c.request(0)
		v.check(e, at, &asked, &result)
	}
	return result, err
}

// Inspect tells whether a secret that somebody else has presented is one that works, of an
// active key. It looks at no address, scope or limit, and spends and counts nothing.
func (v *Verifier) Inspect(ctx context.Context, r Request) (result apikey.Verification, err error) {
	asked := r.as(verification)
	e, at, err := v.lookUp(ctx, asked.Secret)
	if err != nil {
		return result, err
	}
	var key *apikey.Key
	if e != nil {
		key, asked.Previous, result.Previous = &e.key, e.previous, e.previous
	}
	result.At = at
	if result.Code = apikey.CheckActive(key, &asked.CheckRequest, at); result.Code.Found() {
		result.Key = key
	}
	return result, nil
}

func (c *Credential) request(cost int) request {
	return request{apikey.CheckRequest{Secret: c.Secret, Organization: c.Organization, Scopes: c.Scopes, Addr: c.Addr, UserAgent: c.UserAgent}, cost, authentication, WayCredential}
}

// decide is what all operations have in common: look the secret up, check the key
// and charge it. Where units of its quota have to be fetched first, it waits for
// them and begins again.
func (v *Verifier) decide(ctx context.Context, r *request, result *apikey.Verification) (err error) {
	seen := v.observations.begin()
	e, at, ok := v.remembered(r.Secret)
	if !ok {
		seen.wait()
		e, at, err = v.load(ctx, r.Secret)
	}
	if err == nil {
		var ticket meter.Ticket
		if ticket, err = v.checkAndCharge(e, at, r, result); ticket.Pending() {
			seen.wait()
			err = v.decideAfter(ctx, r, ticket, result)
		}
	}
	seen.end(r.way, result.Code, err)
	return err
}

// lookUp returns the entry of a secret, from memory or else from storage; nil where
// there is none. The time is read after the entry: a key that expired while it was
// being read has expired.
func (v *Verifier) lookUp(ctx context.Context, secret string) (*entry, time.Time, error) {
	if e, at, ok := v.remembered(secret); ok {
		return e, at, nil
	}
	return v.load(ctx, secret)
}

// load returns the entry of a secret from storage, and the time after that.
func (v *Verifier) load(ctx context.Context, secret string) (*entry, time.Time, error) {
	entries, err := v.cache.load(ctx, v.peppers.Hashes(secret))
	if err != nil {
		return nil, time.Time{}, unavailable(ctx, err)
	}
	return entries[0], v.now(), nil
}

// remembered is cached for entries that are good: false too where the log has not been
// read lately. The reading comes before the look into memory: what a later reading told
// of may have been dropped after that look.
func (v *Verifier) remembered(secret string) (*entry, time.Time, bool) {
	reading := v.reading()
	e, ok := v.cached(secret)
	if !ok {
		return nil, time.Time{}, false
	}
	at, fresh := v.freshness(reading)
	return e, at, fresh || e == nil
}

// reading returns what freshness is to be asked about.
func (v *Verifier) reading() *feed.Reading {
	if v.clock == nil {
		return nil
	}
	return v.clock.Newest()
}

// freshness returns the time, and whether what was found in memory since reading was
// taken is good.
func (v *Verifier) freshness(reading *feed.Reading) (at time.Time, fresh bool) {
	if reading != nil {
		return reading.Now()
	}
	return v.now(), v.clock == nil
}

// cached returns the entry of a secret from memory; false where it has to be
// loaded. Junk has no entry, and need not be loaded.
func (v *Verifier) cached(secret string) (*entry, bool) {
	if !apikey.MayBeSecret(secret) {
		return nil, true
	}
	for i := range v.peppers.Len() {
		if e, ok := v.cache.entries.GetIfPresent(v.peppers.Hash(i, secret)); ok {
			return e, true
		}
	}
	// Only here, since what is cached was well-formed: a warm call is spared the
	// checksum, and junk costs a hash but never a read.
	return nil, !apikey.IsSecret(secret)
}

// check runs the checks that spend nothing on a secret that finds e, or nil, at a time,
// and leaves what came of it in result, which is the zero Verification. The code is valid
// where all have passed.
func (v *Verifier) check(e *entry, at time.Time, r *request, result *apikey.Verification) {
	var key *apikey.Key
	if e != nil {
		key, r.Previous = &e.key, e.previous
	}
	result.At = at
	if r.operation == authentication {
		result.Code = apikey.CheckCaller(key, &r.CheckRequest, result.At)
	} else {
		result.Code = apikey.Check(key, &r.CheckRequest, result.At)
	}
	if result.Code.Found() {
		result.Key, result.Encoded, result.Previous = key, e.encoded, e.previous
	}
}

// checkAndCharge checks a secret that finds e, or nil, and charges the key. It has
// done nothing where the ticket is pending.
func (v *Verifier) checkAndCharge(e *entry, at time.Time, r *request, result *apikey.Verification) (meter.Ticket, error) {
	v.check(e, at, r, result)
	if result.Key == nil {
		if r.operation != authentication && r.Organization != "" && r.cost > 0 {
			v.meter.CountUnknown(r.Organization, result.Code, result.At)
		}
		// Whoever asked is told of no key, but its owner is told of the call: a secret that
		// a rotation has ended is still in use. Of what other organizations ask nobody is.
		if e != nil && r.cost > 0 && (r.operation == authentication || e.key.InReach(&r.CheckRequest)) {
			v.meter.Refuse(e.counters, &e.key, &r.CheckRequest, result.Code, result.At)
		}
		return meter.Ticket{}, nil
	}
	if result.Code == apikey.CodeValid {
		var err error
		if result.Code, err = result.Key.CheckCost(r.cost); err != nil && r.operation != batched {
			return meter.Ticket{}, err
		}
	}
	return v.meter.Charge(e.counters, r.cost, &r.CheckRequest, result), nil
}

// RefusePrevious puts on record that a call which needs the current secret of a key was
// made with its previous one.
func (v *Verifier) RefusePrevious(key apikey.Actor, c Credential) {
	v.meter.RefusePrevious(key, &apikey.CheckRequest{Addr: c.Addr, UserAgent: c.UserAgent}, v.now())
}

// decideAfter decides about a secret once its ticket has been answered, and waits for more tickets if it takes them. Each time it begins with a
// new look at the clock and the cache: it has waited for a disk. What was reserved
// for a call that spends nothing in the end is given back.
func (v *Verifier) decideAfter(ctx context.Context, r *request, ticket meter.Ticket, result *apikey.Verification) (err error) {
	id, reserved := ticket.KeyID(), false
	for ticket.Pending() && err == nil {
		if err = v.await(ctx, id, ticket); err != nil {
			break
		}
		reserved = reserved || ticket.Units() > 0
		*result = apikey.Verification{}
		var e *entry
		var at time.Time
		if e, at, err = v.lookUp(ctx, r.Secret); err == nil {
			ticket, err = v.checkAndCharge(e, at, r, result)
		}
	}
	if reserved && (err != nil || result.Code != apikey.CodeValid) {
		v.meter.Refund(map[string]int64{id: int64(r.cost)})
	}
	return err
}

// await waits until units of the quota of a key have been asked for.
func (v *Verifier) await(ctx context.Context, id string, ticket meter.Ticket) error {
	stale, err := v.meter.Wait(ctx, ticket)
	if stale {
		v.cache.drop([]string{id}, 0)
	}
	if err != nil {
		return unavailable(ctx, err)
	}
	return nil
}

// Drop drops what is cached of the keys with these ids. Whoever changed them calls
// it after the commit, whose position in the log it gives, and before anyone is told
// that the change was made; whoever follows the log calls it for each change that it
// reads.
func (v *Verifier) Drop(ids []string, position int64) { v.cache.drop(ids, position) }

// DropAll drops everything that is cached, and keeps nothing of the reads under way. It
// is for whoever follows the log and has missed a part of it.
func (v *Verifier) DropAll() { v.cache.dropAll() }

// errUnavailable is what callers are told where storage fails.
var errUnavailable = apikey.Errorf(apikey.KindUnavailable, apikey.ReasonUnavailable, "The key could not be checked; try again.")

// unavailable returns what a caller with ctx is told of an error of storage, with
// the cause for the log. One who has gone hears of that alone.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", errUnavailable, err)
}
