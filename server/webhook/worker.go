package webhook

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/gofrs/uuid/v5"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The rhythm of a worker.
const (
	// leaseLength is longer than the longest attempt, and short enough that what a
	// dead server held is tried again within 75 seconds.
	leaseLength = 60 * time.Second
	// maxAsks bounds how many webhooks one claim looks at, and with it how long it
	// holds the writer.
	maxAsks = 64
	// maxSettle bounds how many results one transaction takes.
	maxSettle = 100
	// rescan is how often the queue is looked through for what nobody told of:
	// deliveries that another server has made or has left behind.
	rescan = 10 * time.Second
	// retryQueue is how long a worker waits after the queue could not be reached.
	retryQueue = time.Second
)

// WorkerConfig says what a Worker works with.
type WorkerConfig struct {
	// Queue is required.
	Queue Queue
	// Client makes the attempts. Required.
	Client *Client
	// Rules judge the webhooks' health.
	Rules Rules
	// Backoff is the schedule of attempts.
	Backoff Backoff
	// PerWebhook bounds the attempts in flight to one webhook. Zero means 8.
	PerWebhook int
	// InFlight bounds the attempts in flight in all. Webhooks that fail get half of
	// it at most. Zero means 512.
	InFlight int
	// Grace is how long attempts under way may go on once the worker is told to
	// stop; those that are not over by then are given back, uncounted. Zero means
	// 20 seconds.
	Grace time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Logger hears of what no caller is told. Nil means slog.Default().
	Logger *slog.Logger
}

// Worker sends deliveries. It asks the queue for a few deliveries of each webhook
// that has some due, never for the oldest of all, so that an endpoint which is
// slow or has thousands waiting delays only itself.
type Worker struct {
	WorkerConfig
	lease string
	wake  chan struct{}
	lanes lanes

	results chan Result
	flights sync.WaitGroup
}

// NewWorker returns a worker. It starts nothing; Run sends.
func NewWorker(c WorkerConfig) *Worker {
	c.PerWebhook = positive(c.PerWebhook, 8)
	c.InFlight = positive(c.InFlight, 512)
	c.Grace = positive(c.Grace, 20*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Worker{
		WorkerConfig: c,
		lease:        uuid.Must(uuid.NewV7()).String(),
		wake:         make(chan struct{}, 1),
		lanes:        lanes{byID: make(map[string]*lane), perWebhook: c.PerWebhook, inFlight: c.InFlight},
		results:      make(chan Result, c.InFlight),
	}
}

// Wake tells the worker that webhooks have something due now. It never blocks.
func (w *Worker) Wake(webhookIDs []string) {
	if len(webhookIDs) == 0 {
		return
	}
	w.lanes.due(webhookIDs, w.Now())
	w.ring()
}

func (w *Worker) ring() {
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
		w.settleAll(context.WithoutCancel(ctx))
	}()

	w.claimAll(ctx, attempts)

	grace := time.AfterFunc(w.Grace, cut)
	w.flights.Wait()
	grace.Stop()
	close(w.results)
	<-settled
	w.Client.Close()
	return nil
}

// claimAll claims and starts attempts until ctx ends.
func (w *Worker) claimAll(ctx, attempts context.Context) {
	scan := time.NewTimer(0)
	defer scan.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := w.claim(ctx, attempts)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		case <-scan.C:
			scan.Reset(rescan)
			due, err := w.Queue.Due(ctx)
			if err != nil {
				w.problem(ctx, "The queue could not be looked through.", err)
				continue
			}
			w.lanes.replace(due)
		}
	}
}

// claim takes what is due as far as there is room, starts its attempts, and
// returns how long until more is due.
func (w *Worker) claim(ctx, attempts context.Context) time.Duration {
	for {
		now := w.Now()
		asks, wait := w.lanes.ask(now)
		if len(asks) == 0 || ctx.Err() != nil {
			return wait
		}
		claims, next, err := w.Queue.Claim(ctx, asks, w.lease, now.Add(leaseLength))
		if err != nil {
			w.lanes.refused(asks)
			w.problem(ctx, "Deliveries could not be claimed.", err)
			return retryQueue
		}
		w.lanes.claimed(asks, claims, next)
		for i := range claims {
			w.flights.Add(1)
			go func() {
				defer w.flights.Done()
				w.attempt(attempts, &claims[i])
			}()
		}
	}
}

