package webhook

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// The words of this package and the numbers of the protos.
var (
	formatEnum = map[Format]apikeysv1.WebhookFormat{
		FormatClassic:     apikeysv1.WebhookFormat_WEBHOOK_FORMAT_CLASSIC,
		FormatResource:    apikeysv1.WebhookFormat_WEBHOOK_FORMAT_RESOURCE,
		FormatStandard:    apikeysv1.WebhookFormat_WEBHOOK_FORMAT_STANDARD,
		FormatCloudEvents: apikeysv1.WebhookFormat_WEBHOOK_FORMAT_CLOUDEVENTS,
	}
	reasonEnum = map[DisabledReason]apikeysv1.WebhookDisabledReason{
		DisabledGone:    apikeysv1.WebhookDisabledReason_WEBHOOK_DISABLED_REASON_GONE,
		DisabledFailing: apikeysv1.WebhookDisabledReason_WEBHOOK_DISABLED_REASON_FAILING,
	}
	stateEnum = map[DeliveryState]apikeysv1.DeliveryState{
		StatePending:   apikeysv1.DeliveryState_DELIVERY_STATE_PENDING,
		StateDelivered: apikeysv1.DeliveryState_DELIVERY_STATE_DELIVERED,
		StateFailed:    apikeysv1.DeliveryState_DELIVERY_STATE_FAILED,
		StateCancelled: apikeysv1.DeliveryState_DELIVERY_STATE_CANCELLED,
	}
	triggerEnum = map[Trigger]apikeysv1.DeliveryTrigger{
		TriggerSchedule: apikeysv1.DeliveryTrigger_DELIVERY_TRIGGER_SCHEDULE,
		TriggerRetry:    apikeysv1.DeliveryTrigger_DELIVERY_TRIGGER_RETRY,
		TriggerReplay:   apikeysv1.DeliveryTrigger_DELIVERY_TRIGGER_REPLAY,
		TriggerTest:     apikeysv1.DeliveryTrigger_DELIVERY_TRIGGER_TEST,
	}
)

// FormatOf returns the word of a format; the unspecified one is empty.
func FormatOf(e apikeysv1.WebhookFormat) Format { return wordOf(formatEnum, e) }

// StateOf returns the word of a delivery's state; the unspecified one is empty.
func StateOf(e apikeysv1.DeliveryState) DeliveryState { return wordOf(stateEnum, e) }

// wordOf returns the word that a table has for number.
func wordOf[W ~string, N comparable](table map[W]N, number N) W {
	for word, n := range table {
		if n == number {
			return word
		}
	}
	return ""
}

// Message returns w as everybody may see it: secret and header values masked.
func (w *Webhook) Message() *apikeysv1.Webhook {
	m := &apikeysv1.Webhook{
		Id:             w.ID,
		OrganizationId: w.OrganizationID,
		Label:          w.Label,
		Description:    w.Description,
		Url:            w.URL,
		Format:         formatEnum[w.Format],
		Enabled:        w.Enabled,
		Secret:         w.SecretMask,
		CreatedAt:      wire.Timestamp(w.CreatedAt),
		UpdatedAt:      wire.Timestamp(w.UpdatedAt),
		Etag:           w.ETag(),
	}
	for _, t := range w.Events {
		m.Events = append(m.Events, string(t))
	}
	if len(w.Headers) > 0 {
		m.Headers = make(map[string]string, len(w.Headers))
	}
	for _, h := range w.Headers {
		m.Headers[h.Name] = HeaderMask
	}
	if w.DisabledReason != "" {
		m.DisabledReason = reasonEnum[w.DisabledReason].Enum()
	}
	return m
}

// EventMessage returns the message of e with the resource after it, and without
// its cursor, which depends on the reader. It is a function of the event alone, so
// the same event reads the same for ever: its key is in the state that it had then.
func EventMessage(e *apikey.Event) (*apikeysv1.Event, error) {
	m := wire.Event(e)
	switch {
	case strings.HasPrefix(string(e.Type), aboutKeys):
		k, err := e.Key()
		if err != nil {
			return nil, err
		}
		m.ApiKey = wire.Key(&k, e.CreatedAt)
	case strings.HasPrefix(string(e.Type), aboutWebhooks):
		w, err := Of(e)
		if err != nil {
			return nil, err
		}
		m.Webhook = w.Message()
	}
	return m, nil
}

