//go:build !linux

package feed

import "time"

// bootTime is the Boot of this machine: the time of day, which goes on while the
// machine is suspended, as long as nobody sets it.
func bootTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
