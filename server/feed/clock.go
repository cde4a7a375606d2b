package feed

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/apikeys-dev/apikeys/server/broken"
)

// MaxAge is how long ago the newest read of the log may have begun for what is
// remembered to be good. With the time that a change takes to be read it stays below
// the second within which a change is in force on every server.
const MaxAge = 800 * time.Millisecond

// maxClockOff is how far the clock of a machine may be off the database's before
// somebody should know.
const maxClockOff = 2 * time.Second

// maxDrift is how far the two clocks of a machine may part between two reads of the log
// before it is looked at why: somebody has set one, or the machine was suspended.
const maxDrift = 100 * time.Millisecond

// Machine is the clocks of this machine; those that are nil are the system's. Tests have
// others.
type Machine struct {
	// Now returns the time of day, which can be set, and a time that cannot. The second
	// need not count while the machine is suspended; it does while this process is
	// stopped.
	Now func() (wall time.Time, monotonic time.Duration)
	// Boot returns a time that cannot be set and counts while the machine is suspended.
	// It may take a system call.
	Boot func() time.Duration
}

// thisMachine returns the clocks of the system.
func thisMachine() Machine {
	start := time.Now()
	return Machine{
		Now:  func() (time.Time, time.Duration) { now := time.Now(); return now, now.Sub(start) },
		Boot: bootTime,
	}
}

// Clock is the time of a database that several servers share: each read of the log
// brings it, and between reads the machine's monotonic clock goes on from there. So
// all servers go by one clock, whatever the time of day is on their machines. It also
// knows how long ago the newest read began. Its methods are safe for concurrent use.
type Clock struct {
	machine Machine
	own     func() time.Time
	newest  atomic.Pointer[Reading]
}

// ClockConfig says what a Clock works with.
type ClockConfig struct {
	// Machine defaults to the clocks of the system.
	Machine Machine
	// Now, where it is set, is the time in place of the database's. It is for tests,
	// which own the time.
	Now func() time.Time
}

// NewClock returns a clock that goes by the time of day until it is read first.
func NewClock(c ClockConfig) *Clock {
	system := thisMachine()
	if c.Machine.Now == nil {
		c.Machine.Now = system.Now
	}
	if c.Machine.Boot == nil {
		c.Machine.Boot = system.Boot
	}
	return &Clock{machine: c.Machine, own: c.Now}
}

// Reading is what the newest read of the log has told: that all changes up to then are
// known, and the database's time.
type Reading struct {
	clock *Clock
	moment
	database time.Time // at that moment
}

// moment is a moment by the clocks of the machine.
type moment struct {
	wall            int64 // Unix nanoseconds
	monotonic, boot time.Duration
}

func (c *Clock) moment() moment {
	wall, monotonic := c.machine.Now()
	return moment{wall.UnixNano(), monotonic, c.machine.Boot()}
}

// Newest returns the newest reading; nil where there was none.
func (c *Clock) Newest() *Reading { return c.newest.Load() }

// Now returns the database's time.
func (c *Clock) Now() time.Time {
	if r := c.newest.Load(); r != nil {
		now, _ := r.Now()
		return now
	}
	if c.own != nil {
		return c.own()
	}
	wall, _ := c.machine.Now()
	return wall
}

// Now returns the database's time, and whether the read of the log was new enough for
// what was remembered before the call to be good. Whoever took the reading, looked
// something up that the log keeps up to date, and then asks, has not been late.
//
// Where the clocks of the machine have parted, it was suspended or set, and the clock
// that counts through both is asked.
func (r *Reading) Now() (now time.Time, fresh bool) {
	wall, monotonic := r.clock.machine.Now()
	age := monotonic - r.monotonic
	if drift := time.Duration(wall.UnixNano()-r.wall) - age; drift > maxDrift || drift < -maxDrift {
		age = r.clock.machine.Boot() - r.boot
	}
	fresh = age < MaxAge || broken.Is(broken.ServeStale)
	switch {
	case r.clock.own != nil:
		return r.clock.own(), fresh
	case broken.Is(broken.LocalClock):
		return wall, fresh
	}
	return r.database.Add(age), fresh
}

// fresh reports whether c has a reading that is new enough.
func (c *Clock) fresh() bool {
	r := c.newest.Load()
	if r == nil {
		return false
	}
	_, fresh := r.Now()
	return fresh
}

// age returns how long ago the newest read began.
func (c *Clock) age() time.Duration {
	r := c.newest.Load()
	if r == nil {
		return math.MaxInt64
	}
	return c.machine.Boot() - r.boot
}

// Boot returns a time that counts for as long as the machine is up.
func (c *Clock) Boot() time.Duration { return c.machine.Boot() }

// Off returns how far the time of day of this machine is ahead of the database's.
func (c *Clock) Off() time.Duration {
	r := c.newest.Load()
	if r == nil {
		return 0
	}
	return time.Duration(r.wall - r.database.UnixNano())
}

// WarnOff reports whether Off is more than anyone should live with.
func (c *Clock) WarnOff() bool { return c.Off().Abs() > maxClockOff }

// set takes what a read told that began at a moment and has just ended: the time of
// the database at some moment in between.
//
// The time goes on as it was where that can be true. Else it is moved to the nearer end
// of what can be, so it is off by no more than the quickest of the reads took.
func (c *Clock) set(began moment, database time.Time) {
	took := c.machine.Boot() - began.boot
	r := &Reading{clock: c, moment: began, database: database.Add(-took / 2)}
	if before := c.newest.Load(); before != nil {
		r.database = before.database.Add(began.boot - before.boot)
		if earliest := database.Add(-took); r.database.Before(earliest) {
			r.database = earliest
		} else if r.database.After(database) {
			r.database = database
		}
	}
	c.newest.Store(r)
}

// Read sets the clock by what read returns, the database's time. Nothing may be
// remembered yet that the log keeps up to date.
func (c *Clock) Read(ctx context.Context, read func(context.Context) (time.Time, error)) error {
	began := c.moment()
	now, err := read(ctx)
	if err != nil {
		return fmt.Errorf("read the time of the database: %w", err)
	}
	c.set(began, now)
	return nil
}
