package wire

import (
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Event returns the message of e without what depends on its kind or its reader:
// the resource and the cursor.
func Event(e *apikey.Event) *apikeysv1.Event {
	return &apikeysv1.Event{
		Id:             e.ID,
		Type:           string(e.Type),
		OrganizationId: e.OrganizationID,
		ResourceId:     e.ResourceID,
		Changes:        e.Changes,
		Actor:          &apikeysv1.Actor{Kind: string(e.Actor.Kind), Id: e.Actor.ID},
		RequestId:      e.RequestID,
		CreatedAt:      Timestamp(e.CreatedAt),
	}
}
