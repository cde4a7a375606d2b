package deliver

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// LocalID is the id of every [Local] webhook. No server gives it out.
const LocalID = webhook.IDPrefix + "00000000-0000-7000-8000-000000000000"

// Local is a webhook that no server knows of, on a developer's own machine. It
// gets its events from a stream, and is sent what a server would send.
type Local struct{ webhook webhook.Webhook }

// NewLocal returns a local webhook whose deliveries go to url. types are those of
// [Webhook.Events], and webhook.test besides.
func NewLocal(url string, types []string, format webhook.Format, secret hooks.Secret) *Local {
	list := make([]apikey.EventType, len(types))
	for i, t := range types {
		list[i] = apikey.EventType(t)
	}
	return &Local{webhook.Webhook{
		ID: LocalID, URL: url, Events: list, Format: format, Enabled: true,
		Secrets: []webhook.SigningSecret{{Secret: secret}},
	}}
}

// Wants reports whether e is of a type that was asked for.
func (l *Local) Wants(e *apikeysv1.Event) bool {
	t := apikey.EventType(e.GetType())
	return slices.Contains(l.webhook.Events, t) || l.webhook.Subscribed(t)
}

// Request returns the headers and the body that are sent of e at a time. The id
// of the delivery is made of the event's, so an event has the same webhook-id
// however often it is sent.
func (l *Local) Request(e *apikeysv1.Event, at time.Time) (http.Header, []byte, error) {
	d := webhook.Delivery{
		ID:             webhook.DeliveryIDPrefix + strings.TrimPrefix(e.GetId(), apikey.EventIDPrefix),
		WebhookID:      l.webhook.ID,
		OrganizationID: e.GetOrganizationId(),
		EventID:        e.GetId(),
		Event:          apikey.EventType(e.GetType()),
		ResourceID:     e.GetResourceId(),
		URL:            l.webhook.URL,
		Format:         l.webhook.Format,
	}
	body, err := BodyOf(nil, &d, e)
	if err != nil {
		return nil, nil, err
	}
	return l.webhook.Header(&d, body, at), body, nil
}
