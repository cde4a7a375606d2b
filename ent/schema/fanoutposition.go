package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
)

// FanOutPosition is how far the fan-out of one organization has come in the log; its id
// is the organization's. An organization has a row while it has terms of webhooks.
type FanOutPosition struct{ ent.Schema }

// Fields of the FanOutPosition.
func (FanOutPosition) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("organization_id").Immutable(),
		field.Int64("position").Comment("every event up to it has its deliveries"),
		field.String("webhook_id").Default("").Comment("of the event after position: the last webhook whose delivery is made"),
	}
}
