package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// UsageBucket counts the verifications of one hour or one day that had one
// outcome: those of one key or, where key_id is empty, all of an organization. A
// key has at most 25 rows a day for each outcome that occurs.
type UsageBucket struct{ ent.Schema }

// Fields of the UsageBucket.
func (UsageBucket) Fields() []ent.Field {
	return []ent.Field{
		field.Int64("id").Immutable(),
		field.String("organization_id").Immutable(),
		field.String("key_id").Immutable(),
		field.Int("width").Immutable().Comment("seconds"),
		field.Int64("start").Immutable(),
		field.String("code").Immutable(),
		field.Int64("count"),
	}
}

// Indexes of the UsageBucket: for the series of a key, for the keys that an
// organization used in a time, and for the end of what is kept. Only the first
// count of a bucket writes them.
func (UsageBucket) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("organization_id", "key_id", "width", "start", "code").Unique(),
		index.Fields("organization_id", "width", "start"),
		index.Fields("width", "start"),
	}
}
