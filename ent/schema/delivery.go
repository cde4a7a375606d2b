package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// Delivery is one event on its way to one webhook. It has no body: that is
// computed of this row and the event's when it is sent.
type Delivery struct{ ent.Schema }

// Fields of the Delivery.
func (Delivery) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.String("webhook_id").Immutable(),
		field.String("organization_id").Immutable(),
		field.Int64("event_position").Immutable().Comment("the id of its event's row"),
		field.String("event_id").Immutable(),
		field.String("event").Immutable().Comment("the event's type"),
		field.String("resource_id").Immutable(),
		field.String("url").Immutable(),
		field.String("format").Immutable(),
		field.String("state"),
		field.String("trigger").Default(""),
		field.Int("attempts").Default(0),
		field.Int("failures").Default(0),
		field.Int("response_status").Default(0),
		field.Bytes("response_body").Optional(),
		field.String("error_class").Default(""),
		field.String("error_message").Default(""),
		field.Int64("next_attempt_at").Optional().Nillable(),
		field.Int64("delay").Default(0).Comment("microseconds"),
		field.Int64("created_at").Immutable(),
		field.Int64("updated_at").Optional().Nillable(),
		field.Int64("first_sent_at").Optional().Nillable(),
		field.Int64("ended_at").Optional().Nillable().Comment("when it came to an end; NULL while it is pending"),
		field.Int64("due_at").Optional().Nillable().Comment("when a worker may take it: its next attempt, or the end of its lease"),
		field.String("lease").Default("").Comment("the fencing token of the attempt under way"),
	}
}

// Indexes of the Delivery.
func (Delivery) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("webhook_id", "event_position").Unique(),
		// Of those that wait alone, which are few beside those that are kept.
		index.Fields("webhook_id", "due_at").Annotations(entsql.IndexWhere("due_at IS NOT NULL")),
		index.Fields("organization_id", "id"),
		index.Fields("ended_at").Annotations(entsql.IndexWhere("ended_at IS NOT NULL")),
		// For the oldest event that a delivery still needs.
		index.Fields("event_position").Annotations(entsql.IndexWhere("ended_at IS NULL")),
	}
}
