package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

var deliveryTests = map[string]func(*testing.T, *fixture){
	"DeliveriesOfAChange":   testDeliveriesOfAChange,
	"DeliveriesOfAGroup":    testDeliveriesOfAGroup,
	"DeliveriesAboutItself": testDeliveriesAboutItself,
	"DeliveryIsFrozen":      testDeliveryIsFrozen,
	"TestDelivery":          testTestDelivery,
	"ChangeDelivery":        testChangeDelivery,
	"DeliveryFilters":       testDeliveryFilters,
	"DeliveryBound":         testDeliveryBound,
	"DeliveriesAreDeleted":  testDeliveriesAreDeleted,
}

// deliveries returns all deliveries of an organization, "" for all.
func (f *fixture) deliveries(tb testing.TB, filter store.DeliveryFilter) []store.DeliveryOf {
	tb.Helper()
	f.fanOut(tb)
	list, next, err := f.Deliveries(tb.Context(), filter, "", 1000)
	if err != nil || next != "" {
		tb.Fatalf("list deliveries: next %q, %v", next, err)
	}
	return list
}

// wantDeliveries compares the states of a webhook's deliveries, oldest first.
func (f *fixture) wantDeliveries(tb testing.TB, webhookID string, want ...webhook.DeliveryState) {
	tb.Helper()
	var got []webhook.DeliveryState
	for _, d := range f.deliveries(tb, store.DeliveryFilter{WebhookID: webhookID}) {
		got = append(got, d.State)
	}
	wantSame(tb, "states", want, got)
}

// about returns the events of a webhook's deliveries, as type and label.
func (f *fixture) about(tb testing.TB, webhookID string) (all []string) {
	tb.Helper()
	for _, d := range f.deliveries(tb, store.DeliveryFilter{WebhookID: webhookID}) {
		text := string(d.Event)
		if webhook.IsAboutKey(d.Event) {
			text += " " + keyOf(tb, d.Of).GetLabel()
		}
		all = append(all, text)
	}
	return all
}

