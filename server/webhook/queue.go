package webhook

import (
	"context"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Ask is how many deliveries a worker has room for of one webhook.
type Ask struct {
	WebhookID string
	Max       int
}

// Claim is a delivery that a worker holds, with all that an attempt needs.
type Claim struct {
	Delivery Delivery
	Webhook  Webhook
	Event    apikey.Event
}

// Result is what came of the attempt of a claim.
type Result struct {
	DeliveryID string
	Trigger    Trigger
	StartedAt  time.Time
	Outcome    Outcome
}

// Queue is where deliveries wait. A delivery that was claimed is nobody else's
// until its lease ends, and is settled only by whoever holds it.
type Queue interface {
	// Due returns for each webhook with pending deliveries when the first of them
	// may be taken.
	Due(ctx context.Context) (map[string]time.Time, error)
	// Claim takes deliveries that are due, for each ask those that have waited
	// longest, under the lease until a time. next holds for each ask when the
	// webhook's next delivery may be taken; a webhook that is disabled, gone or
	// out of deliveries is not in it.
	Claim(ctx context.Context, asks []Ask, lease string, until time.Time) (claims []Claim, next map[string]time.Time, err error)
	// Settle takes what came of attempts under lease, those that are still held,
	// and returns each of these as it is now, with the attempt.
	Settle(ctx context.Context, lease string, results []Result, b Backoff) (map[string]Settled, error)
	// Release gives deliveries back as they were.
	Release(ctx context.Context, lease string, deliveryIDs []string) error
	// RecordHealth applies rule to a webhook, if it is still there, and publishes
	// the events that it returns.
	RecordHealth(ctx context.Context, webhookID string, rule func(w *Webhook, now time.Time) []apikey.EventType) error
}

// Settled is a delivery after an attempt.
type Settled struct {
	Delivery Delivery
	Attempt  Attempt
}
