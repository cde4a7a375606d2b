package webhook

import (
	"slices"
	"strconv"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The prefixes of ids.
const (
	IDPrefix         = "webhook_"
	DeliveryIDPrefix = "delivery_"
)

// Format is the shape of the body that a webhook is sent.
type Format string

// The formats.
const (
	FormatClassic     Format = "classic"
	FormatResource    Format = "resource"
	FormatStandard    Format = "standard"
	FormatCloudEvents Format = "cloudevents"
)

const jsonType = "application/json; charset=utf-8"

// contentTypes has a line for every format.
var contentTypes = map[Format]string{
	FormatClassic:     jsonType,
	FormatResource:    jsonType,
	FormatStandard:    jsonType,
	FormatCloudEvents: "application/cloudevents+json; charset=utf-8",
}

// IsKnown reports whether f is one of the formats.
func (f Format) IsKnown() bool { return contentTypes[f] != "" }

// Subscriptions is the collection whose webhooks have the resource format where
// none is named; elsewhere it is the classic one.
const Subscriptions = "subscriptions"

// DefaultFormat returns the format of a webhook that is made in collection
// without naming one.
func DefaultFormat(collection string) Format {
	if collection == Subscriptions {
		return FormatResource
	}
	return FormatClassic
}

// DisabledReason is why the server disabled a webhook; empty where it did not.
type DisabledReason string

// The reasons.
const (
	// DisabledGone: its endpoint answered 410.
	DisabledGone DisabledReason = "gone"
	// DisabledFailing: its endpoint failed for days without a success.
	DisabledFailing DisabledReason = "failing"
)

// Webhook is an endpoint and the events that it is sent. The zero time stands
// for "not" or "never".
//
// A Webhook handed out by a store is shared: change a copy, and replace its
// slices, never their elements.
type Webhook struct {
	ID             string
	OrganizationID string
	Label          string
	Description    string
	URL            string
	Events         []apikey.EventType
	Format         Format
	// Headers are ascending by name.
	Headers        []Header
	Enabled        bool
	DisabledReason DisabledReason
	// Secrets sign the deliveries, newest first. Only the first has no end.
	Secrets []SigningSecret
	// SecretMask is what is shown of the first secret.
	SecretMask string
	CreatedBy  apikey.Actor
	CreatedAt  time.Time
	UpdatedAt  time.Time
	Health     Health
	// Version counts the webhook's changes from 1; the etag is made of it.
	Version int64
}

// ETag names this version of the webhook.
func (w *Webhook) ETag() string { return strconv.FormatInt(w.Version, 10) }

// Receives reports whether e is to be delivered to w: it is enabled, of the same
// organization and subscribed, and e is not about w itself. A test event is
// delivered by name, never by subscription.
func (w *Webhook) Receives(e *apikey.Event) bool {
	return w.Enabled && w.OrganizationID == e.OrganizationID && w.ID != e.ResourceID && w.Subscribed(e.Type)
}

// Changes returns the names of the resource's fields whose values differ between
// before and after, in the resource's order. updated_at and etag, which every
// change moves, are left out.
func Changes(before, after *Webhook) []string {
	var names []string
	differs := func(name string, differ bool) {
		if differ {
			names = append(names, name)
		}
	}
	differs("label", before.Label != after.Label)
	differs("description", before.Description != after.Description)
	differs("url", before.URL != after.URL)
	differs("events", !slices.Equal(before.Events, after.Events))
	differs("format", before.Format != after.Format)
	differs("headers", !equalHeaders(before.Headers, after.Headers))
	differs("enabled", before.Enabled != after.Enabled)
	differs("secret", newest(before) != newest(after))
	differs("disabled_reason", before.DisabledReason != after.DisabledReason)
	return names
}

// newest returns the text of the newest secret.
func newest(w *Webhook) string {
	if len(w.Secrets) == 0 {
		return ""
	}
	return w.Secrets[0].Secret.Reveal()
}
