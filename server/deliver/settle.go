package deliver

import (
	"context"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// The rhythm of settling.
const (
	// maxSettle bounds how many results one transaction takes.
	maxSettle = 256
	// settleTries is how often results are tried to be settled, within their lease.
	settleTries = 15
)

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
		w.Observations.changed(&settled.Changed[i])
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
