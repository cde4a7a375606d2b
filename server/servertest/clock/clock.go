// Package clock is the one clock that tests set by hand. It imports the standard
// library alone, so that the tests of every package can use it, those of the lowest
// too. Code under test takes the time from a field, and a test gives it Now:
//
//	c := clock.At(clock.Noon)
//	v := verify.New(verify.Config{Now: c.Now})
//	c.Advance(time.Hour)
//
// What waits for a timer is tested in a bubble of testing/synctest, not with this
// clock: Advance wakes nobody.
package clock

import (
	"sync"
	"time"
)

// Noon is where a test starts the clock when the date does not matter: a month's
// first day in UTC.
var Noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Clock tells a time that stands still until the test moves it. It may be used by
// many goroutines at once.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// At returns a clock that stands at now, in now's own zone.
func At(now time.Time) *Clock { return &Clock{now: now} }

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d, backwards where d is negative, as a clock that is
// set anew may go.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Set moves the clock to a time.
func (c *Clock) Set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}
