package verify

import (
	"math/bits"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// bucket is the generic cell rate algorithm (ITU-T I.371) in integers: debt is
// what was spent and has not been refilled. One request costs as many units as
// the window has microseconds and a microsecond refills as many units as the
// window has requests, so neither is ever rounded. With the largest limits a
// full debt is below 2^57, and one request more than fits below 2^58.
type bucket struct {
	limit apikey.RateLimit // that debt is measured by
	debt  int64
	at    int64 // microseconds on the clock of its Verifier, of debt
}

// stepBack is how far a reading of the clock may lie before the last and still
// be of the same clock: calls read it and then wait for each other, so readings
// come out of order. Moving back with each of those would refill the time between
// them twice. A reading from before that is of a clock that was set back, and
// waiting for it to catch up would shut the limit for as long.
const stepBack = int64(time.Minute / time.Microsecond)

// drain brings the debt to now and to limit.
func (b *bucket) drain(limit apikey.RateLimit, now int64) {
	if b.limit == (apikey.RateLimit{}) {
		b.limit = limit
	}
	switch elapsed := now - b.at; {
	case elapsed > 0:
		b.debt = max(b.debt-min(elapsed, b.cost())*int64(b.limit.Requests), 0)
		b.at = now
	case elapsed < -stepBack:
		b.at = now
	}
	if b.limit != limit {
		b.convert(limit)
	}
}

// convert measures the debt by another limit: requests that were spent stay
// spent, so that a change of the window gives no second burst; but no more of
// them than the new limit holds, so that a narrower one is not owed for longer
// than its window.
func (b *bucket) convert(limit apikey.RateLimit) {
	high, low := bits.Mul64(uint64(b.debt), uint64(limit.WindowSeconds))
	debt, rest := bits.Div64(high, low, uint64(b.limit.WindowSeconds))
	if rest > 0 {
		debt++
	}
	b.limit = limit
	b.debt = min(int64(debt), b.capacity())
}

// cost is what one request costs; it is also the window in microseconds.
func (b *bucket) cost() int64 {
	return int64(b.limit.WindowSeconds) * int64(time.Second/time.Microsecond)
}

// capacity is the largest debt.
func (b *bucket) capacity() int64 { return b.cost() * int64(b.limit.Requests) }

// wait returns how long until n requests, which are at most the limit's, are
// there in a bucket that was drained at now: zero where they are.
func (b *bucket) wait(n int, now int64) time.Duration {
	if over := b.debt + int64(n)*b.cost() - b.capacity(); over > 0 {
		return b.refill(over, now)
	}
	return 0
}

// spend takes n requests that are there.
func (b *bucket) spend(n int) { b.debt += int64(n) * b.cost() }

// left returns how many requests a bucket that was drained at now has left, and
// how long until it has all.
func (b *bucket) left(now int64) (remaining int, full time.Duration) {
	return int((b.capacity() - b.debt) / b.cost()), b.refill(b.debt, now)
}

// refill returns how long after now units of debt are refilled.
func (b *bucket) refill(units, now int64) time.Duration {
	if units == 0 {
		return 0
	}
	requests := int64(b.limit.Requests)
	return time.Duration(max(b.at-now, 0)+(units+requests-1)/requests) * time.Microsecond
}
