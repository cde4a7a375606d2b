package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// Webhook is an endpoint with what it is subscribed to. Its secrets and header
// values are encrypted.
type Webhook struct{ ent.Schema }

// Fields of the Webhook.
func (Webhook) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.String("organization_id").Immutable(),
		field.String("label"),
		field.String("description").Default(""),
		field.String("url"),
		field.Strings("events"),
		field.String("format"),
		field.Bool("enabled"),
		field.String("disabled_reason").Default(""),
		field.String("sealed_key_id").Comment("the encryption key of sealed"),
		field.Bytes("sealed").Comment("secrets and headers, AES-256-GCM"),
		field.String("secret_mask"),
		field.Int64("created_at").Immutable(),
		field.String("created_by_kind").Immutable(),
		field.String("created_by_id").Immutable(),
		field.String("created_by_name").Default("").Immutable(),
		field.Int64("updated_at").Optional().Nillable(),
		field.Int64("last_success_at").Optional().Nillable(),
		field.String("last_error_class").Default(""),
		field.String("last_error_message").Default(""),
		field.Int64("failing_since").Optional().Nillable(),
		field.Bool("failing_warned").Default(false),
		field.Int64("version"),
	}
}

// Indexes of the Webhook.
func (Webhook) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("organization_id", "id"),
	}
}
