package webhook

import (
	"slices"
	"strings"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The types of events about webhooks. Each is subscribed to by name, but the
// last, which TestWebhook alone sends.
const (
	WebhookCreated       apikey.EventType = "webhook.created"
	WebhookUpdated       apikey.EventType = "webhook.updated"
	WebhookDeleted       apikey.EventType = "webhook.deleted"
	WebhookSecretRotated apikey.EventType = "webhook.secret_rotated"
	WebhookFailing       apikey.EventType = "webhook.failing"
	WebhookDisabled      apikey.EventType = "webhook.disabled"
	WebhookTest          apikey.EventType = "webhook.test"
)

// AllEvents stands for every type of events about keys, those added later
// included.
const AllEvents apikey.EventType = "*"

// The prefixes of types, which say what an event is about.
const (
	aboutKeys     = "api_key."
	aboutWebhooks = "webhook."
)

// IsAboutKey reports whether an event of type t is about a key.
func IsAboutKey(t apikey.EventType) bool { return strings.HasPrefix(string(t), aboutKeys) }

// IsAboutWebhook reports whether an event of type t is about a webhook.
func IsAboutWebhook(t apikey.EventType) bool { return strings.HasPrefix(string(t), aboutWebhooks) }

// EventType is a type that a webhook can be subscribed to.
type EventType struct {
	Type        apikey.EventType
	Description string
}

// eventTypes are in the order in which they are shown.
var eventTypes = []EventType{
	{apikey.KeyCreated, "A key was made."},
	{apikey.KeyUpdated, "Fields of a key changed."},
	{apikey.KeyRotated, "A key got a new secret."},
	{apikey.KeyRevoked, "A key was ended for good."},
	{apikey.KeyDeleted, "A key was ended and taken out of every list."},
	{apikey.KeyExpiring, "A key will expire soon."},
	{apikey.KeyExpired, "A key's expires_at has passed."},
	{WebhookCreated, "A webhook was made."},
	{WebhookUpdated, "Fields of a webhook changed."},
	{WebhookDeleted, "A webhook was deleted."},
	{WebhookSecretRotated, "A webhook got a new secret."},
	{WebhookFailing, "A webhook's endpoint keeps failing and may be disabled."},
	{WebhookDisabled, "The server disabled a webhook."},
}

// EventTypes returns every type that a webhook can be subscribed to by name.
func EventTypes() []EventType { return slices.Clone(eventTypes) }

// IsEventType reports whether there are events of type t.
func IsEventType(t apikey.EventType) bool {
	return t == WebhookTest || isSubscribable(t)
}

func isSubscribable(t apikey.EventType) bool {
	return slices.ContainsFunc(eventTypes, func(known EventType) bool { return known.Type == t })
}

// Subscribed reports whether the webhook asked for events of type t.
func (w *Webhook) Subscribed(t apikey.EventType) bool {
	if t == WebhookTest {
		return false
	}
	return slices.Contains(w.Events, t) ||
		IsAboutKey(t) && slices.Contains(w.Events, AllEvents)
}
