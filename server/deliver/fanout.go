package deliver

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
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
	// maxBackoff bounds for how long an organization is passed over whose turns fail;
	// at first it is retryQueue, twice as long after each further failure.
	maxBackoff = 16 * time.Second
	// manyFailures is how many turns fail one after the other until that is taken for
	// the database's fault: all organizations wait then.
	manyFailures = 4
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
	// Backlog is set where servers share the database and the fan-out runs in one of them
	// at a time: how far it is behind is read from there. Nil means that it runs here.
	Backlog Backlog
	// MaxWait bounds how long a change waits; then it is refused. Zero means 5 seconds.
	MaxWait time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Logger hears of what no caller is told. Nil means slog.Default().
	Logger *slog.Logger
}

// Backlog tells how far the fan-out is behind, in whichever server it runs.
type Backlog interface {
	// FanOutOldest returns when the oldest event of an organization was made that is not
	// fanned out, or the zero time where there is none.
	FanOutOldest(ctx context.Context, organization string) (time.Time, error)
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
	// failures counts the turns that have failed since the last that went well; the
	// goroutine's of Run.
	failures int

	mu      sync.Mutex
	running bool
	known   map[string]*fanned // organizations that have terms of webhooks, by id
	// Before the first scan it is not known who has terms, so all are taken for such.
	scanned bool
	queue   []*fanned // those that have events, in the order of their turns
	paused  []*fanned // those that wait since their last turn failed, in no order
	failing int       // of how many the last turn failed

	backlogs backlogs
}

// fanned is an organization and how far behind its fan-out is.
type fanned struct {
	id     string
	queued bool // waits for its turn, has it, or is paused
	again  bool // was told of while it had its turn
	// failures counts its turns that have failed one after the other; until resume it is
	// passed over for them.
	failures int
	resume   time.Time
	// holding is true from the line in the log that tells that its changes wait until
	// the line that tells that they no longer do.
	holding bool
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
	if f.Backlog != nil && !f.running {
		f.mu.Unlock()
		return // It runs elsewhere.
	}
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

// NotifyAll tells the fan-out that any organization may have events that nobody told of.
// It never blocks.
func (f *FanOut) NotifyAll() {
	now := f.Now()
	f.mu.Lock()
	for _, o := range f.known {
		f.enqueueLocked(o, now)
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
	behind := f.behind
	if f.Backlog != nil {
		behind = func(organization string) <-chan struct{} { return f.behindElsewhere(ctx, organization) }
	}
	moved := behind(organization)
	if moved == nil {
		return nil
	}
	end := time.NewTimer(f.MaxWait)
	defer end.Stop()
	for moved != nil {
		select {
		case <-moved:
			moved = behind(organization)
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
	if !o.holding {
		o.holding = true
		f.Logger.Warn("The changes of an organization wait: the deliveries of its earlier changes are still being made.",
			"organization_id", o.id, "behind", f.Now().Sub(o.oldest).Round(time.Second).String())
	}
	return o.moved
}

// heldLocked tells the log, where the changes of o have waited, that they no longer do.
// An organization that is hardly near enough counts as behind still, so that one that
// makes changes as fast as it may is not told of again and again.
func (f *FanOut) heldLocked(o *fanned) {
	if !o.holding || !o.oldest.IsZero() && f.Now().Sub(o.oldest) > f.MaxBehind/2 {
		return
	}
	o.holding = false
	f.Logger.Info("The changes of an organization no longer wait.", "organization_id", o.id)
}

// Run makes deliveries until ctx ends. It may be called again after it has returned.
func (f *FanOut) Run(ctx context.Context) error {
	defer f.forget()
	f.mu.Lock()
	f.running = true // From before the first scan on, which finds what was committed until then.
	f.mu.Unlock()
	scan := time.NewTimer(f.scan(ctx))
	defer scan.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	resume := time.NewTimer(time.Hour)
	defer resume.Stop()
	for ctx.Err() == nil {
		resume.Reset(f.resumePaused())
		wake, resumed := f.wake, resume.C
		if o := f.next(); o != nil {
			pause.Reset(f.turn(ctx, o))
			wake, resumed = nil, nil // The pause comes first.
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-pause.C:
		case <-resumed:
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

// resumePaused gives those their turns again that were paused for long enough, and
// returns how long until that is so of the next.
func (f *FanOut) resumePaused() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, wait := f.Now(), time.Hour
	f.paused = slices.DeleteFunc(f.paused, func(o *fanned) bool {
		left := o.resume.Sub(now)
		if left > 0 {
			wait = min(wait, left)
			return false
		}
		f.queue = append(f.queue, o)
		return true
	})
	return wait
}

// turn gives o its turn and returns how long the writer is then to be left to others.
// An organization whose turn fails is paused, and the others go on.
func (f *FanOut) turn(ctx context.Context, o *fanned) time.Duration {
	done, err := f.Log.FanOut(ctx, o.id, turnLength)
	failing := f.ended(o, &done, err)
	f.Due(done.Due)
	switch {
	case err != nil && (ctx.Err() == nil || !errors.Is(err, ctx.Err())):
		f.turning.Note(err, "organization_id", o.id)
	case failing == 0:
		f.turning.Note(nil)
	}
	if err != nil {
		if f.failures++; f.failures >= manyFailures {
			return retryQueue
		}
		return turnLength
	}
	if f.failures >= manyFailures {
		f.endPauses()
	}
	f.failures = 0
	return turnPause * done.Held
}

// endPauses lets all that are paused have their turns: what failed was not theirs.
func (f *FanOut) endPauses() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.paused {
		o.resume = time.Time{}
	}
}

// ended takes what a turn of o has done, and returns of how many organizations the last
// turn failed.
func (f *FanOut) ended(o *fanned, done *webhook.FannedOut, err error) (failing int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.heldLocked(o)
	if o.moved != nil {
		close(o.moved)
		o.moved = nil
	}
	if err != nil {
		if o.failures == 0 {
			f.failing++
		}
		o.resume = f.Now().Add(min(retryQueue<<min(o.failures, 10), maxBackoff))
		o.failures++
		f.paused = append(f.paused, o)
		return f.failing
	}
	if o.failures > 0 {
		f.failing--
	}
	again := o.again
	o.again, o.queued, o.failures = false, false, 0
	switch {
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
	return f.failing
}
