package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// UsageUnit counts the valid verifications of one hour or one day, and what they cost:
// those of a key, of an owner, or of an organization. It stays when the key is deleted.
type UsageUnit struct{ ent.Schema }

// Fields of the UsageUnit.
func (UsageUnit) Fields() []ent.Field {
	return []ent.Field{
		field.Int64("id").Immutable(),
		field.String("organization_id").Immutable(),
		field.String("kind").Immutable().Comment("key, owner or organization"),
		field.Int("width").Immutable().Comment("seconds"),
		field.Int64("start").Immutable(),
		field.String("name").Immutable().Comment("the key's id, the owner's, or empty"),
		field.Int64("calls"),
		field.Int64("units"),
	}
}

// Indexes of the UsageUnit: for the usage of an organization in a time, and for that of all
// organizations and the end of what is kept. Only the first count writes them.
func (UsageUnit) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("organization_id", "kind", "width", "start", "name").Unique(),
		index.Fields("kind", "width", "start", "organization_id", "name"),
	}
}
