package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/apikeys-dev/apikeys/ent"
	entwebhook "github.com/apikeys-dev/apikeys/ent/webhook"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// append numbers e, adds it to the transaction as the caller's with a delivery for each
// webhook that is enabled and subscribed at this moment, and returns it complete.
func (t *tx) append(ctx context.Context, e apikey.Event) (apikey.Event, error) {
	if !t.rights.In(e.OrganizationID) {
		return e, fmt.Errorf("a change in %s by a caller of %s", e.OrganizationID, t.rights.Organization)
	}
	e.Origin = t.by.Origin
	t.group.position++
	e.Position, e.ID, e.CreatedAt = t.group.position, t.store.newID(apikey.EventIDPrefix), t.now
	t.group.events = append(t.group.events, t.Event.Create().
		SetID(e.Position).SetEventID(e.ID).SetOrganizationID(e.OrganizationID).
		SetType(string(e.Type)).SetResourceID(e.ResourceID).SetChanges(e.Changes).
		SetActorKind(string(e.Actor.Kind)).SetActorID(e.Actor.ID).SetRequestID(e.RequestID).
		SetCreatedAt(e.CreatedAt.UnixMicro()).SetPayload(e.Payload))
	receivers, err := t.receivers(ctx, e.OrganizationID)
	if err != nil {
		return e, err
	}
	for i := range receivers {
		if receivers[i].Receives(&e) {
			t.deliver(&receivers[i], &e, webhook.TriggerSchedule)
		}
	}
	return e, nil
}

// deliver adds the delivery of e, which is of this transaction, to w and returns
// it.
func (t *tx) deliver(w *webhook.Webhook, e *apikey.Event, trigger webhook.Trigger) webhook.Delivery {
	d, create := t.newDelivery(w, e, trigger)
	t.group.deliveries = append(t.group.deliveries, create)
	return d
}

// newDelivery returns the delivery of e to w and what inserts it.
func (t *tx) newDelivery(w *webhook.Webhook, e *apikey.Event, trigger webhook.Trigger) (webhook.Delivery, *ent.DeliveryCreate) {
	d := webhook.NewDelivery(w, e, trigger, t.now)
	d.ID = t.store.newID(webhook.DeliveryIDPrefix)
	t.due(w.ID)
	return d, createDelivery(t.Delivery, &d, e.Position)
}

func (t *tx) insertDeliveries(ctx context.Context, all []*ent.DeliveryCreate) error {
	for chunk := range slices.Chunk(all, eventChunk) {
		if err := t.Delivery.CreateBulk(chunk...).Exec(ctx); err != nil {
			return fmt.Errorf("queue deliveries: %w", err)
		}
	}
	return nil
}

// due notes that a webhook has something to deliver once the transaction has been
// committed.
func (t *tx) due(webhookID string) { t.group.due = append(t.group.due, webhookID) }

// receivers returns the enabled webhooks of an organization, as far as deciding
// what they receive needs.
func (t *tx) receivers(ctx context.Context, organization string) ([]webhook.Webhook, error) {
	if list, ok := t.group.receivers[organization]; ok {
		return list, nil
	}
	rows, err := t.Webhook.Query().
		Where(entwebhook.OrganizationID(organization), entwebhook.Enabled(true)).
		Order(entwebhook.ByID()).
		Select(entwebhook.FieldOrganizationID, entwebhook.FieldURL, entwebhook.FieldEvents, entwebhook.FieldFormat, entwebhook.FieldEnabled).
		All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the receivers: %w", err)
	}
	list := make([]webhook.Webhook, len(rows))
	for i, row := range rows {
		list[i] = webhookOf(row)
	}
	if t.group.receivers == nil {
		t.group.receivers = make(map[string][]webhook.Webhook)
	}
	t.group.receivers[organization] = list
	return list, nil
}
