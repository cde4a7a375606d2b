package webhook

import (
	"crypto/sha256"
	"strings"
	"time"

	"github.com/gofrs/uuid/v5"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Term is a time, between two positions of the log, for which a webhook was enabled and
// what it was subscribed to stayed the same. Of its Webhook only the fields are set that
// decide what it receives, and as what: ID, OrganizationID, URL, Events, Format and
// Enabled.
//
// Terms answer what a webhook was subscribed to at the place of an event, whatever has
// become of the webhook since.
type Term struct {
	Webhook
	// From and Until are the positions of the events that began and ended the term,
	// both of which are about the webhook itself. Until is 0 while the term goes on.
	From, Until int64
}

// Receives reports whether e, which has its position, is to be delivered to the webhook.
func (t *Term) Receives(e *apikey.Event) bool {
	return t.From < e.Position && (t.Until == 0 || e.Position < t.Until) && t.Webhook.Receives(e)
}

// FannedOut is what one turn of an organization's fan-out has done.
type FannedOut struct {
	// Due are the ids of webhooks that have something to deliver now.
	Due []string
	// More says that events are left, and Oldest when the first of them was made.
	More   bool
	Oldest time.Time
	// Idle says that the organization has no terms, and no position.
	Idle bool
	// Held is how long the turn had the writer.
	Held time.Duration
}

// SameTerm reports whether a webhook that has become after is still in the term of
// before.
func SameTerm(before, after *Webhook) bool {
	if !before.Enabled || !after.Enabled {
		return before.Enabled == after.Enabled
	}
	for _, name := range Changes(before, after) {
		switch name {
		case "url", "events", "format":
			return false
		}
	}
	return true
}

// DeliveryID returns the id of the delivery of an event to a webhook: a UUID version 7
// of the time of the event's id, whose other bits are a hash of both. So there is one
// for the two, however often it is made, and ids ascend by the events' times.
func DeliveryID(webhookID, eventID string) string {
	var id uuid.UUID
	hash := sha256.Sum256([]byte(webhookID + " " + eventID))
	copy(id[:], hash[:])
	event := uuid.FromStringOrNil(strings.TrimPrefix(eventID, apikey.EventIDPrefix))
	copy(id[:6], event[:6])
	id.SetVersion(uuid.V7)
	id.SetVariant(uuid.VariantRFC9562)
	return DeliveryIDPrefix + id.String()
}
