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

// Claim is a delivery that a worker holds, with all that an attempt needs. Event
// has no ID where the log no longer keeps it.
type Claim struct {
	Lease    string
	Delivery Delivery
	Webhook  Webhook
	Event    apikey.Event
}

// Result is what came of the attempt of a claim.
type Result struct {
	DeliveryID         string
	Lease              string
	Trigger            Trigger
	StartedAt, EndedAt time.Time
	Outcome            Outcome
}

// Queue is where deliveries wait. A delivery that was claimed is nobody else's
// until its lease ends, and is settled only by whoever holds it.
type Queue interface {
	// Due returns for each enabled webhook with pending deliveries when the first
	// of them may be taken.
	Due(ctx context.Context) (map[string]time.Time, error)
	// Claim takes deliveries that are due, for each ask those that have waited
	// longest, under the lease, which is of this claim alone, until a time. next
	// holds for each ask when the webhook's next delivery may be taken; a webhook
	// that is disabled, gone or out of deliveries is not in it. After an error
	// nothing is taken.
	Claim(ctx context.Context, asks []Ask, lease string, until time.Time) (claims []Claim, next map[string]time.Time, err error)
	// Settle takes what came of attempts, of different deliveries, whose leases are
	// still held, and returns these deliveries as they are now.
	Settle(ctx context.Context, results []Result, b Backoff) ([]Delivery, error)
	// Release gives deliveries that are still held under lease back as they were.
	Release(ctx context.Context, lease string, deliveryIDs []string) error
	// RecordHealth applies rule to a webhook, if it is still there, and publishes
	// the events that it returns.
	RecordHealth(ctx context.Context, webhookID string, rule func(w *Webhook, now time.Time) []apikey.EventType) error
}
