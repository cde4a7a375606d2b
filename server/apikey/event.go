package apikey

import (
	"encoding/json"
	"fmt"
	"time"
)

// EventType says what happened, as `resource.past_participle`.
type EventType string

// The types of events about keys.
const (
	KeyCreated  EventType = "api_key.created"
	KeyUpdated  EventType = "api_key.updated"
	KeyRotated  EventType = "api_key.rotated"
	KeyRevoked  EventType = "api_key.revoked"
	KeyDeleted  EventType = "api_key.deleted"
	KeyExpiring EventType = "api_key.expiring"
	KeyExpired  EventType = "api_key.expired"
)

// EventIDPrefix begins every event's id.
const EventIDPrefix = "event_"

// ActorKind is the kind of whoever made a change.
type ActorKind string

// The kinds of actors.
const (
	ActorOperator ActorKind = "operator"
	ActorKey      ActorKind = "api_key"
	// ActorSystem is the server itself, when time passes.
	ActorSystem ActorKind = "system"
)

// Actor is whoever made a change.
type Actor struct {
	Kind ActorKind
	ID   string
}

// Origin is where a change came from, for the audit record.
type Origin struct {
	Actor     Actor
	RequestID string
}

// Event tells of one change. It is written in the change's own transaction, and
// Position numbers it in the one gap-free order of commits of its database.
type Event struct {
	Position       int64
	ID             string
	Type           EventType
	OrganizationID string
	ResourceID     string
	// Changes names the fields that changed; empty where all or none did.
	Changes []string
	Origin
	CreatedAt time.Time
	// Payload is the resource after the change, its secret masked, as JSON of its
	// stored form.
	Payload []byte
}

// Key returns the key after the change, for an event about a key.
func (e *Event) Key() (Key, error) {
	var k Key
	if err := json.Unmarshal(e.Payload, &k); err != nil {
		return Key{}, fmt.Errorf("decode the key of event %s: %w", e.ID, err)
	}
	return k, nil
}
