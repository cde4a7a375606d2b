package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
)

// ApiKeyRateLimit is what was spent of the exact rate limit of one key, by all
// servers; its id is the key's. The row is made by the first call, and is of the
// limit that the last call found.
type ApiKeyRateLimit struct{ ent.Schema }

// Annotations of the ApiKeyRateLimit.
func (ApiKeyRateLimit) Annotations() []schema.Annotation {
	return []schema.Annotation{entsql.Table("api_key_rate_limits")}
}

// Fields of the ApiKeyRateLimit.
func (ApiKeyRateLimit) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.Int("requests").Default(0).Comment("with window_seconds, the limit that debt is measured by"),
		field.Int("window_seconds").Default(0),
		field.Int64("debt").Default(0).Comment("what was spent and is not refilled at the time of at"),
		field.Int64("at").Default(0),
		field.Int64("slot").Default(0).Comment("the time, in blocks' lives, that reserved is of"),
		field.Int64("reserved").Default(0).Comment("requests that servers hold since that slot"),
		field.Int64("reserved_before").Default(0).Comment("requests that servers hold since the slot before"),
	}
}
