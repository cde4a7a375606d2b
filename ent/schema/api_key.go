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
		field.String("created_by_name").Default("").Immutable(),
		field.Bool("enabled"),
		field.String("mode").Immutable(),
		field.String("key_format").Comment("the name of the format of the secret"),
		field.String("owner_id").Default(""),
		field.String("external_id").Optional().Nillable().Immutable().Comment("NULL is none"),
		field.JSON("metadata", map[string]string{}).Optional(),
		field.Int("rate_limit_requests").Default(0),
		field.Int("rate_limit_window").Default(0).Comment("seconds"),
		field.String("rate_limit_mode").Optional().Nillable().Comment("local or exact; NULL is local"),
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
		index.Fields("organization_id", "external_id").Unique().Annotations(entsql.IndexWhere("external_id IS NOT NULL")),
		index.Fields("previous_hash").Unique().Annotations(entsql.IndexWhere("previous_hash IS NOT NULL")),
		index.Fields("notice_at", "id").Annotations(entsql.IndexWhere("notice_at IS NOT NULL")),
		// For lists by state, by times, and by what is seen of a secret. Scopes and
		// metadata have a table of their own: see store/key_terms.go.
		index.Fields("organization_id", "id").StorageKey("apikey_revoked").Annotations(entsql.IndexWhere("revoked_at IS NOT NULL")),
		index.Fields("organization_id", "id").StorageKey("apikey_disabled").Annotations(entsql.IndexWhere("revoked_at IS NULL AND NOT enabled")),
		index.Fields("organization_id", "expires_at", "id").Annotations(entsql.IndexWhere("expires_at IS NOT NULL")),
		index.Fields("organization_id", "previous_expires_at", "id").Annotations(entsql.IndexWhere("previous_expires_at IS NOT NULL")),
		index.Fields("secret_mask").Annotations(entsql.OpClass("text_pattern_ops")),
		index.Fields("previous_mask").Annotations(entsql.OpClass("text_pattern_ops"), entsql.IndexWhere("previous_mask <> ''")),
	}
}
