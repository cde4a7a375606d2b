package meter

import (
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// share is what this server knows and holds of one key's exact rate limit. Its times
// are microseconds since 1970.
type share struct {
	// limit is the key's, as whoever asked last had it.
	limit apikey.RateLimit
	// block is what is reserved and not settled; the requests of it that are not spent
	// may be spent before until.
	block apikey.RateBlock
	until int64
	// began is when block was reserved. How fast it is spent decides how large the next
	// one may be.
	began int64
	// stored is the limiter as storage had it at knownAt, block included; zero for
	// never.
	stored  apikey.SharedLimiter
	knownAt int64
	pending *reservation // that calls wait for; nil for none
	// idle counts the passes of settle since the last use of block.
	idle int8
}

// How long a server believes that an exact limit is spent: others may have given
// something back.
const spentFor = int64(time.Second / time.Microsecond)

// maxMore is how many requests a server asks for at most beyond what calls wait for.
const maxMore = 1024

// shareLocked returns the share of c for a key with an exact limit. The caller holds
// c.mu.
func (c *Counters) shareLocked(limit apikey.RateLimit) *share {
	s := c.share
	if s == nil {
		s = &share{limit: limit}
		c.share = s
	}
	if s.limit != limit {
		// What is held is of the old limit: it is given back, and not spent.
		s.limit, s.until, s.knownAt = limit, 0, 0
	}
	return s
}

// held returns how many requests can be spent at now.
func (s *share) held(now int64) int64 {
	if now >= s.until {
		return 0
	}
	return s.block.Units - s.block.Spent
}

// current returns the limiter at now as far as this server knows it, with its own
// block given back.
func (s *share) current(now int64) apikey.SharedLimiter {
	stored := s.stored
	stored.Settle(&s.block, now)
	stored.Bring(s.limit, now)
	return stored
}

// mayHave reports whether a call may get n requests at now, more than are held. If it
// cannot, wait says how long until it may.
func (s *share) mayHave(n int, now int64) (wait time.Duration, may bool) {
	if s.knownAt == 0 {
		return 0, true
	}
	stored := s.current(now)
	wait = stored.WaitFor(n, now)
	return wait, wait == 0 || now-s.knownAt > spentFor
}

// spend spends requests that are held.
func (s *share) spend(n int, now int64) {
	if n > 0 {
		s.block.Spent += int64(n)
		s.block.SpentAt = max(s.block.SpentAt, now)
		s.idle = 0
	}
}

// status returns what a caller is told at now, whose time is at.
func (s *share) status(now int64, at time.Time) apikey.LimitStatus {
	stored := s.current(now)
	return apikey.LimitStatus{
		Limit: s.limit.Requests, Remaining: int(stored.Available()), ResetAt: at.Add(stored.FullIn(now)),
	}
}

// most returns how many requests calls can get at most at now.
func (s *share) most(now int64) int64 {
	if s.knownAt == 0 || now-s.knownAt > spentFor {
		return int64(s.limit.Requests)
	}
	stored := s.current(now)
	return stored.Available()
}

// takeBlock takes the block out, to be settled. It returns how many requests may be
// asked for beyond what calls wait for: as many as a second takes at the pace at which
// the block was spent, so that a key which is seldom used leaves nothing reserved.
func (s *share) takeBlock(now int64) (b apikey.RateBlock, more int64) {
	const leastTime = int64(time.Millisecond / time.Microsecond)
	const second = int64(time.Second / time.Microsecond)
	b = s.block
	more = min(b.Spent*second/max(now-s.began, leastTime), maxMore)
	// Until it is settled, it counts as reserved by others.
	s.block = apikey.RateBlock{}
	return b, more
}

// receive adds a grant that was asked for at now. What was reserved for another limit
// than the key has by now is held, to be given back, and not spent.
func (s *share) receive(limit apikey.RateLimit, g *apikey.RateGrant, now int64) {
	s.block = apikey.RateBlock{Slot: g.Limiter.Slot, Units: g.Units}
	s.began, s.idle = now, 0
	if s.limit == limit {
		s.until = now + int64(apikey.BlockLife/time.Microsecond)
		s.stored, s.knownAt = g.Limiter, now
	}
}

// open reports whether the share has something that storage does not know, or calls
// wait for it. A nil share has not.
func (s *share) open() bool { return s != nil && (s.block.Units > 0 || s.pending != nil) }
