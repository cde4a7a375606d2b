package wire

import (
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// Webhook returns the message of w as everybody may see it: secret and header values masked.
func Webhook(w *webhook.Webhook) *apikeysv1.Webhook {
	m := &apikeysv1.Webhook{
		Id:             w.ID,
		OrganizationId: w.OrganizationID,
		Label:          w.Label,
		Description:    w.Description,
		Url:            w.URL,
		Format:         webhookFormats.number[w.Format],
		Enabled:        w.Enabled,
		Secret:         w.SecretMask,
		CreatedAt:      Timestamp(w.CreatedAt),
		UpdatedAt:      Timestamp(w.UpdatedAt),
		CreatedBy:      actorMessage(w.CreatedBy),
		Etag:           w.ETag(),
	}
	for _, t := range w.Events {
		m.Events = append(m.Events, string(t))
	}
	if len(w.Headers) > 0 {
		m.Headers = make(map[string]string, len(w.Headers))
	}
	for _, h := range w.Headers {
		m.Headers[h.Name] = webhook.HeaderMask
	}
	if w.DisabledReason != "" {
		m.DisabledReason = disabled.number[w.DisabledReason].Enum()
	}
	return m
}

// WebhookHealth returns the message of a webhook's health with the number of its
// pending deliveries.
func WebhookHealth(h *webhook.Health, pending int) *apikeysv1.WebhookHealth {
	return &apikeysv1.WebhookHealth{
		State:         healthStates.number[h.State()],
		FailingSince:  Timestamp(h.FailingSince),
		LastSuccessAt: Timestamp(h.LastSuccessAt),
		LastError:     deliveryError(h.LastError),
		Pending:       int32(pending),
	}
}

// WebhookEventTypes returns every type that can be subscribed to.
func WebhookEventTypes() []*apikeysv1.WebhookEventType {
	types := webhook.EventTypes()
	list := make([]*apikeysv1.WebhookEventType, len(types))
	for i, t := range types {
		list[i] = &apikeysv1.WebhookEventType{Type: string(t.Type), Description: t.Description}
	}
	return list
}

// WebhookPatch returns the change that a request for an update asks for.
func WebhookPatch(r *apikeysv1.UpdateWebhookRequest) webhook.Patch {
	m := r.GetWebhook()
	return webhook.Patch{
		Paths: r.GetUpdateMask().GetPaths(),
		Values: webhook.Webhook{
			Label: m.GetLabel(), Description: m.GetDescription(), URL: m.GetUrl(),
			Events: eventTypes(m.GetEvents()), Format: WebhookFormat(m.GetFormat()),
			Headers: webhook.NewHeaders(m.GetHeaders()), Enabled: m.GetEnabled(),
		},
	}
}

// RequestedWebhook returns the webhook that a request asks for, in an
// organization. [webhook.Rules.Create] checks and completes it.
func RequestedWebhook(r *apikeysv1.CreateWebhookRequest, organization string) webhook.Webhook {
	w := webhook.Webhook{
		OrganizationID: organization,
		Label:          r.GetLabel(), Description: r.GetDescription(), URL: r.GetUrl(),
		Events: eventTypes(r.GetEvents()), Format: WebhookFormat(r.GetFormat()),
		Headers: webhook.NewHeaders(r.GetHeaders()), Enabled: r.Enabled == nil || r.GetEnabled(),
	}
	if w.Format == "" {
		w.Format = webhook.DefaultFormat(r.GetCollection())
	}
	return w
}

func eventTypes(list []string) []apikey.EventType {
	types := make([]apikey.EventType, len(list))
	for i, t := range list {
		types[i] = apikey.EventType(t)
	}
	return types
}

// WebhookRotation returns what becomes of the older secrets in the rotation that a
// request asks for.
func WebhookRotation(r *apikeysv1.RotateWebhookSecretRequest) webhook.Rotation {
	rotation := webhook.Rotation{Overlap: webhook.DefaultOverlap, EndOldest: r.GetEndOldest()}
	if r.OverlapSeconds != nil {
		rotation.Overlap = time.Duration(r.GetOverlapSeconds()) * time.Second
	}
	return rotation
}
