package wire

import (
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// Event returns the message of e with the resource after it, and without its
// cursor, which depends on the reader. It is a function of the event alone, so the
// same event reads the same for ever: its key is in the state that it had then.
func Event(e *apikey.Event) (*apikeysv1.Event, error) {
	m := &apikeysv1.Event{
		Id:             e.ID,
		Type:           string(e.Type),
		OrganizationId: e.OrganizationID,
		ResourceId:     e.ResourceID,
		Changes:        e.Changes,
		Actor:          &apikeysv1.Actor{Kind: string(e.Actor.Kind), Id: e.Actor.ID},
		RequestId:      e.RequestID,
		CreatedAt:      Timestamp(e.CreatedAt),
	}
	switch {
	case webhook.IsAboutKey(e.Type):
		k, err := e.Key()
		if err != nil {
			return nil, err
		}
		m.ApiKey = Key(&k, e.CreatedAt)
	case webhook.IsAboutWebhook(e.Type):
		w, err := webhook.FromEvent(e)
		if err != nil {
			return nil, err
		}
		m.Webhook = Webhook(w)
	}
	return m, nil
}
