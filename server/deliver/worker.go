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

	"github.com/apikeys-dev/apikeys/server/outage"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// The rhythm of a worker.
const (
	// leaseLength is longer than the longest attempt, and short enough that what a
	// dead server held is tried again within 75 seconds.
	leaseLength = 60 * time.Second
	// maxPicks bounds how many webhooks one claim looks at, and with it how long it
	// holds the writer.
	maxPicks = 64
	// maxSettle bounds how many results one transaction takes.
	maxSettle = 256
	// rescan is how often the queue is looked through for what nobody told of:
	// deliveries that another server has made or has left behind.
	rescan = 10 * time.Second
	// retryQueue is how long a worker waits after the queue could not be reached.
	retryQueue = time.Second
	// settleTries is how often results are tried to be settled, within their lease.
	settleTries = 15
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
	wake      chan struct{}
	scheduler scheduler

	// The outages of the queue, by what is asked of it.
	scanning, claiming, releasing, settling *outage.Outage

	results  chan webhook.Result
	told     map[string]time.Time // when the log was told of a webhook last; the settling goroutine's
	underWay sync.WaitGroup
}

// NewWorker returns a worker. It starts nothing; Run sends.
func NewWorker(c WorkerConfig) *Worker {
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
	for ctx.Err() == nil {
		timer.Reset(w.claim(ctx, attempts))
		select {
		case <-ctx.Done():
		case <-w.wake:
		case <-timer.C:
		case <-scan.C:
			scan.Reset(w.scan(ctx))
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
	return rescan
}

// claim takes what is due as far as there is room, starts its attempts, and
// returns how long until more is due.
func (w *Worker) claim(ctx, attempts context.Context) time.Duration {
	for {
		now := w.Now()
		w.introduce(ctx)
		picks, wait := w.scheduler.pick(now)
		if len(picks) == 0 || ctx.Err() != nil {
			return wait
		}
		lease := uuid.Must(uuid.NewV7()).String()
		// Cut off in the middle, it could have taken what nobody sends.
		claims, next, err := w.Queue.Claim(context.WithoutCancel(attempts), picks, lease, now.Add(leaseLength))
		if err != nil {
			w.scheduler.refused(picks, now)
			note(ctx, w.claiming, err)
			return retryQueue
		}
		w.claiming.Note(nil)
		w.scheduler.claimed(claims, next)
		for i := range claims {
			w.underWay.Go(func() { w.attempt(attempts, &claims[i]) })
		}
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

// attempt makes one attempt and hands on what came of it. A failure keeps its room until
// it is settled: an endpoint that says at once that it is gone would else be sent more
// before that is known.
func (w *Worker) attempt(ctx context.Context, c *webhook.Claim) {
	result := c.Result()
	result.StartedAt = w.Now()
	var err error
	result.Outcome, err = w.send(ctx, c)
	result.EndedAt = w.Now()
	if err != nil {
		w.release(context.WithoutCancel(ctx), c)
		w.done(c.Delivery.WebhookID, outcomeNone)
		return
	}
	w.results <- result
	if result.Outcome.Acknowledged() {
		w.done(c.Delivery.WebhookID, outcomeSucceeded)
	}
}

// done gives back the room of an attempt.
func (w *Worker) done(webhookID string, outcome outcomeKind) {
	w.scheduler.done(webhookID, outcome)
	w.notify()
}

// doneFailures gives back the room of the attempts of a batch that did not succeed.
func (w *Worker) doneFailures(batch []webhook.Result) {
	for i := range batch {
		switch o := &batch[i].Outcome; {
		case o.Acknowledged():
		case o.Ours():
			w.done(batch[i].Delivery.WebhookID, outcomeNone)
		default:
			w.done(batch[i].Delivery.WebhookID, outcomeFailed)
		}
	}
}

// release gives a claim back whose attempt was cut off.
func (w *Worker) release(ctx context.Context, c *webhook.Claim) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	note(ctx, w.releasing, w.Queue.Release(ctx, c.Lease, []string{c.Delivery.ID}))
}

// send makes the attempt of a claim. An error means that it was cut off.
func (w *Worker) send(ctx context.Context, c *webhook.Claim) (o webhook.Outcome, err error) {
	// What one delivery breaks must not take the others along.
	defer func() {
		if p := recover(); p != nil {
			w.Logger.Error("Sending a delivery panicked.", "delivery_id", c.Delivery.ID, "panic", p, "stack", string(debug.Stack()))
			o, err = webhook.Outcome{Failure: webhook.Failure{Class: webhook.ClassInternal, Message: "The delivery could not be sent, which is our fault."}}, nil
		}
	}()
	if c.Event.ID == "" {
		return webhook.Outcome{Failure: webhook.Failure{Class: webhook.ClassEventGone, Message: "The log no longer keeps the event of this delivery."}}, nil
	}
	body, err := Body(nil, &c.Delivery, &c.Event)
	if err != nil {
		w.Logger.Error("The body of a delivery could not be made.", "delivery_id", c.Delivery.ID, "error", err)
		return webhook.Outcome{Failure: webhook.Failure{Class: webhook.ClassInternal, Message: "The body could not be made, which is our fault."}}, nil
	}
	outcome, err := w.Client.Send(ctx, c.Webhook.URL, c.Webhook.Header(&c.Delivery, body, w.Now()), body)
	outcome.Body = c.Webhook.KeptAnswer(outcome.Body)
	return outcome, err
}

// settleAll settles results, those that have come together in one transaction,
// until there are no more. Once ctx has ended it waits for nothing.
func (w *Worker) settleAll(ctx context.Context) {
	for first := range w.results {
		batch := append(make([]webhook.Result, 0, maxSettle), first)
		for more := true; more && len(batch) < maxSettle; {
			select {
			case r, ok := <-w.results:
				if more = ok; ok {
					batch = append(batch, r)
				}
			default:
				more = false
			}
		}
		w.settle(ctx, batch)
	}
}

// settle settles results. While the queue cannot be reached they wait, and new
// attempts with them, as long as their leases surely hold.
func (w *Worker) settle(ctx context.Context, batch []webhook.Result) {
	defer w.doneFailures(batch)
	var settled webhook.Settlement
	for try := 1; ; try++ {
		var err error
		if settled, err = w.Queue.Settle(context.WithoutCancel(ctx), batch, w.Rules, w.Backoff); err == nil {
			break
		}
		if try == settleTries || ctx.Err() != nil {
			// At least once, not exactly.
			w.settling.Note(err, "deliveries", len(batch))
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryQueue):
		}
	}
	w.settling.Note(nil)
	for i := range settled.Deliveries {
		if at := settled.Deliveries[i].NextAttemptAt; !at.IsZero() {
			w.scheduler.dueAt(at, settled.Deliveries[i].WebhookID)
		}
	}
	for i := range settled.Changed {
		w.tell(&settled.Changed[i])
	}
	w.notify()
}

// How often the log is told of one webhook, whose endpoint may fail and recover as often
// as it likes, and of how many this is remembered.
const (
	tellInterval = time.Minute
	maxTold      = 1024
)

// tell logs that an endpoint began to fail, was given up, or recovered. Neither its url
// nor what it answered is in the line.
func (w *Worker) tell(c *webhook.HealthChange) {
	now := w.Now()
	if c.DisabledReason == "" && now.Sub(w.told[c.WebhookID]) < tellInterval {
		return
	}
	if len(w.told) >= maxTold {
		clear(w.told)
	}
	w.told[c.WebhookID] = now
	log := w.Logger.With("webhook_id", c.WebhookID, "organization_id", c.OrganizationID)
	switch {
	case c.DisabledReason != "":
		log.Warn("A webhook was disabled.", "reason", c.DisabledReason, "failing_since", c.FailingSince, "error_class", c.LastError.Class)
	case c.State == webhook.HealthFailing:
		log.Warn("A webhook is failing.", "failing_since", c.FailingSince, "error_class", c.LastError.Class)
	default:
		log.Warn("A webhook has recovered.", "failing_since", c.FailingSince)
	}
}

// note takes what was asked of the queue once came to, unless it is only that ctx has
// ended.
func note(ctx context.Context, o *outage.Outage, err error) {
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		o.Note(err)
	}
}

// Queue is where deliveries wait. A delivery that was claimed is nobody else's
// until its lease ends, and is settled only by whoever holds it.
type Queue interface {
	// Due returns for each enabled webhook with pending deliveries when the first
	// of them may be taken.
	Due(ctx context.Context) (map[string]time.Time, error)
	// Endpoints returns whose webhooks are and where they lead. Those that are gone are
	// not in it.
	Endpoints(ctx context.Context, webhookIDs []string) ([]webhook.Endpoint, error)
	// Claim takes deliveries that are due, for each pick those that have waited
	// longest, under the lease, which is of this claim alone, until a time. next
	// holds for each pick when the webhook's next delivery may be taken; a webhook
	// that is disabled, gone or out of deliveries is not in it. After an error
	// nothing is taken.
	Claim(ctx context.Context, picks []webhook.Pick, lease string, until time.Time) (claims []webhook.Claim, next map[string]time.Time, err error)
	// Settle takes what came of attempts, of different deliveries, whose leases are
	// still held, and what that means for the health of the webhooks, in one
	// transaction. It returns these deliveries as they are now.
	Settle(ctx context.Context, results []webhook.Result, rules webhook.Rules, b webhook.Backoff) (webhook.Settlement, error)
	// Release gives deliveries that are still held under lease back as they were.
	Release(ctx context.Context, lease string, deliveryIDs []string) error
}
