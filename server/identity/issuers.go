package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// rememberFor is how long a token whose signature was good is not checked again.
const rememberFor = time.Minute

// checkTimeout bounds how long a token waits until its signature is checked.
const checkTimeout = 2 * time.Second

// errBusy is the answer for a token that has waited too long.
var errBusy = apikey.Errorf(apikey.KindUnavailable, apikey.ReasonUnavailable,
	"The access token cannot be checked now, since too many others are; try again.")

// Config says what Issuers work with.
type Config struct {
	// Issuers are those whose tokens are taken, as [Check] finds them in order.
	Issuers []Issuer
	// Catalogue are the scopes that keys can have.
	Catalogue []string
	// Secrets finds secrets in claims. Nil knows those alone that have a form.
	Secrets *apikey.SecretFinder
	// Size is how many tokens are remembered. Defaults to 10,000.
	Size int
	// Client fetches keys. Defaults to one that is bounded in time and size.
	Client *http.Client
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
	// Logger hears of keys that cannot be fetched. Defaults to slog.Default.
	Logger *slog.Logger
}

// Issuers checks the tokens of the issuers that a server is told of. A nil *Issuers has
// none, and no token is good.
type Issuers struct {
	issuers map[string]*issuer // by URL
	size    int
	now     func() time.Time
	// slots bound the signatures that are checked at a time, so that a flood of forged
	// tokens leaves time for other calls.
	slots    chan struct{}
	observed *observations

	fetching   sync.WaitGroup
	background context.Context // ends with Run
	stop       context.CancelFunc

	mu         sync.RWMutex
	remembered map[[sha256.Size]byte]*verdict
}

// issuer is an issuer with its keys.
type issuer struct {
	Issuer
	keys     *keySource
	verifier oidc.Config
	meaning  mapping
}

// verdict is what a token that its issuer has signed came to. It is immutable.
type verdict struct {
	person *Person
	err    error // of one that means nothing here
	issuer *issuer
	keys   *keySet // that it was checked with
	from   time.Time
	until  time.Time
}

