package webhook_test

import (
	"fmt"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// A delivery that failed waits longer each time; an endpoint can ask for more time
// and never for less.
func ExampleBackoff_Next() {
	b := webhook.Backoff{
		Delays: []time.Duration{5 * time.Second, time.Minute},
		Rand:   func() float64 { return 0.5 }, // no jitter
	}
	fmt.Println(b.Next(1, 0))
	fmt.Println(b.Next(1, time.Hour))
	fmt.Println(b.Next(2, time.Second))
	fmt.Println(b.Next(3, 0))
	// Output:
	// 5s true
	// 1h0m0s true
	// 1m0s true
	// 0s false
}

// Retry-After is a number of seconds or a date; what asks for more than a day gets a
// day.
func ExampleParseRetryAfter() {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, value := range []string{"120", "Sun, 01 Mar 2026 12:30:00 GMT", "99999999", "soon"} {
		fmt.Println(webhook.ParseRetryAfter(value, now))
	}
	// Output:
	// 2m0s
	// 30m0s
	// 24h0m0s
	// 0s
}
