package authn

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/operator"
	"github.com/apikeys-dev/apikeys/server/outage"
)

// TokenStore is where the access tokens of operators are stored.
type TokenStore interface {
	// TokensBySecret returns the tokens that have one of hashes as their current or
	// previous secret, in any order.
	TokensBySecret(ctx context.Context, hashes []apikey.Hash) ([]operator.Token, error)
	// RecordTokenUses stores the latest use of tokens, by their ids. Tokens that are
	// gone are passed over.
	RecordTokenUses(ctx context.Context, uses map[string]operator.Use) error
}

// TokensConfig says what Tokens work with.
type TokensConfig struct {
	// Store is required.
	Store TokenStore
	// Peppers hash secrets. Required.
	Peppers *keyring.Peppers
	// Size is how many secrets are kept in memory. Defaults to 10,000.
	Size int
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
	// Logger hears of uses that could not be stored. Defaults to slog.Default.
	Logger *slog.Logger
}

// tokenTTL is how long a token is served from memory: a change by another server is
// seen within it. The changes of this server are seen at once: see [Tokens.Drop].
const tokenTTL = 500 * time.Millisecond

// tokenLoads is how many tokens are read at a time, so that a flood of secrets that
// nobody has starves no one.
const tokenLoads = 2

// useInterval is how often the uses of tokens are stored, and how far what is stored may
// be behind.
const useInterval = time.Second

// Tokens knows the access tokens of operators by their secrets, and when each was used.
// Nothing is remembered of a secret that nobody has.
//
// mu guards everything but the entries themselves, which are immutable; it is never held
// during a read of the store.
type Tokens struct {
	store   TokenStore
	peppers *keyring.Peppers
	size    int
	now     func() time.Time
	outage  *outage.Outage
	slots   chan struct{} // of those who read the store

	mu      sync.RWMutex
	entries map[apikey.Hash]*tokenEntry
	// drops counts the calls of Drop: what was read before one is not kept after it.
	drops int64
	uses  map[string]operator.Use // not yet stored
}

// tokenEntry is a token under the hash of one of its secrets, as it was at a time.
type tokenEntry struct {
	token    operator.Token
	previous bool
	read     time.Time
	used     atomic.Pointer[operator.Use] // the latest that was noted
}

// NewTokens returns Tokens. It starts nothing: Run stores the uses.
func NewTokens(c TokensConfig) *Tokens {
	if c.Size == 0 {
		c.Size = 10_000
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Tokens{
		store: c.Store, peppers: c.Peppers, size: c.Size, now: c.Now,
		outage: outage.New(c.Logger, "The latest uses of operator tokens could not be stored; it is tried again.", "The uses of operator tokens are stored again."),
		slots:  make(chan struct{}, tokenLoads), entries: make(map[apikey.Hash]*tokenEntry), uses: make(map[string]operator.Use),
	}
}

// Drop forgets the tokens with these ids. Whoever changed them calls it after the commit
// and before anyone is told that the change was made; whoever follows the log calls it
// for each change that it reads.
func (t *Tokens) Drop(ids []string) {
	if len(ids) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drops++
	for h, e := range t.entries {
		for _, id := range ids {
			if e.token.ID == id {
				delete(t.entries, h)
			}
		}
	}
}

// find returns the entry of a secret, nil where it is no token's.
func (t *Tokens) find(ctx context.Context, secret string) (*tokenEntry, error) {
	if !apikey.IsToken(secret) {
		return nil, nil
	}
	hashes := t.peppers.Hashes(secret)
	if e := t.cached(hashes); e != nil {
		return e, nil
	}
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if e := t.cached(hashes); e != nil { // Somebody has read it meanwhile.
		return e, nil
	}
	t.mu.RLock()
	drops := t.drops
	t.mu.RUnlock()
	read := t.now()
	found, err := t.store.TokensBySecret(ctx, hashes)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", errTokenUnavailable, err)
	}
	for i := range found {
		for _, h := range hashes {
			previous := found[i].Previous.Mask != "" && found[i].Previous.Hash == h
			if previous || found[i].Secret.Hash == h {
				e := &tokenEntry{token: found[i], previous: previous, read: read}
				t.keep(h, e, drops)
				return e, nil
			}
		}
	}
	return nil, nil
}

var errTokenUnavailable = apikey.Errorf(apikey.KindUnavailable, apikey.ReasonUnavailable, "The access token could not be checked; try again.")

// cached returns the entry that is in memory under one of hashes, nil where it must be
// read.
func (t *Tokens) cached(hashes []apikey.Hash) *tokenEntry {
	now := t.now()
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, h := range hashes {
		if e := t.entries[h]; e != nil && now.Sub(e.read) < tokenTTL && !now.Before(e.read) {
			return e
		}
	}
	return nil
}

// keep keeps an entry, unless there was a drop since so many of them: the entry may have
// been read before the change that it was for.
func (t *Tokens) keep(h apikey.Hash, e *tokenEntry, drops int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drops != drops {
		return
	}
	for other := range t.entries {
		if len(t.entries) < t.size {
			break
		}
		delete(t.entries, other)
	}
	t.entries[h] = e
}

// note notes that the token of an entry is used at a time from an address. Uses of the
// same second from the same address are one.
func (t *Tokens) note(e *tokenEntry, at time.Time, addr netip.Addr) {
	if u := e.used.Load(); u != nil && u.Addr == addr && at.Sub(u.At) < time.Second && !at.Before(u.At) {
		return
	}
	use := operator.Use{At: apikey.StoredTime(at), Addr: addr}
	e.used.Store(&use)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.uses[e.token.ID] = use
}

// Run stores the uses of tokens until ctx ends, and once more then.
func (t *Tokens) Run(ctx context.Context) error {
	tick := time.NewTicker(useInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			t.outage.Note(t.Flush(ctx))
			return nil
		case <-tick.C:
			if err := t.Flush(ctx); ctx.Err() == nil {
				t.outage.Note(err)
			}
		}
	}
}

// Flush stores the uses that are not stored yet.
func (t *Tokens) Flush(ctx context.Context) error {
	t.mu.Lock()
	uses := t.uses
	t.uses = make(map[string]operator.Use)
	t.mu.Unlock()
	if len(uses) == 0 {
		return nil
	}
	err := t.store.RecordTokenUses(ctx, uses)
	if err == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, use := range uses {
		if _, newer := t.uses[id]; !newer {
			t.uses[id] = use
		}
	}
	return err
}
