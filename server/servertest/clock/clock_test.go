package clock_test

import (
	"fmt"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
)

// A key's state is a function of the time, and the time is the test's.
func ExampleClock() {
	now := clock.At(clock.Noon)
	k := apikey.Key{Enabled: true, ExpiresAt: now.Now().Add(time.Hour)}
	fmt.Println(k.State(now.Now()))
	now.Advance(time.Hour)
	fmt.Println(k.State(now.Now()))
	// Output:
	// active
	// expired
}
