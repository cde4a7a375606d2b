package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
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
	// NextEvents is Events of all organizations, for the one who reads the log for
	// everybody: nothing else that the log is asked for holds it up. Of a log that
	// several servers write, each page has the database's time.
	NextEvents(ctx context.Context, after int64, limit int) (apikey.EventPage, error)
}

// Batch is what Run has read of the log.
type Batch struct {
	// Events are all events up to Newest, the first of which follows the batch before,
	// unless Missed.
	Events []apikey.Event
	Newest int64
	// Missed says that not everything since the batch before was read, nor will be.
	Missed bool
	// Replaced says that the log is no longer the one that was read before, as after the
	// loss of a database whose standby had not everything. It is Missed too, and Newest
	// may be less than before.
	Replaced bool
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
	// Apply is called with everything that Run reads, before a follower is told of it.
	// It must not block. Defaults to nothing.
	Apply func(Batch)
	// Clock is set by each read of a log that several servers write. Defaults to none:
	// this process alone writes the log.
	Clock *Clock
	// Changed is called when the log cannot be followed any more, or can again: see
	// Status.Broken. It must not block. Defaults to nothing.
	Changed func()
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
	apply  func(Batch)
	clock  *Clock         // nil where this process alone writes the log
	skew   *outage.Outage // of the machine's clock
	logger *slog.Logger
	broken atomic.Bool
	told   func() // of changes of broken
	lag    atomic.Int64

	notified chan struct{} // wakes Run; holds one message
	promised atomic.Int64  // the newest position that Notify told of
	heard    atomic.Int64  // likewise Hear

	mu            sync.RWMutex
	newest        int64                // every event up to here has been read
	at            string               // the id of the event at newest; "" where it is not known
	generation    int                  // of the log; counts its replacements
	tail          []*Entry             // the newest events, gap-free, the last at newest
	size          int                  // of the payloads in tail
	organizations map[string]*notifier // "" is for all organizations
	resources     map[string]*notifier
}

// New returns a Feed that begins after the newest event. It starts nothing: Run
// reads the log.
func New(ctx context.Context, c Config) (*Feed, error) {
	f := &Feed{
		log: c.Log, most: c.Tail, bytes: c.Bytes, poll: c.Poll, apply: c.Apply, clock: c.Clock, told: c.Changed,
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
	f.logger = c.Logger
	f.outage = outage.New(c.Logger, "The event log could not be read; it is tried again.", "The event log is read again.")
	f.skew = outage.New(c.Logger, "The clocks of this machine and of the database differ; the server goes by the database's.",
		"The clocks of this machine and of the database agree again.")
	if f.told == nil {
		f.told = func() {}
	}
	// No position is after this one, so that the page has none but its bounds.
	page, err := c.Log.NextEvents(ctx, math.MaxInt64, 1)
	if err != nil {
		return nil, fmt.Errorf("start the feed: %w", err)
	}
	f.newest = page.Newest
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
	f.wake()
}

// Hear tells that another server has committed events up to position, or may have,
// where that is zero. It waits for nothing. What this process remembers of their
// resources is for Config.Apply.
func (f *Feed) Hear(position int64) {
	if position == 0 {
		position = f.Newest() + 1
	}
	for known := f.heard.Load(); position > known; known = f.heard.Load() {
		if f.heard.CompareAndSwap(known, position) {
			break
		}
	}
	f.wake()
}

func (f *Feed) wake() {
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
	var watching sync.WaitGroup
	if f.clock != nil {
		watching.Go(func() { f.watch(ctx) })
		defer watching.Wait()
	}
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

// wait waits for a call of Notify or Hear that tells of something new, or for the
// poll. It returns false when ctx ends.
func (f *Feed) wait(ctx context.Context, poll <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-poll:
			return true
		case <-f.notified:
			// What it tells of may have been read already, with the one before.
			if max(f.promised.Load(), f.heard.Load()) > f.Newest() {
				return true
			}
		}
	}
}

// fillLimit bounds how many events are read at once.
const fillLimit = 512

// fill reads what follows the tail, and reports whether there is more. Where there is
// not, everything that had been committed when the read began has been applied.
func (f *Feed) fill(ctx context.Context) (more bool, err error) {
	after, at := f.place()
	var began moment
	if f.clock != nil {
		began = f.clock.moment()
	}
	page, err := f.log.NextEvents(ctx, after, fillLimit)
	var tooOld *apikey.TooOldError
	switch {
	case (err == nil || errors.As(err, &tooOld)) && (page.Newest < after || at != "" && page.At != "" && at != page.At):
		f.replaced(&page)
		return true, nil
	case tooOld != nil:
		f.take(Batch{Newest: tooOld.Floor, Missed: true}, "")
		return true, nil //nolint:nilerr // The log goes on after what is too old.
	case err != nil:
		return false, err
	case page.Next > after:
		if n := len(page.Events); n > 0 && page.Events[n-1].Position == page.Next {
			page.At = page.Events[n-1].ID
		} else {
			page.At = ""
		}
		f.take(Batch{Events: page.Events, Newest: page.Next, Missed: page.Next-after != int64(len(page.Events))}, page.At)
	case at == "":
		f.setAt(page.At)
	}
	if f.clock != nil && !page.More {
		f.followed(began, page.Now)
	}
	return page.More, nil
}

// place returns where the feed is in the log.
func (f *Feed) place() (newest int64, at string) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.newest, f.at
}

func (f *Feed) setAt(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = id
}

// take has a batch applied, whose last event has the id at, and hands it to the
// followers, in this order: whoever is woken by a change finds nothing remembered of
// before it.
func (f *Feed) take(b Batch, at string) {
	if f.apply != nil {
		f.apply(b)
	}
	if n := len(b.Events); n > 0 && f.clock != nil {
		f.lag.Store(int64(f.clock.Now().Sub(b.Events[n-1].CreatedAt)))
	}
	f.publish(b, at)
}

// publish adds a batch to the tail and wakes those whom it concerns. Where something
// has been missed, the tail begins anew, and everybody reads the log.
func (f *Feed) publish(b Batch, at string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.newest
	f.newest, f.at = b.Newest, at
	if b.Replaced {
		f.generation++
	}
	if b.Missed {
		f.tail, f.size = nil, 0
		for _, notifiers := range []map[string]*notifier{f.organizations, f.resources} {
			for _, n := range notifiers {
				n.notify(b.Newest, before)
			}
		}
		return
	}
	for i := range b.Events {
		e := &Entry{Event: b.Events[i]}
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
