package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// DeliveryDelay counts the deliveries of the events of one hour by how long it took from
// the event to the acknowledgement. Triggers of the database keep it: see
// store/delivery_counts.go.
type DeliveryDelay struct{ ent.Schema }

// Fields of the DeliveryDelay.
func (DeliveryDelay) Fields() []ent.Field {
	return []ent.Field{
		field.Int64("id").Immutable(),
		field.String("organization_id").Immutable(),
		field.Int64("start").Immutable(),
		field.Int64("least").Immutable().Comment("microseconds: the shortest delay that is counted here"),
		field.Int("slot").Immutable().Comment("as of a DeliveryCount"),
		field.Int64("count"),
	}
}

// Indexes of the DeliveryDelay, as those of the DeliveryCount.
func (DeliveryDelay) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("organization_id", "start", "least", "slot").Unique(),
		index.Fields("start"),
	}
}
