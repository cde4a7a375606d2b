package webhook

import (
	"slices"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// eventsScope is what a webhook grants to its endpoint for as long as it lasts.
const eventsScope = "events.read"

// CheckChange checks the change of a webhook that event tells of, by a caller with
// the rights r: w is the webhook as it would stand afterwards, and changes are the
// names of the fields that differ. A webhook is a lasting grant of events.read, so
// whoever makes or enables one, changes what it sends and where to, or learns its
// secret, must hold that scope. An event that the rule does not know is refused.
func CheckChange(r *apikey.Rights, event apikey.EventType, w *Webhook, changes []string) error {
	switch event {
	case WebhookCreated, WebhookSecretRotated:
		return r.Check(eventsScope)
	case WebhookUpdated:
		if slices.Contains(changes, "enabled") && w.Enabled ||
			slices.ContainsFunc(changes, func(name string) bool { return name == "events" || name == "url" || name == "headers" }) {
			return r.Check(eventsScope)
		}
		return nil
	case WebhookDeleted, WebhookTest, WebhookFailing, WebhookDisabled:
		return nil
	default:
		return apikey.Errorf(apikey.KindPermissionDenied, apikey.ReasonPermissionDenied, "The caller may not make an event %s.", event)
	}
}
