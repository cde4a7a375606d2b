package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
)

// ApiKeyUsage counts the use of one key; its id is the key's. It is written in
// batches by the counters' flush alone.
type ApiKeyUsage struct{ ent.Schema }

// Annotations of the ApiKeyUsage.
func (ApiKeyUsage) Annotations() []schema.Annotation {
	return []schema.Annotation{entsql.Table("api_key_usage")}
}

// Fields of the ApiKeyUsage.
func (ApiKeyUsage) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.Int64("total_requests"),
		field.Int64("last_used_at"),
		field.Int64("previous_rotation").Default(0).Comment("the rotation whose previous secret the next two are of"),
		field.Int64("previous_requests").Default(0),
		field.Int64("previous_last_used_at").Optional().Nillable(),
		field.String("last_ip").Default("").Comment("of the use at last_used_at, as the next"),
		field.String("last_user_agent").Default(""),
		field.Int64("addresses_day").Default(0).Comment("the day since 1970 that the next two are of"),
		field.Int64("addresses_count").Default(0),
		field.Bytes("addresses").Optional().Comment("what the count was made from, for more to be added: apikey.Addresses"),
	}
}
