package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
)

// OperatorToken is an access token of an operator that the server made.
type OperatorToken struct{ ent.Schema }

// Fields of the OperatorToken.
func (OperatorToken) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.Bytes("hash").Unique().Immutable().Comment("HMAC-SHA-256 under pepper_id"),
		field.String("pepper_id").Immutable(),
		field.Int64("created_at").Immutable(),
	}
}
