package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// IdempotencyRecord is the answer to a call that named an idempotency key, or the
// claim of such a call that is under way. Its id is a hash of the organization, the
// caller and the key.
type IdempotencyRecord struct{ ent.Schema }

// Fields of the IdempotencyRecord.
func (IdempotencyRecord) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.String("organization_id").Immutable(),
		field.String("sealed_key_id").Comment("the encryption key of answer, and of request"),
		field.Bytes("request").Comment("HMAC-SHA-256 of the method and the request"),
		field.Bytes("answer").Optional().Comment("AES-256-GCM; NULL while the call is under way"),
		field.Int64("size").Comment("the bytes for which the organization is charged"),
		field.String("claim").Default("").Comment("names the call that is under way"),
		field.Int64("claimed_until").Optional().Nillable().Comment("when another call may take the claim over"),
		field.Int64("expires_at").Comment("when the record is deleted"),
	}
}

// Indexes of the IdempotencyRecord.
func (IdempotencyRecord) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("expires_at"),
	}
}
