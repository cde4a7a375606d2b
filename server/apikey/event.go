package apikey

import (
	"fmt"
	"slices"
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

// EventTypes lists every type.
func EventTypes() []EventType {
	return []EventType{KeyCreated, KeyUpdated, KeyRotated, KeyRevoked, KeyDeleted, KeyExpiring, KeyExpired}
}

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
	// Payload is the encoded protobuf message of the resource after the change, its
	// secret masked. Package wire makes and reads it.
	Payload []byte
}

// EventFilter says which events are wanted. A zero field wants all.
type EventFilter struct {
	// Organization is the one whose events are wanted; empty means all.
	Organization string
	Types        []EventType
	ResourceIDs  []string
}

// Wants reports whether e passes the filter.
func (f *EventFilter) Wants(e *Event) bool {
	return (f.Organization == "" || f.Organization == e.OrganizationID) &&
		(len(f.Types) == 0 || slices.Contains(f.Types, e.Type)) &&
		(len(f.ResourceIDs) == 0 || slices.Contains(f.ResourceIDs, e.ResourceID))
}

// OldestKept stands for the position before the oldest event that is kept.
const OldestKept int64 = -1

// EventPage is what one read of the log found, at one moment.
type EventPage struct {
	Events []Event
	// Next is how far the read has looked: of the wanted events after the position
	// that was asked for, none at or before Next is missing.
	Next int64
	// More says that wanted events may follow Next; else it is Newest.
	More bool
	// Every event after Floor and up to Newest is kept.
	Floor, Newest int64
}

// A TooOldError says that events after the position that was asked for are no
// longer kept. What is kept begins after Floor.
type TooOldError struct{ Floor int64 }

func (e *TooOldError) Error() string {
	return fmt.Sprintf("the log is kept from after position %d on", e.Floor)
}
