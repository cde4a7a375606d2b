package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// WebhookTerm is a time, between two positions of the log, for which a webhook was
// enabled and what it was subscribed to stayed the same. Its id is the position of the
// event that began it. Terms are what the fan-out goes by; one that the fan-out has
// passed is deleted.
type WebhookTerm struct{ ent.Schema }

// Fields of the WebhookTerm.
func (WebhookTerm) Fields() []ent.Field {
	incremental := false
	return []ent.Field{
		field.Int64("id").StorageKey("from_position").Immutable().Annotations(entsql.Annotation{Incremental: &incremental}),
		field.String("webhook_id").Immutable(),
		field.String("organization_id").Immutable(),
		field.Int64("until_position").Optional().Nillable().Comment("the event that ended it; NULL while it goes on"),
		field.String("url").Immutable(),
		field.Strings("events").Immutable(),
		field.String("format").Immutable(),
	}
}

// Indexes of the WebhookTerm.
func (WebhookTerm) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("organization_id", "webhook_id"),
	}
}
