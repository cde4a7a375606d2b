package wire

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// Event returns the message of e with the resource after it, and without its
// cursor, which depends on the reader. It is a function of the event alone, so the
// same event reads the same for ever: its key is in the state that it had then.
//
// The payload of an event is the message of its resource, so that the check for
// breaking changes of the protos guards the log too: what was written under an
// older version of a message still reads as the newer one.
func Event(e *apikey.Event) (*apikeysv1.Event, error) {
	m := &apikeysv1.Event{
		Id:             e.ID,
		Type:           string(e.Type),
		OrganizationId: e.OrganizationID,
		ResourceId:     e.ResourceID,
		Changes:        e.Changes,
		Actor:          actorMessage(e.Actor),
		RequestId:      e.RequestID,
		CreatedAt:      Timestamp(e.CreatedAt),
	}
	var resource proto.Message
	switch {
	case webhook.IsAboutKey(e.Type):
		m.ApiKey = &apikeysv1.ApiKey{}
		resource = m.ApiKey
	case webhook.IsAboutWebhook(e.Type):
		m.Webhook = &apikeysv1.Webhook{}
		resource = m.Webhook
	default:
		return m, nil
	}
	if err := proto.Unmarshal(e.Payload, resource); err != nil {
		return nil, fmt.Errorf("decode the resource of event %s: %w", e.ID, err)
	}
	return m, nil
}

// KeyPayload returns the payload of an event about k that is made at now: the
// message that a reader of k is shown then.
func KeyPayload(k *apikey.Key, now time.Time) ([]byte, error) { return payload(Key(k, now)) }

// WebhookPayload is [KeyPayload] for an event about w.
func WebhookPayload(w *webhook.Webhook) ([]byte, error) { return payload(Webhook(w)) }

// payload encodes a resource in one form: equal resources have equal bytes.
func payload(resource proto.Message) ([]byte, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(resource)
	if err != nil {
		return nil, fmt.Errorf("encode the resource of an event: %w", err)
	}
	return encoded, nil
}

func actorMessage(a apikey.Actor) *apikeysv1.Actor {
	if a == (apikey.Actor{}) {
		return nil
	}
	return &apikeysv1.Actor{Kind: string(a.Kind), Id: a.ID}
}
