package apikey

import (
	"math/bits"
	"time"
)

// Limiter is the generic cell rate algorithm (ITU-T I.371) in integers: Debt is
// what was spent and has not been refilled. One request costs as many units as
// the window has microseconds and a microsecond refills as many units as the
// window has requests, so neither is ever rounded. With the largest limits a
// full debt is below 2^57, and one request more than fits below 2^58. The zero
// Limiter is one that nothing was spent of.
type Limiter struct {
	Limit RateLimit // that Debt is measured by
	Debt  int64
	At    int64 // microseconds on whatever clock the caller goes by, of Debt
}

// stepBack is how far a reading of the clock may lie before the last and still
// be of the same clock: calls read it and then wait for each other, so readings
// come out of order. Moving back with each of those would refill the time between
// them twice. A reading from before that is of a clock that was set back, and
// waiting for it to catch up would shut the limit for as long.
const stepBack = int64(time.Minute / time.Microsecond)

// Advance brings the debt to now and to limit.
func (l *Limiter) Advance(limit RateLimit, now int64) {
	if l.Limit == (RateLimit{}) {
		l.Limit = limit
	}
	switch elapsed := now - l.At; {
	case elapsed > 0:
		l.Debt = max(l.Debt-min(elapsed, l.cost())*int64(l.Limit.Requests), 0)
		l.At = now
	case elapsed < -stepBack:
		l.At = now
	}
	if l.Limit != limit {
		l.convert(limit)
	}
}

// convert measures the debt by another limit: requests that were spent stay
// spent, so that a change of the window gives no second burst; but no more of
// them than the new limit holds, so that a narrower one is not owed for longer
// than its window.
func (l *Limiter) convert(limit RateLimit) {
	high, low := bits.Mul64(uint64(l.Debt), uint64(limit.WindowSeconds))
	debt, rest := bits.Div64(high, low, uint64(l.Limit.WindowSeconds))
	if rest > 0 {
		debt++
	}
	l.Limit = limit
	l.Debt = min(int64(debt), l.capacity())
}

// cost is what one request costs; it is also the window in microseconds.
func (l *Limiter) cost() int64 {
	return int64(l.Limit.WindowSeconds) * int64(time.Second/time.Microsecond)
}

// capacity is the largest debt.
func (l *Limiter) capacity() int64 { return l.cost() * int64(l.Limit.Requests) }

// Wait returns how long until n requests, which are at most the limit's, are
// there in a limiter that was advanced to now: zero where they are.
func (l *Limiter) Wait(n int, now int64) time.Duration {
	if over := l.Debt + int64(n)*l.cost() - l.capacity(); over > 0 {
		return l.refill(over, now)
	}
	return 0
}

// Spend takes n requests that are there.
func (l *Limiter) Spend(n int) { l.Debt += int64(n) * l.cost() }

// Left returns how many requests a limiter that was advanced to now has left, and
// how long until it has all.
func (l *Limiter) Left(now int64) (remaining int, full time.Duration) {
	return int((l.capacity() - l.Debt) / l.cost()), l.refill(l.Debt, now)
}

// refill returns how long after now units of debt are refilled.
func (l *Limiter) refill(units, now int64) time.Duration {
	if units == 0 {
		return 0
	}
	requests := int64(l.Limit.Requests)
	return time.Duration(max(l.At-now, 0)+(units+requests-1)/requests) * time.Microsecond
}

// Full reports whether a limiter that was advanced has its whole burst.
func (l *Limiter) Full() bool { return l.Debt == 0 }