// attempt makes one attempt and hands on what came of it.
func (w *Worker) attempt(ctx context.Context, c *Claim) {
	result := Result{DeliveryID: c.Delivery.ID, Trigger: c.Delivery.Trigger, StartedAt: w.Now()}
	outcome, err := w.send(ctx, c)
	if err != nil {
		// Ours, not the endpoint's: it is not counted.
		w.lanes.done(c.Delivery.WebhookID, outcomeUnknown)
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.Grace)
		defer cancel()
		if err := w.Queue.Release(release, w.lease, []string{c.Delivery.ID}); err != nil {
			w.problem(release, "A delivery could not be given back; it is due again when its lease ends.", err)
		}
		return
	}
	result.Outcome = outcome
	w.judge(context.WithoutCancel(ctx), c, &result)
	w.results <- result
	if outcome.Acknowledged() {
		w.lanes.done(c.Delivery.WebhookID, outcomeGood)
	} else {
		w.lanes.done(c.Delivery.WebhookID, outcomeBad)
	}
	w.ring()
}

// send makes the attempt of a claim.
func (w *Worker) send(ctx context.Context, c *Claim) (Outcome, error) {
	if c.Event.ID == "" {
		return Outcome{Failure: Failure{ClassEventGone, "The log no longer keeps the event of this delivery."}}, nil
	}
	body, err := Body(nil, &c.Delivery, &c.Event)
	if err != nil {
		w.problem(ctx, "The body of a delivery could not be made.", err)
		return Outcome{}, err
	}
	return w.Client.Send(ctx, c.Webhook.URL, c.Webhook.Header(&c.Delivery, body, w.Now()), body)
}

// judge records what an outcome means for the webhook's health, where it means
// anything.
func (w *Worker) judge(ctx context.Context, c *Claim, r *Result) {
	after := c.Delivery
	attempt := after.Settle(r.Outcome, r.Trigger, r.StartedAt, w.Backoff, w.Now())
	rule := func(hook *Webhook, now time.Time) []apikey.EventType {
		if attempt.Acknowledged() {
			w.Rules.AttemptSucceeded(hook)
			return nil
		}
		return w.Rules.AttemptFailed(hook, &after, &attempt, now)
	}
	// Most outcomes change nothing; those are not written.
	tried := c.Webhook
	if events := rule(&tried, w.Now()); len(events) == 0 && tried.Health == c.Webhook.Health {
		return
	}
	if err := w.Queue.RecordHealth(ctx, c.Webhook.ID, rule); err != nil {
		w.problem(ctx, "The health of a webhook could not be recorded.", err)
	}
}

// settleAll settles results, those that have come together in one transaction,
// until there are no more.
func (w *Worker) settleAll(ctx context.Context) {
	for first := range w.results {
		batch := append(make([]Result, 0, maxSettle), first)
		for len(batch) < maxSettle {
			select {
			case r, ok := <-w.results:
				if !ok {
					w.settle(ctx, batch)
					return
				}
				batch = append(batch, r)
				continue
			default:
			}
			break
		}
		w.settle(ctx, batch)
	}
}

func (w *Worker) settle(ctx context.Context, batch []Result) {
	settled, err := w.Queue.Settle(ctx, w.lease, batch, w.Backoff)
	if err != nil {
		// They are sent again when their lease ends: at least once, not exactly.
		w.problem(ctx, "Attempts could not be settled; their deliveries will be sent again.", err)
		return
	}
	for _, s := range settled {
		if !s.Delivery.NextAttemptAt.IsZero() {
			w.lanes.dueAt(s.Delivery.WebhookID, s.Delivery.NextAttemptAt)
		}
	}
	w.ring()
}

// problem logs what went wrong, unless it is only that ctx has ended.
func (w *Worker) problem(ctx context.Context, what string, err error) {
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		w.Logger.Error(what, "error", err)
	}
}
