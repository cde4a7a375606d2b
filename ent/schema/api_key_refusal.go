package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// ApiKeyRefusal is one refused use of a key. Its id ascends with the time of the
// refusal, so that it orders them all.
type ApiKeyRefusal struct{ ent.Schema }

// Fields of the ApiKeyRefusal.
func (ApiKeyRefusal) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.String("key_id").Immutable(),
		field.Int64("at").Immutable(),
		field.String("code").Immutable(),
		field.String("via").Immutable(),
		field.String("ip").Immutable(),
		field.String("user_agent").Immutable(),
		field.String("actor_kind").Immutable(),
		field.String("actor_id").Immutable(),
		field.String("actor_name").Immutable(),
	}
}

// Indexes of the ApiKeyRefusal.
func (ApiKeyRefusal) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("key_id", "id"),
	}
}

// ApiKeyRefusalTotal counts the refused uses of one key, those included that are no
// longer kept; its id is the key's.
type ApiKeyRefusalTotal struct{ ent.Schema }

// Fields of the ApiKeyRefusalTotal.
func (ApiKeyRefusalTotal) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.Int64("total"),
	}
}
