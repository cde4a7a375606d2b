package webhook

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// LocalID is the id of every [Local] webhook. No server gives it out.
const LocalID = IDPrefix + "00000000-0000-7000-8000-000000000000"

// Local is a webhook that no server knows of, on a developer's own machine. It
// gets its events from a stream, and is sent what a server would send.
type Local struct{ webhook Webhook }

// NewLocal returns a local webhook whose deliveries go to url. types are those of
// [Webhook.Events], and webhook.test besides.
func NewLocal(url string, types []string, format Format, secret Secret) *Local {
	return &Local{Webhook{
		ID: LocalID, URL: url, Events: eventsOf(types), Format: format, Enabled: true,
		Secrets: []SigningSecret{{Secret: secret}},
	}}
}

// Wants reports whether e is of a type that was asked for.
func (l *Local) Wants(e *apikeysv1.Event) bool {
	t := apikey.EventType(e.GetType())
	return slices.Contains(l.webhook.Events, t) || l.webhook.subscribed(t)
}

// Request returns the headers and the body that are sent of e at a time. The id
// of the delivery is made of the event's, so an event has the same webhook-id
// however often it is sent.
func (l *Local) Request(e *apikeysv1.Event, at time.Time) (http.Header, []byte, error) {
	d := Delivery{
		ID:             DeliveryIDPrefix + strings.TrimPrefix(e.GetId(), apikey.EventIDPrefix),
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

// Unguarded returns a guard that lets a client call every address, by http too.
// It is for programs that send to where their own user says, on the user's own
// machine; a server's endpoints are picked by others.
func Unguarded() Guard {
	return Guard{
		Loopback:      true,
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
	}
}
