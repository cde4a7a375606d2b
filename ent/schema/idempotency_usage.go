package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
)

// IdempotencyUsage is how many idempotency records an organization has, and their
// bytes, so that neither has to be counted. Its id is the organization's.
type IdempotencyUsage struct{ ent.Schema }

// Annotations of the IdempotencyUsage.
func (IdempotencyUsage) Annotations() []schema.Annotation {
	return []schema.Annotation{entsql.Table("idempotency_usage")}
}

// Fields of the IdempotencyUsage.
func (IdempotencyUsage) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.Int64("records").Default(0),
		field.Int64("bytes").Default(0),
	}
}
