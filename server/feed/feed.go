package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/outage"
)

// Log is where events are kept.
type Log interface {
	// Events returns up to limit events that f wants after a position or after
	// apikey.OldestKept, ascending and as of one moment. Where events after the
	// position are no longer kept it is an *apikey.TooOldError.
	Events(ctx context.Context, f apikey.EventFilter, after int64, limit int) (apikey.EventPage, error)
	// EventBounds returns the position after which every event is kept, and the
	// newest event's. Both never fall.
	EventBounds(ctx context.Context) (floor, newest int64, err error)
}

// Config says what a Feed works with.
type Config struct {
	// Log is required.
	Log Log
	// Tail is how many of the newest events are kept in memory, Bytes how large
	// their payloads may be together. Default to 4,096 and 16 MiB.
	Tail, Bytes int
	// Poll is how often the log is looked at without a call of Notify, for changes
	// that others made. Defaults to 250 ms.
	Poll time.Duration
	// Reads is how many followers behind the tail read the log at a time. Defaults
	// to 2.
	Reads int
	// Logger hears of a log that cannot be read. Defaults to slog.Default.
	Logger *slog.Logger
}

// Feed is the newest part of the log, shared by all who follow it. Its methods
// are safe for concurrent use.
type Feed struct {
	log    Log
	most   int
	bytes  int
	poll   time.Duration
	outage *outage.Outage // of reading the log
	slots  chan struct{}  // of those who read the log behind the tail

	notified chan struct{} // wakes Run; holds one message
	promised atomic.Int64  // the newest position that Notify told of

	mu            sync.RWMutex
	newest        int64                // every event up to here has been read
	tail          []*Entry             // the newest events, gap-free, the last at newest
	size          int                  // of the payloads in tail
	organizations map[string]*notifier // "" is for all organizations
	resources     map[string]*notifier
}

// New returns a Feed that begins after the newest event. It starts nothing: Run
// reads the log.
func New(ctx context.Context, c Config) (*Feed, error) {
	f := &Feed{
		log: c.Log, most: c.Tail, bytes: c.Bytes, poll: c.Poll,
		notified:      make(chan struct{}, 1),
		organizations: make(map[string]*notifier),
		resources:     make(map[string]*notifier),
	}
	if f.most == 0 {
		f.most = 4096
	}
	if f.bytes == 0 {
		f.bytes = 16 << 20
	}
	if f.poll == 0 {
		f.poll = 250 * time.Millisecond
	}
	if c.Reads == 0 {
		c.Reads = 2
	}
	f.slots = make(chan struct{}, c.Reads)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	f.outage = outage.New(c.Logger, "The event log could not be read; it is tried again.", "The event log is read again.")
	var err error
	if _, f.newest, err = c.Log.EventBounds(ctx); err != nil {
		return nil, fmt.Errorf("start the feed: %w", err)
	}
	return f, nil
}

// Notify tells that events up to position have been committed, and that what this
// process remembers of their resources has been forgotten. It waits for nothing.
func (f *Feed) Notify(position int64) {
	known := f.promised.Load()
	for position > known && !f.promised.CompareAndSwap(known, position) {
		known = f.promised.Load()
	}
	f.notifyAgain(min(known, position-1), position)
	select {
	case f.notified <- struct{}{}:
	default: // Run has not answered the message before yet, and will see this one's position.
	}
}

// Newest returns the position up to which the log has been read.
func (f *Feed) Newest() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.newest
}

// Run reads the log until ctx ends, and hands what it reads to the followers. A
// log that cannot be read is tried again; the followers wait.
func (f *Feed) Run(ctx context.Context) error {
	tick := time.NewTicker(f.poll)
	defer tick.Stop()
	for {
		more, err := f.fill(ctx)
		if ctx.Err() != nil {
			return nil
		}
		f.outage.Note(err)
		if !more && !f.wait(ctx, tick.C) {
			return nil
		}
	}
}

// wait waits for a call of Notify that tells of something new, or for the poll. It
// returns false when ctx ends.
func (f *Feed) wait(ctx context.Context, poll <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-poll:
			return true
		case <-f.notified:
			// What it tells of may have been read already, with the one before.
			if f.promised.Load() > f.Newest() {
				return true
			}
		}
	}
}

// fillLimit bounds how many events are read at once.
const fillLimit = 512

// fill reads what follows the tail, and reports whether there is more.
func (f *Feed) fill(ctx context.Context) (more bool, err error) {
	after := f.Newest()
	page, err := f.log.Events(ctx, apikey.EventFilter{}, after, fillLimit)
	var tooOld *apikey.TooOldError
	switch {
	case errors.As(err, &tooOld):
		f.publish(tooOld.Floor, nil)
		return true, nil
	case err != nil:
		return false, err
	case page.Next > after:
		f.publish(page.Next, page.Events)
	}
	return page.More, nil
}

// publish adds events, which lead up to newest, to the tail and wakes those whom
// they concern. Where the events do not follow on each other, or on the tail,
// something has been missed; then the tail begins anew, and everybody reads the
// log.
func (f *Feed) publish(newest int64, events []apikey.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.newest
	f.newest = newest
	if newest-before != int64(len(events)) {
		f.tail, f.size = nil, 0
		for _, notifiers := range []map[string]*notifier{f.organizations, f.resources} {
			for _, n := range notifiers {
				n.notify(newest, before)
			}
		}
		return
	}
	for i := range events {
		e := &Entry{Event: events[i]}
		f.tail = append(f.tail, e)
		f.size += len(e.Event.Payload)
		for _, n := range [...]*notifier{
			f.organizations[""], f.organizations[e.Event.OrganizationID], f.resources[e.Event.ResourceID],
		} {
			if n != nil {
				n.notify(e.Event.Position, before)
			}
		}
	}
	f.trim()
}

// notifyAgain wakes the subscriptions to the resources of the events after one position
// and up to another, as far as the feed has read them already. It read them between
// their commit and Notify, so whoever was woken then may have looked at what was still
// remembered of before.
func (f *Feed) notifyAgain(after, upTo int64) {
	if f.Newest() <= after {
		return // As it nearly always is.
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	upTo = min(upTo, f.newest)
	if first := f.newest - int64(len(f.tail)); after < first { // The tail has begun anew.
		for _, n := range f.resources {
			n.notify(n.last, n.last)
		}
		return
	}
	end := int64(len(f.tail))
	for _, e := range f.tail[end-(f.newest-after) : end-(f.newest-upTo)] {
		if n := f.resources[e.Event.ResourceID]; n != nil {
			n.notify(n.last, n.last)
		}
	}
}

// trim cuts the tail down to its bounds. The caller holds mu.
func (f *Feed) trim() {
	n := 0
	for len(f.tail)-n > f.most || f.size > f.bytes && n < len(f.tail) {
		f.size -= len(f.tail[n].Event.Payload)
		f.tail[n] = nil // append copies what is left only now and then
		n++
	}
	f.tail = f.tail[n:]
}

// An Entry is an event of the log with what has been made of it.
type Entry struct {
	Event apikey.Event
	forms [2]struct {
		once  sync.Once
		value any
	}
}

// View is in whose eyes an event is seen.
type View int

// The views.
const (
	ViewOrganization View = iota // of a follower of the event's organization
	ViewAll                      // of a follower of all organizations
)

// Form returns what encode makes of the event for all who share a view. It is made
// once and shared: nobody may change it.
func (e *Entry) Form(v View, encode func(*apikey.Event) any) any {
	form := &e.forms[v]
	form.once.Do(func() { form.value = encode(&e.Event) })
	return form.value
}
