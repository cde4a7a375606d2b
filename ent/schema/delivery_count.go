package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// DeliveryCount counts what the deliveries of the events of one hour and one type came
// to. Triggers of the database keep it: see store/delivery_counts.go.
type DeliveryCount struct{ ent.Schema }

// Fields of the DeliveryCount.
func (DeliveryCount) Fields() []ent.Field {
	return []ent.Field{
		field.Int64("id").Immutable(),
		field.String("organization_id").Immutable(),
		field.Int64("start").Immutable(),
		field.String("event").Immutable().Comment("the event's type"),
		field.Int("slot").Immutable().Comment("the rows of a name are added up; each has one writer at a time"),
		field.Int64("made").Default(0),
		field.Int64("delivered").Default(0),
		field.Int64("failed").Default(0),
		field.Int64("cancelled").Default(0),
		field.Int64("attempted").Default(0),
		field.Int64("retried").Default(0).Comment("attempted more than once"),
		field.Int64("delay").Default(0).Comment("microseconds from the event to the acknowledgement, of all delivered"),
	}
}

// Indexes of the DeliveryCount: for the figures of an organization in a time, and for the
// end of what is kept. Only the first count writes them.
func (DeliveryCount) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("organization_id", "start", "event", "slot").Unique(),
		index.Fields("start"),
	}
}
