package apikey

import "time"

// SharedLimiter is a [Limiter] that several servers share: what is stored of a key's
// exact rate limit. A server reserves requests before calls spend them, as a
// [RateBlock], and says later how many it has spent, and when. What is reserved is
// not refilled; what is spent is, from the time it was spent on. So in any time of d
// seconds all servers together spend at most requests + d * requests / window_seconds,
// and in one instant at most requests.
//
// A server that dies never says what it has spent. A block therefore has an end: after
// it, the whole block counts as spent then. Time is cut into slots, and a block that
// was reserved in one ends with the next, so the limiter keeps two numbers, however
// many servers there are. A server stops spending long before, see [BlockLife].
type SharedLimiter struct {
	Limiter
	// Slot is the time, in slots since 1970, that Reserved is of.
	Slot int64
	// Reserved and ReservedBefore are how many requests servers hold since Slot and since
	// the slot before.
	Reserved, ReservedBefore int64
}

// BlockLife is how long after it asked for a block a server may spend of it. A block
// ends at the earliest a slot after that, which is twice as long: what is between
// covers clocks that differ and answers that come late.
const BlockLife = 5 * time.Second

// slot is how long a slot is, in microseconds.
const slot = int64(2*BlockLife) / int64(time.Microsecond)

// RateBlock is requests of a shared limiter that one server has reserved.
type RateBlock struct {
	Slot  int64 // in which they were reserved
	Units int64
	// Spent is how many of Units are spent, the last of them at SpentAt, in microseconds
	// since 1970.
	Spent, SpentAt int64
}

// RateAsk asks for requests of one key's exact rate limit, to be spent by this server.
type RateAsk struct {
	KeyID string
	// Limit is the key's as the one who asks knows it.
	Limit RateLimit
	// Block is what the server has reserved and gives back, spent or not. The zero
	// RateBlock is none.
	Block RateBlock
	// Want is how many requests calls wait for, Least how many the one of them that
	// waits for the fewest: where not even those are there, nothing is given. More is
	// how many may be given beyond Want, while much is left. A Want of 0 only gives Block
	// back.
	Want, Least, More int64
}

// RateGrant is what was given of an exact rate limit.
type RateGrant struct {
	// Units are the asker's from now on, reserved in Limiter.Slot. They can be fewer
	// than it wants.
	Units int64
	// Limiter is the key's after it.
	Limiter SharedLimiter
	// Stale says that the key has another limit than the one who asks knows, or is
	// gone. Nothing was given.
	Stale bool
}

// Reserve answers an ask at a time in microseconds since 1970.
func (s *SharedLimiter) Reserve(a *RateAsk, now int64) RateGrant {
	s.Settle(&a.Block, now)
	s.Bring(a.Limit, now)
	available := s.Available()
	units := min(a.Want, available)
	switch {
	case units < a.Least:
		units = 0
	case units == a.Want && units > 0:
		units += min(a.More, (available-units)/blockShare, maxBlock)
	}
	s.Reserved += units
	return RateGrant{Units: units, Limiter: *s}
}

// Settle takes a block back. What is spent of it counts as spent at once, when the last
// of it was. A block that has ended counts as spent already.
func (s *SharedLimiter) Settle(b *RateBlock, now int64) {
	s.expire(now)
	switch {
	case b.Units == 0:
		return
	case b.Slot >= s.Slot:
		s.Reserved = max(s.Reserved-b.Units, 0)
	case b.Slot == s.Slot-1:
		s.ReservedBefore = max(s.ReservedBefore-b.Units, 0)
	default:
		return
	}
	s.spendAt(b.Spent, min(b.SpentAt, now))
}

// Bring brings the limiter to now and to limit.
func (s *SharedLimiter) Bring(limit RateLimit, now int64) {
	s.expire(now)
	s.Advance(limit, now)
}

// expire ends the blocks whose time is over.
func (s *SharedLimiter) expire(now int64) {
	current := now / slot
	if current <= s.Slot {
		if s.Slot*slot-now > stepBack {
			s.Slot = current // the clock was set back
		}
		return
	}
	s.spendAt(s.ReservedBefore, (s.Slot+1)*slot)
	s.ReservedBefore, s.Reserved = s.Reserved, 0
	if current > s.Slot+1 {
		s.spendAt(s.ReservedBefore, (s.Slot+2)*slot)
		s.ReservedBefore = 0
	}
	s.Slot = current
}

// spendAt counts requests as spent at a time or, where the limiter is past that, as
// late as it is.
func (s *SharedLimiter) spendAt(units, at int64) {
	if units > 0 {
		s.Advance(s.Limit, max(at, s.At))
		s.Debt = min(s.Debt+units*s.cost(), s.capacity())
	}
}

// Available returns how many requests are left, and not reserved, of a limiter that was
// brought to now.
func (s *SharedLimiter) Available() int64 {
	return max((s.capacity()-s.Debt)/s.cost()-s.Reserved-s.ReservedBefore, 0)
}

// WaitFor returns how long until n requests, which are at most the limit's, are there
// in a limiter that was brought to now: zero where they are. What servers have reserved
// is taken to be refilled like what is spent; they may give it back before.
func (s *SharedLimiter) WaitFor(n int, now int64) time.Duration {
	if over := s.owed() + int64(n)*s.cost() - s.capacity(); over > 0 {
		return s.refill(over, now)
	}
	return 0
}

// FullIn returns how long until all requests are there, with what is reserved taken as
// spent.
func (s *SharedLimiter) FullIn(now int64) time.Duration {
	return s.refill(min(s.owed(), s.capacity()), now)
}

func (s *SharedLimiter) owed() int64 { return s.Debt + (s.Reserved+s.ReservedBefore)*s.cost() }
