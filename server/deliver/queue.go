package deliver

import (
	"context"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

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
	// longest, under the lease, which is of this claim alone and has a length. next
	// holds for each pick when the webhook's next delivery may be taken; a webhook
	// that is disabled, gone or out of deliveries is not in it. After an error
	// nothing is taken.
	Claim(ctx context.Context, picks []webhook.Pick, lease string, length time.Duration) (claims []webhook.Claim, next map[string]time.Time, err error)
	// Settle takes what came of attempts, of different deliveries, whose leases are
	// still held, and what that means for the health of the webhooks, in one
	// transaction. It returns these deliveries as they are now.
	Settle(ctx context.Context, results []webhook.Result, rules webhook.Rules, b webhook.Backoff) (webhook.Settlement, error)
	// Release gives deliveries that are still held under lease back as they were.
	Release(ctx context.Context, lease string, deliveryIDs []string) error
}
