package wire

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/operator"
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
	m := eventMessage(e)
	var resource proto.Message
	switch resourceField(e.Type) {
	case apiKeyField:
		m.ApiKey = &apikeysv1.ApiKey{}
		resource = m.ApiKey
	case webhookField:
		m.Webhook = &apikeysv1.Webhook{}
		resource = m.Webhook
	case operatorTokenField:
		m.OperatorToken = &apikeysv1.OperatorToken{}
		resource = m.OperatorToken
	default:
		return m, nil
	}
	if err := proto.Unmarshal(e.Payload, resource); err != nil {
		return nil, payloadError(e, err)
	}
	return m, nil
}

// AppendWatchEvent appends the encoding of the message in which a stream of events
// shows e, with the cursor after which its reader goes on. The message is the one of
// [Event], but nobody decodes the resource to encode it again: the payload is taken as
// it stands. A payload that is no message at all is an error; what else may be wrong
// with one is for the reader to find.
func AppendWatchEvent(b []byte, e *apikey.Event, cursor string) ([]byte, error) {
	m := eventMessage(e)
	m.Cursor = cursor
	field := resourceField(e.Type)
	size := proto.Size(m)
	if field != 0 {
		if err := checkFields(e.Payload); err != nil {
			return nil, payloadError(e, err)
		}
		size += protowire.SizeTag(field) + protowire.SizeBytes(len(e.Payload))
	}
	b = slices.Grow(b, size+len(cursor)+2*(protowire.SizeTag(watchEventField)+protowire.SizeVarint(uint64(size))))
	if cursor != "" {
		b = protowire.AppendTag(b, watchCursorField, protowire.BytesType)
		b = protowire.AppendString(b, cursor)
	}
	b = protowire.AppendTag(b, watchEventField, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	if field != 0 {
		b = protowire.AppendTag(b, field, protowire.BytesType)
		b = protowire.AppendBytes(b, e.Payload)
	}
	return b, nil
}

// The fields of the messages that [AppendWatchEvent] writes by itself.
var (
	apiKeyField        = fieldNumber(&apikeysv1.Event{}, "api_key")
	webhookField       = fieldNumber(&apikeysv1.Event{}, "webhook")
	operatorTokenField = fieldNumber(&apikeysv1.Event{}, "operator_token")
	watchCursorField   = fieldNumber(&apikeysv1.WatchEventsResponse{}, "cursor")
	watchEventField    = fieldNumber(&apikeysv1.WatchEventsResponse{}, "event")
)

func fieldNumber(m proto.Message, name protoreflect.Name) protowire.Number {
	return m.ProtoReflect().Descriptor().Fields().ByName(name).Number()
}

// resourceField returns the field of an event's message that holds the resource, zero
// for an event of a type that is not known.
func resourceField(kind apikey.EventType) protowire.Number {
	switch {
	case webhook.IsAboutKey(kind):
		return apiKeyField
	case webhook.IsAboutWebhook(kind):
		return webhookField
	case kind != apikey.RootTokenUsed && slices.Contains(apikey.OperatorEventTypes(), kind):
		return operatorTokenField
	}
	return 0
}

// eventMessage returns the message of e without its resource.
func eventMessage(e *apikey.Event) *apikeysv1.Event {
	return &apikeysv1.Event{
		Id:             e.ID,
		Type:           string(e.Type),
		OrganizationId: e.OrganizationID,
		ResourceId:     e.ResourceID,
		Changes:        e.Changes,
		Actor:          actorMessage(e.Actor),
		RequestId:      e.RequestID,
		CreatedAt:      Timestamp(e.CreatedAt),
	}
}

// checkFields reports whether encoded is a sequence of fields.
func checkFields(encoded []byte) error {
	for len(encoded) > 0 {
		_, _, n := protowire.ConsumeField(encoded)
		if n < 0 {
			return protowire.ParseError(n)
		}
		encoded = encoded[n:]
	}
	return nil
}

func payloadError(e *apikey.Event, err error) error {
	return fmt.Errorf("decode the resource of event %s: %w", e.ID, err)
}

// KeyPayload returns the payload of an event about k that is made at now: the
// message that a reader of k is shown then, without from where it was used last: the
// record of changes, and whoever it is delivered to, has no part in the clients of a key.
func KeyPayload(k *apikey.Key, now time.Time) ([]byte, error) {
	m := Key(k, now)
	m.LastUse = nil
	return payload(m)
}

// WebhookPayload is [KeyPayload] for an event about w.
func WebhookPayload(w *webhook.Webhook) ([]byte, error) { return payload(Webhook(w)) }

// TokenPayload is [KeyPayload] for an event about the token of an operator.
func TokenPayload(t *operator.Token, now time.Time) ([]byte, error) { return payload(Token(t, now)) }

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
	return &apikeysv1.Actor{Kind: string(a.Kind), Id: a.ID, Name: a.Name}
}