func testDeliveriesOfAChange(t *testing.T, f *fixture) {
	all := f.hook(t, nil)
	one := f.hook(t, func(w *webhook.Webhook) {
		w.Events, w.Format, w.URL = []apikey.EventType{apikey.KeyUpdated}, webhook.FormatStandard, "https://example.com/one"
	})
	f.hook(t, func(w *webhook.Webhook) { w.Enabled = false })
	f.hook(t, func(w *webhook.Webhook) { w.OrganizationID = "org_other" })
	f.clock.Advance(time.Minute)
	k := f.create(t, label(1))
	if _, err := f.update(t.Context(), k.ID, label(2)); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "of all", []string{"api_key.created key 1", "api_key.updated key 2"}, f.about(t, all.ID))
	wantSame(t, "of one", []string{"api_key.updated key 2"}, f.about(t, one.ID))
	if list := f.deliveries(t, store.DeliveryFilter{}); len(list) != 3 {
		t.Errorf("%d deliveries", len(list))
	}
	got := f.deliveries(t, store.DeliveryFilter{WebhookID: one.ID})[0]
	event := f.events(t, 5)[0]
	want := webhook.NewDelivery(&one, &event, webhook.TriggerSchedule, f.clock.stored())
	want.ID = got.ID
	wantSame(t, "delivery", want, got.Delivery)
	wantSame(t, "its event", event, *got.Of)
	shown, err := f.Delivery(t.Context(), org, got.ID)
	read, attempts := shown.DeliveryOf, shown.Attempts
	if err != nil || len(attempts) != 0 {
		t.Errorf("read %v, %v", attempts, err)
	}
	wantSame(t, "by id", got, read)
	for _, id := range []string{"delivery_1", ""} {
		if _, err := f.Delivery(t.Context(), org, id); !errors.Is(err, webhook.ErrDeliveryNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := f.Delivery(t.Context(), "org_other", got.ID); !errors.Is(err, webhook.ErrDeliveryNotFound) {
		t.Errorf("of another organization: %v", err)
	}
}

// testDeliveriesOfAGroup makes webhooks and changes in one transaction: each event
// goes to the webhooks that were there and enabled before it, and what is refused
// leaves no delivery.
func testDeliveriesOfAGroup(t *testing.T, f *fixture) {
	first, doomed := f.hook(t, nil), f.hook(t, nil)
	var second, third webhook.Webhook
	answers := f.together(t,
		f.creating(t, label(1)),
		func() (err error) {
			second, err = f.tryHook(t, func(w *webhook.Webhook) { w.Events = append(w.Events, webhook.WebhookUpdated) })
			return err
		},
		f.creating(t, label(2)),
		f.refused,
		f.panicking,
		func() error {
			_, err := f.ChangeWebhook(t.Context(), operator, org, first.ID, webhook.WebhookUpdated, func(w *webhook.Webhook, _ time.Time) error {
				w.Enabled = false
				return nil
			})
			return err
		},
		f.creating(t, label(3)),
		func() error { return f.DeleteWebhook(t.Context(), operator, org, doomed.ID) },
		func() (err error) {
			third, err = f.tryHook(t, nil)
			return err
		},
		f.creating(t, label(4)),
	)
	for i, err := range answers {
		if (err != nil) != (i == 3 || i == 4) {
			t.Errorf("member %d: %v", i, err)
		}
	}
	wantSame(t, "first", []string{"api_key.created key 1", "api_key.created key 2"}, f.about(t, first.ID))
	wantSame(t, "second", []string{"api_key.created key 2", "webhook.updated", "api_key.created key 3", "api_key.created key 4"}, f.about(t, second.ID))
	wantSame(t, "doomed", []string{"api_key.created key 1", "api_key.created key 2", "api_key.created key 3"}, f.about(t, doomed.ID))
	wantSame(t, "third", []string{"api_key.created key 4"}, f.about(t, third.ID))
}

func testDeliveriesAboutItself(t *testing.T, f *fixture) {
	every := func(w *webhook.Webhook) {
		w.Events = nil
		for _, known := range webhook.EventTypes() {
			w.Events = append(w.Events, known.Type)
		}
	}
	a := f.hook(t, every)
	b := f.hook(t, every)
	f.changeHook(t, a.ID, func(w *webhook.Webhook) { w.Label = "x" })
	for range 2 {
		claims, _ := f.claim(t, "lease", 1, b.ID)
		r := claims[0].Result()
		r.StartedAt, r.EndedAt, r.Outcome = f.clock.stored(), f.clock.stored(), failed
		if _, err := f.Settle(t.Context(), []webhook.Result{r}, webhook.Rules{DisableAfter: time.Minute}, steady); err != nil {
			t.Fatal(err)
		}
		f.clock.Advance(time.Minute)
	}
	if err := f.DeleteWebhook(t.Context(), operator, org, b.ID); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "of a", []string{"webhook.created", "webhook.failing", "webhook.disabled", "webhook.deleted"}, f.about(t, a.ID))
	wantSame(t, "of b", []string{"webhook.updated"}, f.about(t, b.ID))
}

// testDeliveryIsFrozen changes a webhook under its delivery: the row, and with it
// the body, stays; the attempt goes to where the webhook is now.
func testDeliveryIsFrozen(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	f.create(t, nil)
	before := f.deliveries(t, store.DeliveryFilter{})[0]
	f.changeHook(t, w.ID, func(w *webhook.Webhook) {
		w.URL, w.Format, w.Events = "https://example.org/", webhook.FormatStandard, []apikey.EventType{webhook.WebhookFailing}
	})
	claims, _, err := f.Claim(t.Context(), []webhook.Pick{{WebhookID: w.ID, Max: 8}}, "lease", 0)
	if err != nil || len(claims) != 1 {
		t.Fatalf("claimed %v, %v", claims, err)
	}
	wantSame(t, "delivery", before.Delivery, claims[0].Delivery)
	if claims[0].Webhook.URL != "https://example.org/" {
		t.Errorf("goes to %s", claims[0].Webhook.URL)
	}
}

