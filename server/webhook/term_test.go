package webhook

import (
	"slices"
	"testing"
	"time"

	"github.com/gofrs/uuid/v5"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// TestDeliveryID checks that there is one id for a webhook and an event, and that ids
// ascend by the events' times.
func TestDeliveryID(t *testing.T) {
	eventAt := func(at time.Time) string {
		return apikey.EventIDPrefix + uuid.Must(uuid.NewV7AtTime(at)).String()
	}
	var ids []string
	seen := make(map[string]bool)
	for i := range 50 {
		event := eventAt(testNow.Add(time.Duration(i) * time.Millisecond))
		id := DeliveryID("webhook_1", event)
		if !apikey.IsID(DeliveryIDPrefix, id) || DeliveryID("webhook_1", event) != id {
			t.Fatalf("%s is no id", id)
		}
		u := uuid.FromStringOrNil(id[len(DeliveryIDPrefix):])
		at, err := uuid.TimestampFromV7(u)
		if err != nil || u.Version() != uuid.V7 || u.Variant() != uuid.VariantRFC9562 {
			t.Fatalf("%s is no UUID of version 7: %v", id, err)
		}
		if made, _ := at.Time(); !made.Equal(testNow.Add(time.Duration(i) * time.Millisecond).Truncate(time.Millisecond)) {
			t.Errorf("%s is of %v", id, made)
		}
		ids = append(ids, id)
		seen[id], seen[DeliveryID("webhook_2", event)] = true, true
	}
	if !slices.IsSorted(ids) || len(seen) != 100 {
		t.Errorf("%d of 100 different ids: %v", len(seen), ids)
	}
}

func TestTerm(t *testing.T) {
	term := Term{Webhook: testWebhook(), From: 10, Until: 20}
	term.Events = []apikey.EventType{AllEvents, WebhookUpdated}
	event := func(position int64, of apikey.EventType, resource string) *apikey.Event {
		return &apikey.Event{Position: position, Type: of, OrganizationID: term.OrganizationID, ResourceID: resource}
	}
	for name, c := range map[string]struct {
		event *apikey.Event
		want  bool
	}{
		"inside":         {event(11, apikey.KeyCreated, "api_key_1"), true},
		"last":           {event(19, apikey.KeyDeleted, "api_key_1"), true},
		"before":         {event(9, apikey.KeyCreated, "api_key_1"), false},
		"began it":       {event(10, apikey.KeyCreated, "api_key_1"), false},
		"ended it":       {event(20, apikey.KeyCreated, "api_key_1"), false},
		"after":          {event(21, apikey.KeyCreated, "api_key_1"), false},
		"another's":      {event(15, WebhookUpdated, "webhook_2"), true},
		"its own":        {event(15, WebhookUpdated, term.ID), false},
		"not subscribed": {event(15, WebhookDeleted, "webhook_2"), false},
		"a test":         {event(15, WebhookTest, "webhook_2"), false},
	} {
		if got := term.Receives(c.event); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	term.Until = 0
	if !term.Receives(event(1000, apikey.KeyCreated, "api_key_1")) {
		t.Error("a term that goes on has an end")
	}
}

func TestSameTerm(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *Webhook)
		same   bool
	}{
		"nothing": {func(*Webhook) {}, true},
		"label":   {func(w *Webhook) { w.Label = "other" }, true},
		"headers": {func(w *Webhook) { w.Headers = NewHeaders(map[string]string{"x-a": "1"}) }, true},
		"url":     {func(w *Webhook) { w.URL += "/other" }, false},
		"events":  {func(w *Webhook) { w.Events = []apikey.EventType{WebhookFailing} }, false},
		"format":  {func(w *Webhook) { w.Format = FormatCloudEvents }, false},
		"enabled": {func(w *Webhook) { w.Enabled = false }, false},
	} {
		before := testWebhook()
		before.Enabled, before.Format = true, FormatClassic
		after := before
		c.change(&after)
		if SameTerm(&before, &after) != c.same || SameTerm(&after, &before) != c.same {
			t.Errorf("%s: not %v", name, c.same)
		}
	}
}
