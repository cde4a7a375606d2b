package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
)

// ApiKeyQuota is what is left of the quota of one key; its id is the key's. What
// servers have reserved is taken off already, so that none of it can be granted
// twice.
type ApiKeyQuota struct{ ent.Schema }

// Annotations of the ApiKeyQuota.
func (ApiKeyQuota) Annotations() []schema.Annotation {
	return []schema.Annotation{entsql.Table("api_key_quotas")}
}

// Fields of the ApiKeyQuota.
func (ApiKeyQuota) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.Int64("remaining"),
		field.Int64("refilled_at").Optional().Nillable().Comment("the start of the period that remaining is of"),
		field.Int64("epoch").Comment("the key's version that set the quota"),
	}
}
