package deliver

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gofrs/uuid/v5"

	"github.com/apikeys-dev/apikeys/server/broken"
	"github.com/apikeys-dev/apikeys/server/outage"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// The rhythm of a worker.
const (
	// leaseLength is longer than the longest attempt, and short enough that what a
	// dead server held is tried again within 75 seconds.
	leaseLength = 60 * time.Second
	// leaseMargin is how much earlier than its half the lease of an attempt counts as
	// too old to begin: an attempt may take 30 seconds, and then has to be settled.
	leaseMargin = 5 * time.Second
	// maxPicks bounds how many webhooks one claim looks at, and with it how long it
	// holds the writer.
	maxPicks = 64
	// rescan is how often the queue is looked through for what nobody told of, unless
	// WorkerConfig.Rescan says otherwise.
	rescan = 10 * time.Second
	// lookInterval is how long after one look through the queue the next begins, however
	// many are asked for.
	lookInterval = 250 * time.Millisecond
	// retryQueue is how long a worker waits after the queue could not be reached.
	retryQueue = time.Second
	// releaseTime bounds how long giving a delivery back may take at the end.
	releaseTime = 5 * time.Second
)

// WorkerConfig says what a Worker works with.
type WorkerConfig struct {
	// Queue is required.
	Queue Queue
	// Client makes the attempts. Required.
	Client *Client
	// Rules decide on the webhooks' health.
	Rules webhook.Rules
	// Backoff is the schedule of attempts.
	Backoff webhook.Backoff
	// PerWebhook bounds the attempts in flight to one webhook. Required.
	PerWebhook int
	// PerHost bounds the attempts in flight to the webhooks of one host, and
	// PerOrganization to those of one organization. Webhooks that fail get half of each at
	// most. Zero means no bound.
	PerHost, PerOrganization int
	// InFlight bounds the attempts in flight in all. Webhooks that fail get half of
	// it at most, and none more than a sixteenth of what is free. Zero means 512,
	// or 16 times PerWebhook where that is more.
	InFlight int
	// Grace is how long attempts under way may go on once the worker is told to
	// stop; those that are not over by then are given back, uncounted.
	Grace time.Duration
	// Observations is told of each attempt. Nil means nobody.
	Observations *Observations
	// Rescan is how often the queue is looked through for what nobody told of:
	// deliveries that another server has made or has left behind. Zero means 10 seconds.
	Rescan time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Logger hears of what no caller is told. Nil means slog.Default().
	Logger *slog.Logger
}

// Worker sends deliveries. It picks the queue for a few deliveries of each webhook
// that has some due, never for the oldest of all, so that an endpoint which is
// slow or has thousands waiting delays only itself.
type Worker struct {
	WorkerConfig
	wake, look chan struct{}
	scheduler  scheduler

	// The outages of the queue, by what is asked of it.
	scanning, claiming, releasing, settling *outage.Outage

	renderings renderings // the claiming goroutine's

	results  chan webhook.Result
	told     map[string]time.Time // when the log was told of a webhook last; the settling goroutine's
	underWay sync.WaitGroup
}

// NewWorker returns a worker. It starts nothing; Run sends.
func NewWorker(c WorkerConfig) *Worker {
	c.Rescan = cmp.Or(c.Rescan, rescan)
	c.InFlight = cmp.Or(c.InFlight, max(512, maxShare*c.PerWebhook))
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Worker{
		WorkerConfig: c,
		wake:         make(chan struct{}, 1),
		look:         make(chan struct{}, 1),
		scheduler:    scheduler{byID: make(map[string]*endpoint), perWebhook: c.PerWebhook, maxInFlight: c.InFlight, perHost: c.PerHost, perOrganization: c.PerOrganization},
		results:      make(chan webhook.Result, c.InFlight),
		told:         make(map[string]time.Time),
		scanning:     outage.New(c.Logger, "The queue could not be looked through; it is tried again.", "The queue is looked through again."),
		claiming:     outage.New(c.Logger, "Deliveries could not be claimed; it is tried again.", "Deliveries are claimed again."),
		releasing:    outage.New(c.Logger, "Deliveries could not be given back; they are due again when their leases end.", "Deliveries are given back again."),
		settling:     outage.New(c.Logger, "Attempts could not be settled; their deliveries will be sent again.", "Attempts are settled again."),
	}
}

