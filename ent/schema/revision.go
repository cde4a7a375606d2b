package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema/field"
)

// Revision is the one row that numbers events: position is the newest event's.
// Every transaction that appends events updates it, so positions are gap-free
// and in the order of commits.
type Revision struct{ ent.Schema }

// Fields of the Revision.
func (Revision) Fields() []ent.Field {
	incremental := false
	return []ent.Field{
		field.Int("id").Immutable().Annotations(entsql.Annotation{Incremental: &incremental}),
		field.Int64("position"),
	}
}
