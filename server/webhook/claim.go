package webhook

import (
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Pick is how many deliveries a worker has room for of one webhook.
type Pick struct {
	WebhookID string
	Max       int
}

// Endpoint is whose a webhook is and where it leads.
type Endpoint struct {
	WebhookID, OrganizationID, URL string
}

// Claim is a delivery that a worker holds, with all that an attempt needs. What came of
// earlier attempts is not in it.
type Claim struct {
	Lease    string
	Delivery Delivery
	// Webhook and Event are shared with other claims: nobody changes them. Event is nil
	// where the log no longer keeps it.
	Webhook *Webhook
	Event   *apikey.Event
}

// Result is what came of the attempt of a claim.
type Result struct {
	Lease string
	// Delivery is the delivery as it was claimed: another UpdatedAt says that a caller
	// changed it while the attempt was under way.
	Delivery Delivery
	// URL is where the attempt went, and Health the webhook's as it was claimed.
	URL                string
	Health             Health
	StartedAt, EndedAt time.Time
	Outcome            Outcome
}

// Result returns the result of c's attempt, as far as the claim says it.
func (c *Claim) Result() Result {
	return Result{Lease: c.Lease, Delivery: c.Delivery, URL: c.Webhook.URL, Health: c.Webhook.Health}
}

// Settlement is what results have led to: the deliveries as they are now, and the
// webhooks whose endpoints began to fail, or recovered.
type Settlement struct {
	Deliveries []Delivery
	Changed    []HealthChange
}

// HealthChange is a webhook whose endpoint began to fail or recovered, or that was
// disabled.
type HealthChange struct {
	WebhookID, OrganizationID string
	State                     HealthState
	DisabledReason            DisabledReason
	// FailingSince is when the first attempt failed; also of one that has recovered.
	FailingSince time.Time
	// LastError is why the newest attempt failed.
	LastError Failure
}
