package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// DeliveryFailure counts the attempts at one url that failed, of the deliveries of the
// events of one hour. Triggers of the database keep it: see store/delivery_counts.go.
type DeliveryFailure struct{ ent.Schema }

// Fields of the DeliveryFailure.
func (DeliveryFailure) Fields() []ent.Field {
	return []ent.Field{
		field.Int64("id").Immutable(),
		field.String("organization_id").Immutable(),
		field.Int64("start").Immutable(),
		field.String("url").Immutable().Comment("without its query; empty for all urls after the first 100"),
		field.Int("slot").Immutable().Comment("as of a DeliveryCount"),
		field.Int64("attempts"),
		field.Int64("deliveries").Comment("those that were given up after an attempt there"),
	}
}

// Indexes of the DeliveryFailure, as those of the DeliveryCount.
func (DeliveryFailure) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("organization_id", "start", "url", "slot").Unique(),
		index.Fields("start"),
	}
}
