package meter

import (
	"math/bits"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// rateLimiter is the generic cell rate algorithm (ITU-T I.371) in integers: debt is
// what was spent and has not been refilled. One request costs as many units as
// the window has microseconds and a microsecond refills as many units as the
// window has requests, so neither is ever rounded. With the largest limits a
// full debt is below 2^57, and one request more than fits below 2^58.
type rateLimiter struct {
	limit apikey.RateLimit // that debt is measured by
	debt  int64
	at    int64 // microseconds on the clock of its Meter, of debt
}

// stepBack is how far a reading of the clock may lie before the last and still
// be of the same clock: calls read it and then wait for each other, so readings
// come out of order. Moving back with each of those would refill the time between
// them twice. A reading from before that is of a clock that was set back, and
// waiting for it to catch up would shut the limit for as long.
const stepBack = int64(time.Minute / time.Microsecond)

// advance brings the debt to now and to limit.
func (l *rateLimiter) advance(limit apikey.RateLimit, now int64) {
	if l.limit == (apikey.RateLimit{}) {
		l.limit = limit
	}
	switch elapsed := now - l.at; {
	case elapsed > 0:
		l.debt = max(l.debt-min(elapsed, l.cost())*int64(l.limit.Requests), 0)
		l.at = now
	case elapsed < -stepBack:
		l.at = now
	}
	if l.limit != limit {
		l.convert(limit)
	}
}

// convert measures the debt by another limit: requests that were spent stay
// spent, so that a change of the window gives no second burst; but no more of
// them than the new limit holds, so that a narrower one is not owed for longer
// than its window.
func (l *rateLimiter) convert(limit apikey.RateLimit) {
	high, low := bits.Mul64(uint64(l.debt), uint64(limit.WindowSeconds))
	debt, rest := bits.Div64(high, low, uint64(l.limit.WindowSeconds))
	if rest > 0 {
		debt++
	}
	l.limit = limit
	l.debt = min(int64(debt), l.capacity())
}

// cost is what one request costs; it is also the window in microseconds.
func (l *rateLimiter) cost() int64 {
	return int64(l.limit.WindowSeconds) * int64(time.Second/time.Microsecond)
}

// capacity is the largest debt.
func (l *rateLimiter) capacity() int64 { return l.cost() * int64(l.limit.Requests) }

// wait returns how long until n requests, which are at most the limit's, are
// there in a limiter that was advanced to now: zero where they are.
func (l *rateLimiter) wait(n int, now int64) time.Duration {
	if over := l.debt + int64(n)*l.cost() - l.capacity(); over > 0 {
		return l.refill(over, now)
	}
	return 0
}

// spend takes n requests that are there.
func (l *rateLimiter) spend(n int) { l.debt += int64(n) * l.cost() }

// left returns how many requests a limiter that was advanced to now has left, and
// how long until it has all.
func (l *rateLimiter) left(now int64) (remaining int, full time.Duration) {
	return int((l.capacity() - l.debt) / l.cost()), l.refill(l.debt, now)
}

// refill returns how long after now units of debt are refilled.
func (l *rateLimiter) refill(units, now int64) time.Duration {
	if units == 0 {
		return 0
	}
	requests := int64(l.limit.Requests)
	return time.Duration(max(l.at-now, 0)+(units+requests-1)/requests) * time.Microsecond
}