// New returns Issuers, or says which file of keys cannot be read. It fetches nothing.
func New(c Config) (*Issuers, error) {
	if c.Size == 0 {
		c.Size = 10_000
	}
	if c.Client == nil {
		c.Client = newClient()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	all := &Issuers{
		issuers: make(map[string]*issuer), size: c.Size, now: c.Now,
		slots:      make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		observed:   newObservations(),
		remembered: make(map[[sha256.Size]byte]*verdict),
	}
	all.background, all.stop = context.WithCancel(context.Background())
	for n, configured := range c.Issuers {
		i := &issuer{Issuer: configured.withDefaults()}
		i.keys = newKeySource(&i.Issuer, c, all.observed, all.start)
		i.verifier = oidc.Config{SupportedSigningAlgs: i.Algorithms, SkipClientIDCheck: true, SkipExpiryCheck: true} // Both are checked here.
		i.meaning = mapping{&i.Issuer, c.Catalogue, c.Secrets}
		if i.JWKSFile != "" {
			if err := i.keys.load(); err != nil {
				return nil, fmt.Errorf("oidc[%d].jwks_file: %w", n, err)
			}
		}
		all.issuers[i.URL] = i
	}
	return all, nil
}

// start runs a fetch in the background.
func (all *Issuers) start(fetch func(context.Context)) {
	all.fetching.Go(func() { fetch(all.background) })
}

// Run returns when ctx has ended and no fetch is under way any more.
func (all *Issuers) Run(ctx context.Context) error {
	if all == nil {
		return nil
	}
	<-ctx.Done()
	all.stop()
	all.fetching.Wait()
	return nil
}

// Reload reads the files of keys anew. One that cannot be read leaves the keys as they
// were, and is an error.
func (all *Issuers) Reload() error {
	if all == nil {
		return nil
	}
	var faults []error
	for _, i := range all.issuers {
		if i.JWKSFile != "" {
			if err := i.keys.load(); err != nil {
				faults = append(faults, err)
			}
		}
	}
	return errors.Join(faults...)
}

// Find returns whoever has a token. Its errors are of the kinds Unauthenticated, for a
// token that proves nothing; PermissionDenied, for one that is good for nothing here; and
// Unavailable, for one that cannot be checked now.
func (all *Issuers) Find(ctx context.Context, text string) (*Person, error) {
	if all == nil {
		return nil, refuse("no issuer of tokens is configured")
	}
	if len(text) > MaxToken {
		err := refuse("the token has %d bytes, more than %d", len(text), MaxToken)
		all.observed.token(Refused, err)
		return nil, err
	}
	sum := sha256.Sum256([]byte(text))
	if v := all.lookUp(sum); v != nil {
		all.observed.token(Remembered, v.err)
		return v.person, v.err
	}
	p, err := all.verify(ctx, text, sum)
	all.observed.token(Checked, err)
	return p, err
}

// verify returns whoever has a token that is not remembered.
func (all *Issuers) verify(ctx context.Context, text string, sum [sha256.Size]byte) (*Person, error) {
	t, err := parse(text)
	if err != nil {
		return nil, err
	}
	i, subject, until, err := all.check(t)
	if err != nil {
		return nil, err
	}
	key, keys, err := i.keys.find(ctx, t.header)
	if err != nil {
		return nil, err
	}
	if err := all.acquire(ctx); err != nil {
		return nil, err
	}
	defer func() { <-all.slots }()
	if v := all.lookUp(sum); v != nil { // Somebody has checked it meanwhile.
		return v.person, v.err
	}
	if _, err := oidc.NewVerifier(i.URL, oneKey{key, t.header.algorithm}, &i.verifier).Verify(ctx, text); err != nil {
		return nil, refuse("the signature of the token is not the issuer's: %v", brief(err))
	}
	now := all.now()
	v := &verdict{issuer: i, keys: keys, from: now, until: now.Add(rememberFor)}
	if until.Before(v.until) {
		v.until = until
	}
	v.person, v.err = i.meaning.person(t.claims, subject, until)
	all.remember(sum, v)
	return v.person, v.err
}

// acquire waits for a slot, which its caller gives back.
func (all *Issuers) acquire(ctx context.Context) error {
	select {
	case all.slots <- struct{}{}:
		return nil
	default:
	}
	limit := time.NewTimer(checkTimeout)
	defer limit.Stop()
	select {
	case all.slots <- struct{}{}:
		return nil
	case <-limit.C:
		return errBusy
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Meant reports whether a text of the characters of tokens has a token of one of the
// issuers for this server, whether it is good or not: claims, and something behind them.
// Where the token ends, cannot be told.
func (all *Issuers) Meant(text string) bool {
	ours := false
	for part := range strings.SplitSeq(text, ".") {
		if ours && part != "" {
			return true
		}
		// All that begin with a brace begin like this in base64url.
		if ours = false; len(part) > MaxToken || !strings.HasPrefix(part, "e") {
			continue
		}
		if c, err := object(part); err == nil {
			name, err := c.text("iss")
			i := all.issuers[name]
			ours = err == nil && i != nil && i.checkAudience(c) == nil
		}
	}
	return false
}

// check checks all of a token but its signature.
func (all *Issuers) check(t *token) (i *issuer, subject string, until time.Time, err error) {
	name, err := t.claims.text("iss")
	if err != nil {
		return nil, "", time.Time{}, refuse("%v", err)
	}
	i = all.issuers[name]
	if i == nil {
		return nil, "", time.Time{}, refuse("the issuer of the token is not configured: %q", apikey.Excerpt(name))
	}
	if err := i.checkHeader(t.header); err != nil {
		return nil, "", time.Time{}, err
	}
	subject, until, err = i.checkClaims(t.claims, all.now())
	return i, subject, until, err
}

// lookUp returns what a token came to a moment ago; nil where it must be checked.
func (all *Issuers) lookUp(sum [sha256.Size]byte) *verdict {
	all.mu.RLock()
	v := all.remembered[sum]
	all.mu.RUnlock()
	if v == nil {
		return nil
	}
	if now := all.now(); now.Before(v.from) || !now.Before(v.until) || v.issuer.keys.current() != v.keys {
		return nil
	}
	return v
}

// remember keeps what a token came to.
func (all *Issuers) remember(sum [sha256.Size]byte, v *verdict) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for other := range all.remembered {
		if len(all.remembered) < all.size {
			break
		}
		delete(all.remembered, other)
	}
	all.remembered[sum] = v
}