// Wake tells the worker that webhooks have something due now. It never blocks.
func (w *Worker) Wake(webhookIDs []string) {
	if len(webhookIDs) == 0 {
		return
	}
	w.scheduler.dueAt(w.Now(), webhookIDs...)
	w.notify()
}

// Look has the worker look through the queue soon: another server may have made
// deliveries, and nobody here knows of which webhooks. It never blocks. However often it
// is called, the queue is looked through a few times a second at most.
func (w *Worker) Look() {
	select {
	case w.look <- struct{}{}:
	default:
	}
}

func (w *Worker) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run sends deliveries until ctx ends. Attempts under way then have Grace to
// finish, and what came of them is settled before Run returns.
func (w *Worker) Run(ctx context.Context) error {
	// Attempts and their results outlive ctx by the grace.
	attempts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		w.settleAll(attempts)
	}()

	w.claimAll(ctx, attempts)
	w.returnIdle(attempts, w.scheduler.drain())

	grace := time.AfterFunc(w.Grace, cut)
	w.underWay.Wait()
	close(w.results)
	<-settled
	grace.Stop()
	w.Client.Close()
	return nil
}

// claimAll claims and starts attempts until ctx ends.
func (w *Worker) claimAll(ctx, attempts context.Context) {
	scan := time.NewTimer(0)
	defer scan.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var scanned time.Time
	for ctx.Err() == nil {
		timer.Reset(w.claim(ctx, attempts))
		select {
		case <-ctx.Done():
		case <-w.wake:
		case <-timer.C:
		case <-w.look:
			scan.Reset(max(lookInterval-w.Now().Sub(scanned), 0))
		case <-scan.C:
			scan.Reset(w.scan(ctx))
			scanned = w.Now()
		}
	}
}

// scan looks through the queue and returns when to do so again.
func (w *Worker) scan(ctx context.Context) time.Duration {
	due, err := w.Queue.Due(ctx)
	if err != nil {
		note(ctx, w.scanning, err)
		return retryQueue
	}
	w.scanning.Note(nil)
	w.scheduler.scanned(due)
	return w.Rescan
}

// claim takes what is due as far as there is room or may be soon, starts the attempts
// that there is room for, and returns how long until there is more to do.
func (w *Worker) claim(ctx, attempts context.Context) time.Duration {
	for {
		now := w.Now()
		begin, back, expires := w.scheduler.begin(now)
		for i := range begin {
			w.begin(attempts, begin[i])
		}
		w.returnIdle(attempts, back)
		w.introduce(ctx)
		picks, wait := w.scheduler.pick(now)
		if len(picks) == 0 || ctx.Err() != nil {
			return min(wait, expires)
		}
		lease := uuid.Must(uuid.NewV7()).String()
		// Cut off in the middle, it could have taken what nobody sends.
		claims, next, err := w.Queue.Claim(context.WithoutCancel(attempts), picks, lease, leaseLength)
		if err != nil {
			w.scheduler.refused(picks, now)
			note(ctx, w.claiming, err)
			return min(retryQueue, expires)
		}
		w.claiming.Note(nil)
		prefetch := w.scheduler.claimed(claims, next)
		for i := range claims {
			d := sending{claim: &claims[i], event: w.renderings.of(claims[i].Event), claimed: now}
			if prefetch[i] {
				w.scheduler.prefetch(d)
			} else {
				w.begin(attempts, d)
			}
		}
	}
}

// begin starts the attempt of what was claimed, and one after it for each prefetched
// claim that takes the room that the one before has left.
func (w *Worker) begin(ctx context.Context, d sending) {
	w.underWay.Go(func() {
		for found := true; found; {
			d, found = w.attempt(ctx, d)
		}
	})
}

// returnIdle gives claims back whose attempts have not begun.
func (w *Worker) returnIdle(ctx context.Context, claims []sending) {
	byLease := make(map[string][]string)
	for i := range claims {
		c := claims[i].claim
		byLease[c.Lease] = append(byLease[c.Lease], c.Delivery.ID)
	}
	for lease, ids := range byLease {
		w.release(context.WithoutCancel(ctx), lease, ids...)
	}
	for i := range claims {
		w.scheduler.dueAt(w.Now(), claims[i].claim.Delivery.WebhookID)
	}
}

