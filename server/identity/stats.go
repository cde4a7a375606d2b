package identity

import (
	"math/rand/v2"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/measure"
)

// Result is what a token came to.
type Result int

// The results.
const (
	Remembered  Result = iota // good, and not checked again
	Checked                   // good, and its signature was checked
	Meaningless               // genuine, and good for nothing here
	Refused                   // it proves nothing
	Unavailable               // it could not be checked
	results
)

// Results lists the results.
func Results() []Result { return []Result{Remembered, Checked, Meaningless, Refused, Unavailable} }

// String returns the name of r in metrics.
func (r Result) String() string {
	return [...]string{"remembered", "checked", "meaningless", "refused", "unavailable"}[r]
}

// Stats are counts of what Issuers have done since they were made.
type Stats struct {
	// Tokens are how many tokens came to each result.
	Tokens [results]uint64
	// Fetches are how many times keys were fetched, and Failures how many of these failed.
	Fetches, Failures uint64
	// Failing is how many issuers there are now whose last fetch failed.
	Failing int
}

// observations counts tokens and fetches.
type observations struct {
	tokens  *measure.Counters // by Result
	fetches *measure.Counters // all, failed
}

func newObservations() *observations {
	return &observations{measure.NewCounters(int(results)), measure.NewCounters(2)}
}

// token counts a token that came to err.
func (o *observations) token(good Result, err error) {
	if err != nil {
		known := apikey.AsError(err)
		switch {
		case known == nil:
			return // The call was given up.
		case known.Kind == apikey.KindUnauthenticated:
			good = Refused
		case known.Kind == apikey.KindPermissionDenied:
			good = Meaningless
		default:
			good = Unavailable
		}
	}
	o.tokens.Add(int(good), 1, rand.Uint32()) //nolint:gosec // It spreads counts.
}

func (o *observations) fetch(err error) {
	o.fetches.Add(0, 1, 0)
	if err != nil {
		o.fetches.Add(1, 1, 0)
	}
}

// Stats returns what all has done. A nil *Issuers has done nothing.
func (all *Issuers) Stats() (s Stats) {
	if all == nil {
		return s
	}
	for _, r := range Results() {
		s.Tokens[r] = all.observed.tokens.Value(int(r))
	}
	s.Fetches, s.Failures = all.observed.fetches.Value(0), all.observed.fetches.Value(1)
	for _, i := range all.issuers {
		if i.keys.failing() {
			s.Failing++
		}
	}
	return s
}
