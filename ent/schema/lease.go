package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
)

// Lease says which server does a kind of work, where several share a database; its id
// is the name of the work. There are none on SQLite, whose file belongs to one server.
type Lease struct{ ent.Schema }

// Fields of the Lease.
func (Lease) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("name").Immutable(),
		field.String("holder").Comment("names the server, for people; empty before the first one"),
		field.Int64("token").Comment("grows each time that the lease is taken: work under an older one writes nothing"),
		field.Time("until").Comment("by the clock of the database; whoever comes after it may take the lease"),
	}
}