// introduce reads whose webhooks are that the scheduler has not known. Those of which
// that cannot be read are not bounded by host and organization until they are claimed.
func (w *Worker) introduce(ctx context.Context) {
	ids := w.scheduler.unknownIDs()
	if len(ids) == 0 {
		return
	}
	endpoints, err := w.Queue.Endpoints(ctx, ids)
	if err != nil {
		note(ctx, w.scanning, err)
	}
	w.scheduler.introduce(endpoints)
}

// attempt makes one attempt of what was claimed, and hands on what came of it. It returns
// the prefetched claim that takes its room, if there is one.
// A failure keeps its room until it is settled: an endpoint that says at once that it is
// gone would else be sent more before that is known.
func (w *Worker) attempt(ctx context.Context, d sending) (following sending, found bool) {
	c := d.claim
	result := c.Result()
	result.StartedAt = w.Now()
	var err error
	if result.StartedAt.Sub(d.claimed) > leaseLength/2-leaseMargin {
		// The process stood still. The lease could end during the attempt, and another
		// server send the same.
		err = context.DeadlineExceeded
	} else {
		seen := w.Observations.begin()
		result.Outcome, err = w.send(ctx, c, d.event)
		w.Observations.end(seen, &result.Outcome, err)
	}
	result.EndedAt = w.Now()
	if err != nil {
		w.release(context.WithoutCancel(ctx), c.Lease, c.Delivery.ID)
		w.scheduler.dueAt(result.EndedAt, c.Delivery.WebhookID)
		w.done(c.Delivery.WebhookID, outcomeNone)
		return sending{}, false
	}
	w.results <- result
	if !result.Outcome.Acknowledged() {
		return sending{}, false
	}
	outcome := outcomeSucceeded
	if result.EndedAt.Sub(result.StartedAt) <= quickAttempt {
		outcome = outcomeQuick
	}
	changed := w.scheduler.done(c.Delivery.WebhookID, outcome)
	following, found, low := w.scheduler.following(c.Delivery.WebhookID, result.EndedAt)
	if changed || low {
		w.notify()
	}
	return following, found
}

// done gives back the room of an attempt.
func (w *Worker) done(webhookID string, outcome outcomeKind) {
	w.scheduler.done(webhookID, outcome)
	w.notify()
}

// release gives deliveries back whose attempts were cut off, or have not begun.
func (w *Worker) release(ctx context.Context, lease string, deliveryIDs ...string) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	note(ctx, w.releasing, w.Queue.Release(ctx, lease, deliveryIDs))
}

// send makes the attempt of a claim. An error means that it was cut off.
func (w *Worker) send(ctx context.Context, c *webhook.Claim, event *rendering) (o webhook.Outcome, err error) {
	if broken.Is(broken.ClaimUnfenced) {
		w.release(context.WithoutCancel(ctx), c.Lease, c.Delivery.ID)
	}
	// What one delivery breaks must not take the others along.
	defer func() {
		if p := recover(); p != nil {
			w.Logger.Error("Sending a delivery panicked.", "delivery_id", c.Delivery.ID, "panic", p, "stack", string(debug.Stack()))
			o, err = webhook.Outcome{Failure: webhook.Failure{Class: webhook.ClassInternal, Message: "The delivery could not be sent, which is our fault."}}, nil
		}
	}()
	if event == nil {
		return webhook.Outcome{Failure: webhook.Failure{Class: webhook.ClassEventGone, Message: "The log no longer keeps the event of this delivery."}}, nil
	}
	body, err := event.body(&c.Delivery)
	if err != nil {
		w.Logger.Error("The body of a delivery could not be made.", "delivery_id", c.Delivery.ID, "error", err)
		return webhook.Outcome{Failure: webhook.Failure{Class: webhook.ClassInternal, Message: "The body could not be made, which is our fault."}}, nil
	}
	outcome, err := w.Client.Send(ctx, c.Webhook.URL, c.Webhook.Header(&c.Delivery, body, w.Now()), body)
	outcome.Body = c.Webhook.KeptAnswer(outcome.Body)
	return outcome, err
}

// note takes what was asked of the queue once came to, unless it is only that ctx has
// ended.
func note(ctx context.Context, o *outage.Outage, err error) {
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		o.Note(err)
	}
}
