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

// The types of events about access tokens of operators. They are of no organization.
const (
	TokenCreated EventType = "operator_token.created"
	TokenUpdated EventType = "operator_token.updated"
	TokenRotated EventType = "operator_token.rotated"
	TokenDeleted EventType = "operator_token.deleted"
	// RootTokenUsed tells of the first use of a root token in an hour.
	RootTokenUsed EventType = "root_token.used"
)

// OperatorEventTypes lists the types of events about operators.
func OperatorEventTypes() []EventType {
	return []EventType{TokenCreated, TokenUpdated, TokenRotated, TokenDeleted, RootTokenUsed}
}

// EventTypes lists every type of events about keys.
func EventTypes() []EventType {
	return []EventType{KeyCreated, KeyUpdated, KeyRotated, KeyRevoked, KeyDeleted, KeyExpiring, KeyExpired}
}

// EventIDPrefix begins every event's id.
const EventIDPrefix = "event_"

// ActorKind is the kind of whoever made a change.
type ActorKind string

// The kinds of actors.
const (
	// ActorOperator is an operator with an access token.
	ActorOperator ActorKind = "operator"
	// ActorPerson is a person, or a workload, with a token of an identity provider.
	ActorPerson ActorKind = "person"
	ActorKey    ActorKind = "api_key"
	// ActorSystem is the server itself, when time passes.
	ActorSystem ActorKind = "system"
)

// Actor is whoever made a change.
type Actor struct {
	Kind ActorKind
	ID   string
	// Name is what people call the actor, as it was when the change was made: the name
	// of a token, the label of a key. Empty where that was not recorded.
	Name string
}

// Is reports whether a and other are the same actor, whatever they are called.
func (a Actor) Is(other Actor) bool { return a.Kind == other.Kind && a.ID == other.ID }

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
	// Organization is the one whose events are wanted; empty means all, or Among.
	Organization string
	// Among confines the events to those of some organizations; nil does not.
	Among       []string
	Types       []EventType
	ResourceIDs []string
	// Actor is the id of whoever made the changes.
	Actor string
	// Since and Until confine the answer to events made at or after the one and before
	// the other. The zero time does not.
	Since, Until time.Time
}

// Wants reports whether e passes the filter.
func (f *EventFilter) Wants(e *Event) bool {
	return (f.Organization == "" || f.Organization == e.OrganizationID) &&
		(f.Among == nil || slices.Contains(f.Among, e.OrganizationID)) &&
		(f.Actor == "" || f.Actor == e.Actor.ID) &&
		!e.CreatedAt.Before(f.Since) && (f.Until.IsZero() || e.CreatedAt.Before(f.Until)) &&
		(len(f.Types) == 0 || slices.Contains(f.Types, e.Type)) &&
		(len(f.ResourceIDs) == 0 || slices.Contains(f.ResourceIDs, e.ResourceID))
}

// OldestKept stands for the position before the oldest event that is kept.
const OldestKept int64 = -1

// EventPage is what one read of the log found, at one moment.
type EventPage struct {
	Events []Event
	// Next is how far the read has looked: of the wanted events after the position
	// that was asked for, none at or before Next is missing. Of a read from the newest
	// on, none at or after it.
	Next int64
	// More says that wanted events may follow Next; else it is Newest.
	More bool
	// Every event after Floor and up to Newest is kept.
	Floor, Newest int64
	// At is the id of the event at the position that was asked for, and Now the
	// database's time. Both are empty but in the pages of whoever follows a log that
	// several servers write.
	At  string
	Now time.Time
}

// A TooOldError says that events after the position that was asked for are no
// longer kept. What is kept begins after Floor.
type TooOldError struct{ Floor int64 }

func (e *TooOldError) Error() string {
	return fmt.Sprintf("the log is kept from after position %d on", e.Floor)
}