// Message returns d, a delivery of e, and the attempts that are to be shown
// with it. It has no payload where e is nil: the log no longer keeps it.
func (d *Delivery) Message(e *apikey.Event, attempts []Attempt) (*apikeysv1.Delivery, error) {
	payload := &apikeysv1.DeliveryPayload{}
	if e != nil {
		event, err := EventMessage(e)
		if err != nil {
			return nil, err
		}
		switch {
		case event.ApiKey != nil:
			payload.Resource = &apikeysv1.DeliveryPayload_ApiKey{ApiKey: event.ApiKey}
		case event.Webhook != nil:
			payload.Resource = &apikeysv1.DeliveryPayload_Webhook{Webhook: event.Webhook}
		}
	}
	m := &apikeysv1.Delivery{
		Id:             d.ID,
		WebhookId:      d.WebhookID,
		OrganizationId: d.OrganizationID,
		Url:            d.URL,
		Event:          string(d.Event),
		ResourceId:     d.ResourceID,
		Payload:        payload,
		Retries:        int32(d.Retries()),
		CreatedAt:      wire.Timestamp(d.CreatedAt),
		UpdatedAt:      wire.Timestamp(d.UpdatedAt),
		FirstSentAt:    wire.Timestamp(d.FirstSentAt),
		NextAttemptAt:  wire.Timestamp(d.NextAttemptAt),
		DelayMs:        d.Delay.Milliseconds(),
		State:          stateEnum[d.State],
	}
	m.ResponseStatus, m.ResponseBody, m.Error = d.Last.message()
	for i := range attempts {
		m.Attempts = append(m.Attempts, attempts[i].message())
	}
	return m, nil
}

func (a *Attempt) message() *apikeysv1.DeliveryAttempt {
	m := &apikeysv1.DeliveryAttempt{
		Number:     int32(a.Number),
		StartedAt:  wire.Timestamp(a.StartedAt),
		DurationMs: a.Duration.Milliseconds(),
		Trigger:    triggerEnum[a.Trigger],
	}
	m.ResponseStatus, m.ResponseBody, m.Error = a.Outcome.message()
	return m
}

// message returns the three fields that a delivery and an attempt have in
// common. A body is whatever the endpoint sent; a message holds UTF-8 alone.
func (o *Outcome) message() (status *int32, body *string, failure *apikeysv1.DeliveryError) {
	if o.Status != 0 {
		status = proto.Int32(int32(o.Status))
		body = proto.String(strings.ToValidUTF8(string(o.Body), "\uFFFD"))
	}
	if !o.Acknowledged() {
		failure = &apikeysv1.DeliveryError{Class: string(o.Failure.Class), Message: o.Failure.Message}
	}
	return status, body, failure
}

// EventTypeMessages returns every type that can be subscribed to.
func EventTypeMessages() []*apikeysv1.WebhookEventType {
	list := make([]*apikeysv1.WebhookEventType, len(eventTypes))
	for i, t := range eventTypes {
		list[i] = &apikeysv1.WebhookEventType{Type: string(t.Type), Description: t.Description}
	}
	return list
}

// PatchOf returns the change that a request for an update asks for.
func PatchOf(r *apikeysv1.UpdateWebhookRequest) Patch {
	m := r.GetWebhook()
	return Patch{
		Paths: r.GetUpdateMask().GetPaths(),
		Values: Webhook{
			Label: m.GetLabel(), Description: m.GetDescription(), URL: m.GetUrl(),
			Events: eventsOf(m.GetEvents()), Format: FormatOf(m.GetFormat()),
			Headers: NewHeaders(m.GetHeaders()), Enabled: m.GetEnabled(),
		},
	}
}

// Requested returns the webhook that a request asks for, in an organization.
// [Rules.Create] judges and completes it.
func Requested(r *apikeysv1.CreateWebhookRequest, organization string) Webhook {
	w := Webhook{
		OrganizationID: organization,
		Label:          r.GetLabel(), Description: r.GetDescription(), URL: r.GetUrl(),
		Events: eventsOf(r.GetEvents()), Format: FormatOf(r.GetFormat()),
		Headers: NewHeaders(r.GetHeaders()), Enabled: r.Enabled == nil || r.GetEnabled(),
	}
	if w.Format == "" {
		w.Format = DefaultFormat(r.GetCollection())
	}
	return w
}

func eventsOf(list []string) []apikey.EventType {
	types := make([]apikey.EventType, len(list))
	for i, t := range list {
		types[i] = apikey.EventType(t)
	}
	return types
}

// Overlap returns how long the old secret goes on signing after the rotation
// that a request asks for.
func Overlap(r *apikeysv1.RotateWebhookSecretRequest) time.Duration {
	if r.OverlapSeconds == nil {
		return DefaultOverlap
	}
	return time.Duration(r.GetOverlapSeconds()) * time.Second
}
