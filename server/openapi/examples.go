package openapi

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// goldenEvents holds the payload of an event of each type, as the log keeps it. The
// tests of server/wire hold the log to it.
const goldenEvents = "server/wire/testdata/events.golden"

// readEvents returns the golden events, as the stream of events shows them.
func readEvents(source fs.FS) ([]*apikeysv1.Event, error) {
	text, err := fs.ReadFile(source, goldenEvents)
	if err != nil {
		return nil, fmt.Errorf("read the examples: %w", err)
	}
	var list []*apikeysv1.Event
	for line := range strings.Lines(string(text)) {
		kind, encoded, _ := strings.Cut(strings.TrimSpace(line), " ")
		payload, err := hex.DecodeString(encoded)
		if err != nil {
			return nil, fmt.Errorf("read the examples: %w", err)
		}
		e := &apikeysv1.Event{
			Id: "event_0197bd94-d729-7000-b486-cf276509029d", Type: kind, OrganizationId: "org_default",
			Actor:     &apikeysv1.Actor{Kind: "operator", Id: "root", Name: "root"},
			RequestId: "request_01a1fd04-9fd1-704f-8008-50b3ad37fb3b", Cursor: "AQh2Zs5L0m1v5jv6cGk",
		}
		switch about, _, _ := strings.Cut(kind, "."); about {
		case "api_key":
			e.ApiKey = new(apikeysv1.ApiKey)
			err = proto.Unmarshal(payload, e.ApiKey)
			e.ApiKey.KeyFormat = "sk_test" // which events of those days did not tell
			if limit := e.GetApiKey().GetRateLimit(); limit != nil && limit.GetMode() == 0 {
				limit.Mode = apikeysv1.RateLimitMode_RATE_LIMIT_MODE_LOCAL // nor this
			}
			e.ResourceId = e.GetApiKey().GetId()
			e.CreatedAt = cmp.Or(e.GetApiKey().GetUpdatedAt(), e.GetApiKey().GetCreatedAt())
			if kind == "api_key.updated" {
				e.Changes = []string{"label", "expires_at"}
			}
		case "webhook":
			e.Webhook = new(apikeysv1.Webhook)
			err = proto.Unmarshal(payload, e.Webhook)
			e.ResourceId = e.GetWebhook().GetId()
			e.CreatedAt = cmp.Or(e.GetWebhook().GetUpdatedAt(), e.GetWebhook().GetCreatedAt())
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the example of %s: %w", kind, err)
		}
		list = append(list, e)
	}
	if eventOf(list, "api_key.created") == nil || eventOf(list, "api_key.updated") == nil || eventOf(list, "webhook.updated") == nil {
		return nil, errors.New("the examples lack a key or a webhook: " + goldenEvents)
	}
	return list, nil
}

// eventOf returns the event of a type, nil if there is none.
func eventOf(events []*apikeysv1.Event, kind string) *apikeysv1.Event {
	for _, e := range events {
		if e.GetType() == kind {
			return e
		}
	}
	return nil
}

// examplesOf returns examples of the messages that the golden events show.
func examplesOf(events []*apikeysv1.Event) map[protoreflect.FullName][]any {
	all := make(map[protoreflect.FullName][]any)
	add := func(m proto.Message) {
		name := m.ProtoReflect().Descriptor().FullName()
		all[name] = append(all[name], json.RawMessage(wirejson.Append(nil, m)))
	}
	created := eventOf(events, "api_key.created")
	key, hook := created.GetApiKey(), eventOf(events, "webhook.updated").GetWebhook()
	add(key)
	add(hook)
	add(key.GetRateLimit())
	add(key.GetQuota())
	add(created)
	add(&apikeysv1.RateLimitStatus{Limit: 10, Remaining: 9, ResetAt: timestamppb.New(key.GetCreatedAt().AsTime())})
	return all
}
