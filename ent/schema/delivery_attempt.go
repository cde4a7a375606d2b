package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// DeliveryAttempt is one attempt of a delivery.
type DeliveryAttempt struct{ ent.Schema }

// Fields of the DeliveryAttempt.
func (DeliveryAttempt) Fields() []ent.Field {
	return []ent.Field{
		field.String("delivery_id").Immutable(),
		field.Int("number").Immutable(),
		field.String("trigger").Immutable(),
		field.String("url").Immutable().Comment("the webhook's when the attempt was made"),
		field.Int64("started_at").Immutable(),
		field.Int64("duration").Immutable().Comment("microseconds"),
		field.Int("response_status").Immutable(),
		field.Bytes("response_body").Optional().Immutable(),
		field.String("error_class").Immutable(),
		field.String("error_message").Immutable(),
	}
}

// Indexes of the DeliveryAttempt.
func (DeliveryAttempt) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("delivery_id", "number").Unique(),
	}
}
