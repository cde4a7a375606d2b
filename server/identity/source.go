package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/outage"
)

// How keys that are fetched grow old.
const (
	// freshFor is how long a key set is used before it is fetched anew beside its use: a
	// key that the issuer has withdrawn works no longer than twice that, and a fetch, more,
	// as long as the issuer can be reached.
	freshFor = 5 * time.Minute
	// idleFor is how old a key set is that was not in use for so long that nobody had it
	// fetched: who calls then waits for the fetch, or the withdrawn key would work once more.
	idleFor = 2 * freshFor
	// usableFor is how long a key set is used at most, however often a fetch fails.
	usableFor = time.Hour
	// fetchPause is how long after a fetch the next one begins at the earliest. It is what
	// tokens with invented key ids cost an issuer.
	fetchPause = 10 * time.Second
)

// ErrUnavailable is the answer for a token that cannot be checked, since the keys of its
// issuer are not to be had.
var ErrUnavailable = &apikey.Error{
	Kind: apikey.KindUnavailable, Reason: apikey.ReasonUnavailable, RetryAfter: fetchPause,
	Message: "The access token cannot be checked now, since the keys of its issuer are not to be had; try again.",
}

// keySource has the keys of an issuer.
type keySource struct {
	issuer   *Issuer
	client   *http.Client
	now      func() time.Time
	outage   *outage.Outage
	observed *observations
	// start runs a fetch, beside the call that asks for it.
	start func(fetch func(context.Context))

	mu    sync.Mutex
	place string    // of the keys, once it was discovered
	set   *keySet   // nil before the first
	read  time.Time // when the fetch of set began
	tried time.Time // when the latest fetch began
	// failed says that the latest fetch that is over brought no keys.
	failed   bool
	fetching chan struct{} // closed when the fetch that is under way is over; else nil
}

func newKeySource(i *Issuer, c Config, observed *observations, start func(func(context.Context))) *keySource {
	log := c.Logger.With("issuer", i.URL)
	return &keySource{issuer: i, client: c.Client, now: c.Now, start: start, observed: observed, outage: outage.New(log,
		"The keys of an OpenID Connect issuer could not be fetched; while none are known that are less than an hour old, its tokens are answered with UNAVAILABLE.",
		"The keys of an OpenID Connect issuer are fetched again.")}
}

// load reads the keys from the issuer's file.
func (s *keySource) load() error {
	set, err := readKeyFile(s.issuer.JWKSFile)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(set)
	return nil
}

// keep takes a key set, which is another one only where its text is. s.mu is held.
func (s *keySource) keep(set *keySet) {
	if s.set == nil || s.set.sum != set.sum {
		s.set = set
	}
}

// current returns the key set that tokens are checked with now; nil where there is none.
func (s *keySource) current() *keySet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.usable(s.now()) {
		return nil
	}
	return s.set
}

// failing reports whether the last fetch has failed.
func (s *keySource) failing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// usable reports whether tokens may be checked with the key set. s.mu is held.
func (s *keySource) usable(now time.Time) bool {
	return s.set != nil && (s.issuer.JWKSFile != "" || now.Sub(s.read) < usableFor && !now.Before(s.read))
}

// find returns the key that a header names, and the set that it is of. It waits for a
// fetch where the key is not known yet.
func (s *keySource) find(ctx context.Context, h header) (*jose.JSONWebKey, *keySet, error) {
	for fetched := false; ; {
		key, set, wait, err := s.look(h, fetched)
		if wait == nil {
			return key, set, err
		}
		select {
		case <-wait:
			fetched = true
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// look returns the key that a header names, or what to wait for before looking again.
// fetched says that this was waited for.
func (s *keySource) look(h header, fetched bool) (key *jose.JSONWebKey, set *keySet, wait <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.usable(now) {
		if key, ok := s.set.find(h); ok {
			if age := now.Sub(s.read); s.issuer.JWKSFile == "" && age >= freshFor {
				s.fetch(now) // Whoever calls does not wait for it, but for keys of long ago.
				if age >= idleFor && !s.failed && !fetched && s.fetching != nil {
					return nil, nil, s.fetching, nil
				}
			}
			return key, s.set, nil, nil
		}
	}
	if s.issuer.JWKSFile == "" && !fetched {
		if s.fetch(now); s.fetching != nil {
			return nil, nil, s.fetching, nil
		}
	}
	if !s.usable(now) || s.failed {
		return nil, nil, nil, fmt.Errorf("%w (of %s)", ErrUnavailable, s.issuer.URL)
	}
	return nil, nil, nil, refuse("the issuer has no one key for the key id %q and %s", apikey.Excerpt(h.keyID), apikey.Excerpt(h.algorithm))
}

// fetch begins a fetch, unless one is under way, or was a moment ago. s.mu is held.
func (s *keySource) fetch(now time.Time) {
	if s.fetching != nil || !s.tried.IsZero() && now.Sub(s.tried) < fetchPause && !now.Before(s.tried) {
		return
	}
	done := make(chan struct{})
	s.tried, s.fetching = now, done
	place := s.place
	if s.failed {
		place = "" // The keys may have moved.
	}
	s.start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		set, place, err := s.fetched(ctx, place)
		if !errors.Is(ctx.Err(), context.Canceled) { // else the server stops
			s.outage.Note(err)
			s.observed.fetch(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = err != nil
		if err == nil {
			s.keep(set)
			s.read, s.place = now, place
		}
		s.fetching = nil
		close(done)
	})
}

// fetched returns the keys of the issuer and their place, which is discovered where it is
// not known.
func (s *keySource) fetched(ctx context.Context, place string) (set *keySet, at string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if place == "" {
		if place, err = discover(ctx, s.client, s.issuer.URL); err != nil {
			return nil, "", err
		}
	}
	set, err = fetchKeySet(ctx, s.client, place)
	return set, place, err
}
