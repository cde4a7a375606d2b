package client

import (
	"context"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/status"
)

// How long a watcher waits before it connects again: about the first of these, then
// twice as long each time, until a connection has lasted for the longest.
const (
	shortestDelay = 200 * time.Millisecond
	longestDelay  = 10 * time.Second
)

// reconnect is how often gRPC itself tries to connect.
var reconnect = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.3, MaxDelay: 2 * time.Second}

// shortestRetry is about how long a verification waits before it is tried again, the
// first time.
const shortestRetry = 25 * time.Millisecond

// jittered returns d with half of it left to chance, so that the clients of a server
// that comes back do not come all at once. random is in [0, 1).
func jittered(d time.Duration, random float64) time.Duration {
	return d/2 + time.Duration(random*float64(d/2))
}

// RetryAfter returns how long the error of a call asks to wait, 0 where it does not.
func RetryAfter(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if d, ok := detail.(*errdetails.RetryInfo); ok {
			return d.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// wait returns after d, or when ctx is done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
