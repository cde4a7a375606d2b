package feed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// watchInterval is how often it is looked at whether the log is followed still.
const watchInterval = 100 * time.Millisecond

// ErrReplaced ends a follower of a log that is no longer the one that it has read: of
// what was committed last, the database has lost something.
var ErrReplaced = errors.New("the database has lost the newest part of its log")

var errNotFollowed = fmt.Errorf("no read of the log has ended that began less than %s ago", MaxAge)

// Status says how the log is followed.
type Status struct {
	// Position is how far the log has been read.
	Position int64
	// Behind is how many events more this process has heard of.
	Behind int64
	// Broken says that the log cannot be read. Of a shared log it says that no read has
	// ended which began less than MaxAge ago: what the log keeps up to date is then looked
	// up in the database.
	Broken bool
	// Shared says that other servers write the log too. The rest is for such a log.
	Shared bool
	// Age is how long ago the newest read began that has ended.
	Age time.Duration
	// Lag is how long after it was made the newest change was applied that Run has read,
	// by the database's clock.
	Lag time.Duration
	// ClockOff is how far the time of day of this machine is ahead of the database's.
	ClockOff time.Duration
}

// Status returns how the log is followed.
func (f *Feed) Status() Status {
	s := Status{Position: f.Newest(), Shared: f.clock != nil}
	s.Behind = max(0, max(f.promised.Load(), f.heard.Load())-s.Position)
	if s.Broken = f.outage.Standing(); s.Shared {
		s.Broken, s.Age, s.Lag, s.ClockOff = f.Broken(), f.clock.age(), time.Duration(f.lag.Load()), f.clock.Off()
	}
	return s
}

// Broken reports whether a log that other servers write too is not followed.
func (f *Feed) Broken() bool { return f.clock != nil && (f.broken.Load() || !f.clock.fresh()) }

// ClockOff returns how far the time of day of this machine is ahead of the database's,
// and whether that is more than anyone should live with.
func (f *Feed) ClockOff() (off time.Duration, warn bool) {
	if f.clock == nil {
		return 0, false
	}
	return f.clock.Off(), f.clock.WarnOff()
}

// followed notes that everything has been applied that had been committed when a read
// began.
func (f *Feed) followed(began moment, database time.Time) {
	f.clock.set(began, database)
	if f.clock.WarnOff() {
		f.skew.Note(fmt.Errorf("the clock of this machine is %s off", f.clock.Off().Round(time.Millisecond)))
	} else {
		f.skew.Note(nil)
	}
	if f.broken.Swap(false) {
		f.told()
	}
}

// watch looks, until ctx ends, whether the log is followed still: Run may be waiting for
// a read.
func (f *Feed) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if f.clock.fresh() || f.broken.Swap(true) {
			continue
		}
		f.outage.Note(errNotFollowed)
		f.notifySubscriptions()
		f.told()
	}
}

// notifySubscriptions wakes all subscriptions: who relies on them must look for himself.
func (f *Feed) notifySubscriptions() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.resources {
		n.notify(n.last, n.last)
	}
}

// replaced begins anew with a log that is another one. Nothing tells where the two
// part.
func (f *Feed) replaced(page *apikey.EventPage) {
	f.logger.Error("The database has lost the newest part of its log, as a standby that had not everything has when it takes over. "+
		"Changes that were answered may be undone.", "was_at", f.Newest(), "is_at", page.Newest)
	f.take(Batch{Newest: page.Newest, Missed: true, Replaced: true}, "")
}
