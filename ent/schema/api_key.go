package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// ApiKey is a key with its current and previous secret. Usage is kept in a table
// of its own, so that counting never touches this row.
type ApiKey struct{ ent.Schema }

// Fields of the ApiKey.
func (ApiKey) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.String("organization_id").Immutable(),
		field.String("label"),
		field.String("description").Default(""),
		field.Strings("scopes").Optional(),
		field.Strings("ip_allow_list").Optional(),
		field.Int64("expires_at").Optional().Nillable(),
		field.Int64("created_at").Immutable(),
		field.Int64("updated_at").Optional().Nillable(),
		field.String("created_by_kind").Immutable(),
		field.String("created_by_id").Immutable(),
		field.Bool("enabled"),
		field.String("mode").Immutable(),
		field.String("key_format").Comment("the name of the format of the secret"),
		field.String("owner_id").Default(""),
		field.JSON("metadata", map[string]string{}).Optional(),
		field.Int("rate_limit_requests").Default(0),
		field.Int("rate_limit_window").Default(0).Comment("seconds"),
		field.Int64("quota_limit").Default(0),
		field.String("quota_refill").Default(""),
		field.Int("quota_refill_day").Default(0),
		field.Int64("revoked_at").Optional().Nillable(),
		field.String("revoke_reason").Default(""),
		field.Bytes("secret_hash").Unique().Comment("HMAC-SHA-256 under pepper_id"),
		field.String("pepper_id"),
		field.String("secret_mask"),
		field.Bytes("edge_hash").Comment("HMAC-SHA-256 under the edge key"),
		field.Bytes("previous_hash").Optional().Comment("the secret before the last rotation, while it overlaps"),
		field.String("previous_pepper_id").Default(""),
		field.String("previous_mask").Default(""),
		field.Bytes("previous_edge_hash").Optional(),
		field.Int64("previous_expires_at").Optional().Nillable(),
		field.Int64("rotations").Default(0).Comment("how many there were; the number names the previous secret"),
		field.Int64("notice_at").Optional().Nillable().Comment("when the next event about the key's expiry is due"),
		field.Int64("version"),
	}
}

// Indexes of the ApiKey. Most keys were never rotated and many never expire, so
// the indexes of those two facts leave the others out.
func (ApiKey) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("organization_id", "id"),
		index.Fields("organization_id", "owner_id", "id"),
		index.Fields("organization_id", "created_by_id", "id"),
		index.Fields("previous_hash").Unique().Annotations(entsql.IndexWhere("previous_hash IS NOT NULL")),
		index.Fields("notice_at", "id").Annotations(entsql.IndexWhere("notice_at IS NOT NULL")),
	}
}
