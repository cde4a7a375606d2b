package openapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/apikeys-dev/apikeys/client/hooks"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/deliver"
	"github.com/apikeys-dev/apikeys/server/webhook"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// What the members of bodies and the headers of deliveries are, where their names do not
// say it.
var deliveryTexts = map[string]string{
	"webhook_id":                 "The webhook that is called.",
	"url":                        "Its url when the event happened.",
	"event":                      "The type of the event.",
	"type":                       "The type of the event.",
	"resource_id":                "The id of the key or webhook that the event is about.",
	"resourceId":                 "The id of the key or webhook that the event is about.",
	"subject":                    "The id of the key or webhook that the event is about.",
	"timestamp":                  "When the event happened, in UTC.",
	"time":                       "When the event happened, in UTC.",
	"id":                         "The same in every attempt.",
	"resource":                   "What the event is about: `api_key` or `webhook`.",
	"changes":                    "Of `api_key.updated`: the fields that changed, with their new values.",
	"payload":                    "The resource as it was after the event.",
	"data":                       "The resource as it was after the event.",
	hooks.HeaderClassicSignature: "Lower-case hex of the HMAC-SHA-256 of the body under the text of the newest secret.",
	hooks.HeaderClassicTimestamp: "When this attempt was made, in UTC: `YYYY-MM-DD HH:MM:SS.mmm`.",
	hooks.HeaderEvent:            "The type of the event.",
	hooks.HeaderDelivery:         "The id of the delivery.",
	hooks.HeaderID:               "The id of the delivery, the same in every attempt: take each once.",
	hooks.HeaderTimestamp:        "When this attempt was made, in seconds since 1970.",
	hooks.HeaderSignature:        "`v1,` and the base64 of the HMAC-SHA-256 of `id.timestamp.body` under the secret's bytes, for each secret that signs, newest first.",
}

// webhooks describes the deliveries of each format. Their bodies are those that the
// server would send of the golden events.
func (d *document) webhooks(events []*apikeysv1.Event) (object, error) {
	all := obj()
	formats := apikeysv1.WebhookFormat(0).Descriptor().Values()
	words := wirejson.EnumWords(formats.Get(0).Parent().(protoreflect.EnumDescriptor))
	for i := range formats.Len() {
		if formats.Get(i).Number() == 0 {
			continue
		}
		operation, err := d.delivery(webhook.Format(words[formats.Get(i).Number()]), events)
		if err != nil {
			return nil, err
		}
		all.set(words[formats.Get(i).Number()], obj("post", operation))
	}
	return all, nil
}

// delivery describes what a webhook of a format is sent.
func (d *document) delivery(format webhook.Format, events []*apikeysv1.Event) (object, error) {
	secret, err := hooks.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		return nil, fmt.Errorf("the secret of the examples: %w", err)
	}
	hook := &webhook.Webhook{ID: "webhook_0197b617-b4c8-773f-bbd9-3ba84dd93d70", Format: format, Secrets: []webhook.SigningSecret{{Secret: secret}}}
	row := &webhook.Delivery{
		ID: "delivery_0197bd94-d729-7e3b-8c5a-1f6f0e8a2b9d", WebhookID: hook.ID, URL: "https://example.com/hook", Format: format,
		OrganizationID: "org_default",
	}
	examples := obj()
	var bodies [][]byte
	for _, kind := range []string{"api_key.created", "api_key.updated", "webhook.updated"} {
		e := eventOf(events, kind)
		row.Event, row.EventID, row.ResourceID = apikey.EventType(kind), e.GetId(), e.GetResourceId()
		body, err := deliver.BodyOf(nil, row, e)
		if err != nil {
			return nil, fmt.Errorf("the example of a delivery: %w", err)
		}
		bodies = append(bodies, body)
		examples.set(kind, obj("value", json.RawMessage(body)))
	}
	header := hook.Header(row, bodies[0], time.Date(2026, 5, 30, 20, 23, 16, 0, time.UTC))
	var parameters []object
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if text := deliveryTexts[name]; text != "" {
			parameters = append(parameters, obj("name", name, "in", "header", "required", true, "description", text,
				"schema", obj("type", "string"), "example", header.Get(name)))
		}
	}
	schema, err := d.bodySchema(bodies)
	if err != nil {
		return nil, err
	}
	name := camel(string(format)) + "Delivery"
	d.schemas.byName[name] = schema
	mediaType, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	return obj(
		"operationId", "receive"+camel(string(format)), "tags", []string{"Deliveries"},
		"summary", "Tells a webhook of the format "+string(format)+" of an event.",
		"description", strings.Join(nonEmpty(d.schemas.comments[protoreflect.FullName("apikeys.v1.WEBHOOK_FORMAT_"+strings.ToUpper(string(format)))]), ""),
		"security", []any{},
		"parameters", parameters,
		"requestBody", obj("required", true, "content", obj(mediaType, obj("schema", ref(name), "examples", examples))),
		"responses", obj(
			"2XX", obj("description", "Acknowledged."),
			"410", obj("description", "The webhook is disabled, and what waits for it with it."),
			"default", obj("description", "Not acknowledged: the delivery is sent again, after `Retry-After` if that is there. Redirects are not followed."),
		)), nil
}

// bodySchema is the schema of bodies: their members are texts, the resource, or the
// fields of it that changed. What not all of them have is not required.
func (d *document) bodySchema(bodies [][]byte) (object, error) {
	properties, count := obj(), make(map[string]int)
	for _, body := range bodies {
		decoder := jsontext.NewDecoder(strings.NewReader(string(body)))
		if _, err := decoder.ReadToken(); err != nil {
			return nil, fmt.Errorf("read a delivery: %w", err)
		}
		for decoder.PeekKind() != jsontext.KindEndObject {
			name, err := decoder.ReadToken()
			key := name.String()
			value, err2 := decoder.ReadValue()
			if err := errors.Join(err, err2); err != nil {
				return nil, fmt.Errorf("read a delivery: %w", err)
			}
			count[key]++
			if count[key] == 1 {
				properties.set(key, d.bodyMember(key, value))
			}
		}
	}
	var required []string
	for _, m := range properties {
		if count[m.name] == len(bodies) {
			required = append(required, m.name)
		}
	}
	return obj("type", "object", "required", required, "properties", properties), nil
}

func (d *document) bodyMember(name string, value jsontext.Value) object {
	var schema object
	switch {
	case value.Kind() != jsontext.KindBeginObject:
		schema = obj("type", "string")
	case name == "changes":
		key := (*apikeysv1.ApiKey)(nil).ProtoReflect().Descriptor()
		all := d.schemas.byName[d.schemas.define(key, shown, nil)]
		schema = obj("type", "object", "properties", all.get("properties"))
	default:
		payload := (*apikeysv1.DeliveryPayload)(nil).ProtoReflect().Descriptor()
		schema = d.schemas.message(payload, shown)
	}
	schema.setIf("description", deliveryTexts[name])
	return schema
}
