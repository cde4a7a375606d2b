package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// AccessToken is an access token of an operator that has a name and rights, with its
// current and previous secret. Root tokens are OperatorTokens: a table of their own,
// since a server of an earlier version takes every row of that table for a token that
// may do everything.
type AccessToken struct{ ent.Schema }

// Fields of the AccessToken.
func (AccessToken) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.String("name"),
		field.String("description").Default(""),
		field.Strings("scopes"),
		field.Strings("organizations"),
		field.Strings("ip_allow_list").Optional(),
		field.Int64("expires_at").Optional().Nillable(),
		field.Int64("created_at").Immutable(),
		field.Int64("updated_at").Optional().Nillable(),
		field.String("created_by_kind").Immutable(),
		field.String("created_by_id").Immutable(),
		field.String("created_by_name").Immutable(),
		field.Bytes("secret_hash").Unique().Comment("HMAC-SHA-256 under pepper_id"),
		field.String("pepper_id"),
		field.String("secret_mask"),
		field.Bytes("previous_hash").Optional().Comment("the secret before the last rotation, while it overlaps"),
		field.String("previous_pepper_id").Default(""),
		field.String("previous_mask").Default(""),
		field.Int64("previous_expires_at").Optional().Nillable(),
		field.Int64("rotations").Default(0).Comment("how many there were; the number names the previous secret"),
		field.Int64("version"),
		field.String("counted_for").Default("").Immutable().
			Comment("id of the delegate whose bound the token counts towards; empty means its maker"),
	}
}

// Indexes of the AccessToken.
func (AccessToken) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("previous_hash").Unique().Annotations(entsql.IndexWhere("previous_hash IS NOT NULL")),
		index.Fields("created_by_id", "id"),
		index.Fields("counted_for", "created_by_id"),
	}
}
