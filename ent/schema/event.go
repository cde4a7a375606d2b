package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// Event is one line of the log. Its id is its position in the one order of
// commits, taken from the Revision in the same transaction.
type Event struct{ ent.Schema }

// Fields of the Event.
func (Event) Fields() []ent.Field {
	incremental := false
	return []ent.Field{
		field.Int64("id").Immutable().Annotations(entsql.Annotation{Incremental: &incremental}),
		field.String("event_id").Immutable(),
		field.String("organization_id").Immutable(),
		field.String("type").Immutable(),
		field.String("resource_id").Immutable(),
		field.Strings("changes").Optional().Immutable(),
		field.String("actor_kind").Immutable(),
		field.String("actor_id").Immutable(),
		field.String("actor_name").Default("").Immutable(),
		field.String("request_id").Immutable(),
		field.Int64("created_at").Immutable(),
		field.Bytes("payload").Immutable(),
	}
}

// Indexes of the Event.
func (Event) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("organization_id", "id"),
		index.Fields("organization_id", "actor_id", "id"),
		index.Fields("actor_id", "id"),
	}
}
