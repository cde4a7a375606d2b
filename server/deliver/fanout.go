package deliver

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/outage"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// The rhythm of the fan-out.
const (
	// turnLength is about how long one turn of an organization has the writer.
	turnLength = 5 * time.Millisecond
	// turnPause is for how many times as long as a turn had the writer it is then left
	// to others.
	turnPause = 3
)

// Log is where the fan-out reads events and makes deliveries.
type Log interface {
	// FanOutOrganizations returns the organizations that FanOut has something to do for,
	// now or once they have new events.
	FanOutOrganizations(ctx context.Context) ([]string, error)
	// FanOut makes deliveries of the next events of an organization, and notes in the
	// same transaction how far it has come. It has the writer for about most. There is
	// one call at a time.
	FanOut(ctx context.Context, organization string, most time.Duration) (webhook.FannedOut, error)
}

// FanOutConfig says what a FanOut works with.
type FanOutConfig struct {
	// Log is required.
	Log Log
	// Due is told which webhooks have something to deliver now. Required.
	Due func(webhookIDs []string)
	// MaxBehind is how far an organization's fan-out may be behind its changes before
	// these wait. Required.
	MaxBehind time.Duration
	// MaxWait bounds how long a change waits; then it is refused. Zero means 5 seconds.
	MaxWait time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Logger hears of what no caller is told. Nil means slog.Default().
	Logger *slog.Logger
}

// FanOut makes the deliveries of events, by following the log: a change's own
// transaction does not know of webhooks. Organizations that have new events take turns,
// and all turns together have about a quarter of the writer's time. Where an
// organization stands is in the database alone, so that after a crash it goes on from
// there.
type FanOut struct {
	FanOutConfig
	wake              chan struct{}
	scanning, turning *outage.Outage

	mu    sync.Mutex
	known map[string]*fanned // organizations that have terms of webhooks, by id
	// Before the first scan it is not known who has terms, so all are taken for such.
	scanned bool
	queue   []*fanned // those that have events, in the order of their turns
}

// fanned is an organization and how far behind its fan-out is.
type fanned struct {
	id     string
	queued bool // waits for its turn, or has it
	again  bool // was told of while it had its turn
	// oldest is about when the oldest event was made that is not fanned out; the zero
	// time where there is none.
	oldest time.Time
	// moved is closed after the next turn. It is there while a change waits.
	moved chan struct{}
}

// NewFanOut returns a fan-out. It starts nothing; Run makes deliveries.
func NewFanOut(c FanOutConfig) *FanOut {
	c.MaxWait = cmp.Or(c.MaxWait, 5*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &FanOut{
		FanOutConfig: c, wake: make(chan struct{}, 1), known: make(map[string]*fanned),
		scanning: outage.New(c.Logger, "It cannot be read whose events have deliveries to be made.", "It can be read again whose events have deliveries to be made."),
		turning:  outage.New(c.Logger, "The deliveries of events cannot be made; they are made later.", "The deliveries of events are made again."),
	}
}

// Notify tells the fan-out of a commit: which organizations its events are of, and in
// which a webhook was subscribed. It never blocks.
func (f *FanOut) Notify(organizations, subscribed []string) {
	if len(organizations) == 0 {
		return
	}
	now := f.Now()
	f.mu.Lock()
	for _, id := range subscribed {
		f.organizationLocked(id)
	}
	for _, id := range organizations {
		if o := f.known[id]; o != nil || !f.scanned {
			f.enqueueLocked(f.organizationLocked(id), now)
		}
	}
	f.mu.Unlock()
	f.notify()
}

func (f *FanOut) notify() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *FanOut) organizationLocked(id string) *fanned {
	o := f.known[id]
	if o == nil {
		o = &fanned{id: id}
		f.known[id] = o
	}
	return o
}

// enqueueLocked lets o have a turn, for an event made at a time.
func (f *FanOut) enqueueLocked(o *fanned, at time.Time) {
	if o.oldest.IsZero() {
		o.oldest = at
	}
	if o.queued {
		o.again = true
		return
	}
	o.queued = true
	f.queue = append(f.queue, o)
}

// Wait returns when the fan-out of an organization is near enough to its changes for one
// more. A change that has waited too long is refused: it may be tried again.
func (f *FanOut) Wait(ctx context.Context, organization string) error {
	moved := f.behind(organization)
	if moved == nil {
		return nil
	}
	end := time.NewTimer(f.MaxWait)
	defer end.Stop()
	for moved != nil {
		select {
		case <-moved:
			moved = f.behind(organization)
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return &apikey.Error{
				Kind: apikey.KindUnavailable, Reason: webhook.ReasonFanOutBehind, RetryAfter: f.MaxWait,
				Message: "The deliveries of earlier changes of this organization are still being made; the change was not made, try again.",
			}
		}
	}
	return nil
}

// behind returns nil where the organization is near enough, else what is closed after
// its next turn.
func (f *FanOut) behind(organization string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.known[organization]
	if o == nil || o.oldest.IsZero() || f.Now().Sub(o.oldest) <= f.MaxBehind {
		return nil
	}
	if o.moved == nil {
		o.moved = make(chan struct{})
	}
	return o.moved
}

// Run makes deliveries until ctx ends.
func (f *FanOut) Run(ctx context.Context) error {
	scan := time.NewTimer(f.scan(ctx))
	defer scan.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for ctx.Err() == nil {
		wake := f.wake
		if o := f.next(); o != nil {
			pause.Reset(f.turn(ctx, o))
			wake = nil // The pause comes first.
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-pause.C:
		case <-scan.C:
			scan.Reset(f.scan(ctx))
		}
	}
	return nil
}

// scan looks for organizations that nobody told of, and returns when to do so again.
func (f *FanOut) scan(ctx context.Context) time.Duration {
	ids, err := f.Log.FanOutOrganizations(ctx)
	if err != nil {
		note(ctx, f.scanning, err)
		return retryQueue
	}
	f.scanning.Note(nil)
	now := f.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if f.known[id] == nil {
			f.enqueueLocked(f.organizationLocked(id), now)
		}
	}
	for _, o := range f.known {
		if !o.queued && !o.oldest.IsZero() { // Its last turn failed.
			f.enqueueLocked(o, now)
		}
	}
	f.scanned = true
	return rescan
}

// next returns the organization whose turn it is, or nil.
func (f *FanOut) next() *fanned {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == 0 {
		return nil
	}
	o := f.queue[0]
	f.queue[0], f.queue = nil, f.queue[1:]
	return o
}

// turn gives o its turn and returns how long the writer is then to be left to others.
func (f *FanOut) turn(ctx context.Context, o *fanned) time.Duration {
	done, err := f.Log.FanOut(ctx, o.id, turnLength)
	note(ctx, f.turning, err)
	f.ended(o, &done, err)
	f.Due(done.Due)
	if err != nil {
		return retryQueue
	}
	return turnPause * done.Held
}

// ended takes what a turn of o has done.
func (f *FanOut) ended(o *fanned, done *webhook.FannedOut, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	again := o.again
	o.again, o.queued = false, false
	switch {
	case err != nil: // It has its next turn after the next scan, or the next event.
	case done.More:
		o.oldest = done.Oldest
		f.enqueueLocked(o, done.Oldest)
	case again:
		o.oldest = time.Time{}
		f.enqueueLocked(o, f.Now())
	case done.Idle:
		delete(f.known, o.id)
	default:
		o.oldest = time.Time{}
	}
	if o.moved != nil {
		close(o.moved)
		o.moved = nil
	}
}
