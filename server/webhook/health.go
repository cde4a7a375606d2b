package webhook

import (
	"net/http"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Health is how the endpoint of a webhook has fared since its last success. The
// zero Health is a good one.
type Health struct {
	// FailingSince is when the first attempt after the last success failed.
	FailingSince time.Time
	// Warned reports that webhook.failing was published for this spell.
	Warned bool
}

// AttemptSucceeded ends a spell of failures. It reports whether there was one, that is
// whether w has to be stored.
func (r Rules) AttemptSucceeded(w *Webhook) bool {
	ended := w.Health != Health{}
	w.Health = Health{}
	return ended
}

// AttemptFailed counts a failed attempt of d, which [Delivery.Settle] has already
// taken, and returns the types of the events to publish about w, in order; w is
// to be stored where its Health changed. Health is no field that clients see, so
// webhook.failing alone moves neither updated_at nor etag.
//
// webhook.failing comes once in a spell, when one delivery has failed several
// times in a row. The webhook is disabled when its endpoint answered 410, and
// when it has failed for days; then it was warned before.
func (r Rules) AttemptFailed(w *Webhook, d *Delivery, a *Attempt, now time.Time) []apikey.EventType {
	// What began before a change says nothing of the webhook as it is now.
	if !w.Enabled || a.StartedAt.Before(w.UpdatedAt) {
		return nil
	}
	if w.Health.FailingSince.IsZero() {
		w.Health.FailingSince = now
	}
	if a.Status == http.StatusGone {
		w.Enabled, w.DisabledReason = false, DisabledGone
		return []apikey.EventType{WebhookDisabled}
	}
	var events []apikey.EventType
	if !w.Health.Warned && d.Failures >= positive(r.FailingAfter, 4) {
		w.Health.Warned = true
		events = append(events, WebhookFailing)
	}
	if w.Health.Warned && now.Sub(w.Health.FailingSince) >= positive(r.DisableAfter, 5*24*time.Hour) {
		w.Enabled, w.DisabledReason = false, DisabledFailing
		events = append(events, WebhookDisabled)
	}
	return events
}
