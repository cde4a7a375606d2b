package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
)

// AccessTokenUse is the latest use of an AccessToken, whose id it has. It is written in
// the background, and so has a table of its own.
type AccessTokenUse struct{ ent.Schema }

// Fields of the AccessTokenUse.
func (AccessTokenUse) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.Int64("used_at"),
		field.String("address").Default(""),
	}
}
