package webhook

import (
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
