package deliver

import (
	"context"
	"sync"
	"time"
)

// The rhythm of a fan-out that shares its database with other servers.
const (
	// backlogTTL is how long what was read of an organization's backlog counts.
	backlogTTL = time.Second
	// backlogPoll is how often a change that waits has the backlog read again.
	backlogPoll = 250 * time.Millisecond
	// maxBacklogs bounds of how many organizations it is remembered.
	maxBacklogs = 10_000
)

// forget drops what is known of organizations: another server may go on with them.
func (f *FanOut) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.known {
		if o.moved != nil {
			close(o.moved)
		}
	}
	clear(f.known)
	f.queue, f.paused, f.scanned, f.running = nil, nil, false, false
	f.failures, f.failing = 0, 0
}

// backlogs remembers for a moment which organizations' fan-out is behind.
type backlogs struct {
	mu    sync.Mutex
	known map[string]backlog
}

// backlog is what was read of an organization, at a time.
type backlog struct {
	at     time.Time
	behind bool
}

// behindElsewhere is behind by the database. The read is made by one of those who ask at
// the same time; the others go by the one before it. A database that cannot be asked
// holds nobody up: it cannot be changed either.
func (f *FanOut) behindElsewhere(ctx context.Context, organization string) <-chan struct{} {
	b, now := &f.backlogs, f.Now()
	b.mu.Lock()
	known, ok := b.known[organization]
	fresh := ok && now.Sub(known.at) < backlogTTL
	if known.behind {
		fresh = now.Sub(known.at) < backlogPoll
	}
	if !fresh {
		if b.known == nil || len(b.known) >= maxBacklogs {
			b.known = make(map[string]backlog)
		}
		b.known[organization] = backlog{now, known.behind}
	}
	b.mu.Unlock()
	if fresh {
		return later(known.behind)
	}
	oldest, err := f.Backlog.FanOutOldest(ctx, organization)
	behind := err == nil && !oldest.IsZero() && now.Sub(oldest) > f.MaxBehind
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.known[organization]
	b.known[organization] = backlog{before.at, behind}
	switch {
	case behind && !before.behind:
		f.Logger.Warn("The changes of an organization wait: the deliveries of its earlier changes are still being made.",
			"organization_id", organization, "behind", now.Sub(oldest).Round(time.Second).String())
	case !behind && before.behind:
		f.Logger.Info("The changes of an organization no longer wait.", "organization_id", organization)
	}
	return later(behind)
}

// later returns nil for an organization that is not behind, else what is closed when its
// backlog is worth another look.
func later(behind bool) <-chan struct{} {
	if !behind {
		return nil
	}
	again := make(chan struct{})
	time.AfterFunc(backlogPoll, func() { close(again) })
	return again
}
