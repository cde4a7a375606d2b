package webhook

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DefaultDelays is the schedule of attempts after a first that failed.
func DefaultDelays() []time.Duration {
	return []time.Duration{
		5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
		2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

const (
	// jitter is the share of a delay by which it can be longer or shorter, so that
	// what failed together does not come back together.
	jitter = 0.2
	// maxRetryAfter bounds what an endpoint can ask for.
	maxRetryAfter = 24 * time.Hour
)

// Backoff says when a delivery that failed is tried again.
type Backoff struct {
	// Delays is the schedule. Empty means [DefaultDelays].
	Delays []time.Duration
	// Rand returns a number of [0,1). Nil means the global source.
	Rand func() float64
}

// Next returns how long to wait after a number of failed attempts, from 1, or
// false at the end of the schedule. retryAfter is what the endpoint asked for:
// it makes a delay longer, up to a day, and never shorter, or an endpoint could
// run through its schedule in seconds.
func (b Backoff) Next(failures int, retryAfter time.Duration) (time.Duration, bool) {
	delays := b.Delays
	if len(delays) == 0 {
		delays = DefaultDelays()
	}
	if failures < 1 || failures > len(delays) {
		return 0, false
	}
	random := b.Rand
	if random == nil {
		random = rand.Float64
	}
	delay := time.Duration(float64(delays[failures-1]) * (1 - jitter + 2*jitter*random()))
	return max(delay, min(retryAfter, maxRetryAfter)), true
}

// ParseRetryAfter returns how long after now a Retry-After asks to wait, 0 where
// it says nothing of use. It is bounded.
func ParseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