func testTestDelivery(t *testing.T, f *fixture) {
	w := f.hook(t, func(w *webhook.Webhook) { w.Events = []apikey.EventType{webhook.WebhookFailing} })
	f.hook(t, nil)
	made, err := f.TestWebhook(t.Context(), operator, org, w.ID)
	if err != nil {
		t.Fatal(err)
	}
	list := f.deliveries(t, store.DeliveryFilter{})
	if len(list) != 1 {
		t.Fatalf("%d deliveries", len(list))
	}
	wantSame(t, "delivery", made.Delivery, list[0].Delivery)
	if made.Trigger != webhook.TriggerTest || made.Event != webhook.WebhookTest || made.ResourceID != w.ID || made.Of.ID != made.EventID {
		t.Errorf("made %+v", made)
	}
	f.wantEvents(t, 2, webhook.WebhookTest)
	f.changeHook(t, w.ID, func(w *webhook.Webhook) { w.Enabled = false })
	if _, err := f.TestWebhook(t.Context(), operator, org, w.ID); apikey.AsError(err) == nil || apikey.AsError(err).Reason != webhook.ReasonWebhookDisabled {
		t.Errorf("of a disabled one: %v", err)
	}
	f.wantEvents(t, 4)
}

func testChangeDelivery(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	f.create(t, nil)
	d := f.deliveries(t, store.DeliveryFilter{})[0].Delivery
	f.clock.Advance(time.Minute)
	position, err := f.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cancel := func(d *webhook.Delivery, _ *webhook.Webhook, now time.Time) error {
		_, err := d.Cancel(now)
		return err
	}
	if _, err := f.ChangeDelivery(t.Context(), operator, "org_other", d.ID, cancel); !errors.Is(err, webhook.ErrDeliveryNotFound) {
		t.Errorf("of another organization: %v", err)
	}
	if _, err := f.ChangeDelivery(t.Context(), operator, org, d.ID, cancel); err != nil {
		t.Fatal(err)
	}
	d.State, d.Trigger, d.NextAttemptAt, d.UpdatedAt, d.EndedAt = webhook.StateCancelled, "", time.Time{}, f.clock.stored(), f.clock.stored()
	wantSame(t, "cancelled", d, f.deliveries(t, store.DeliveryFilter{})[0].Delivery)
	f.wantDue(t, nil)
	retry := func(d *webhook.Delivery, w *webhook.Webhook, now time.Time) error {
		return d.Retry(w, webhook.TriggerRetry, now)
	}
	f.clock.Advance(time.Minute)
	if _, err := f.ChangeDelivery(t.Context(), operator, org, d.ID, retry); err != nil {
		t.Fatal(err)
	}
	d.State, d.Trigger, d.NextAttemptAt, d.UpdatedAt, d.EndedAt = webhook.StatePending, webhook.TriggerRetry, f.clock.stored(), f.clock.stored(), time.Time{}
	wantSame(t, "opened again", d, f.deliveries(t, store.DeliveryFilter{})[0].Delivery)
	f.wantDue(t, map[string]time.Time{w.ID: f.clock.stored()})
	if err := f.DeleteWebhook(t.Context(), operator, org, w.ID); err != nil {
		t.Fatal(err)
	}
	_, err = f.ChangeDelivery(t.Context(), operator, org, d.ID, func(_ *webhook.Delivery, w *webhook.Webhook, _ time.Time) error {
		if w != nil {
			t.Errorf("the webhook is %+v", w)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	f.wantEvents(t, position, webhook.WebhookDeleted)
}
