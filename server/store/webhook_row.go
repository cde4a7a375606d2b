package store

import (
	"fmt"

	"github.com/apikeys-dev/apikeys/ent"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// webhookOf returns the webhook of a row without what is sealed in it: secrets
// and headers.
func webhookOf(row *ent.Webhook) webhook.Webhook {
	events := make([]apikey.EventType, len(row.Events))
	for i, e := range row.Events {
		events[i] = apikey.EventType(e)
	}
	return webhook.Webhook{
		ID:             row.ID,
		OrganizationID: row.OrganizationID,
		Label:          row.Label,
		Description:    row.Description,
		URL:            row.URL,
		Events:         events,
		Format:         webhook.Format(row.Format),
		Enabled:        row.Enabled,
		DisabledReason: webhook.DisabledReason(row.DisabledReason),
		SecretMask:     row.SecretMask,
		CreatedBy:      apikey.Actor{Kind: apikey.ActorKind(row.CreatedByKind), ID: row.CreatedByID},
		CreatedAt:      fromMicros(&row.CreatedAt),
		UpdatedAt:      fromMicros(row.UpdatedAt),
		Health: webhook.Health{
			LastSuccessAt: fromMicros(row.LastSuccessAt),
			FailingSince:  fromMicros(row.FailingSince), Warned: row.FailingWarned,
			LastError: webhook.Failure{Class: webhook.ErrorClass(row.LastErrorClass), Message: row.LastErrorMessage},
		},
		Version: row.Version,
	}
}

// openWebhook returns the whole webhook of a row.
func (s *Store) openWebhook(row *ent.Webhook) (webhook.Webhook, error) {
	w := webhookOf(row)
	private, err := s.sealer.Open(keyring.Sealed{KeyID: row.SealedKeyID, Data: row.Sealed}, w.ID)
	if err == nil {
		err = w.SetPrivate(private)
	}
	if err != nil {
		return webhook.Webhook{}, fmt.Errorf("open webhook %s: %w", row.ID, err)
	}
	return w, nil
}

// healthSetter is what ent's builders of a create and of an update of a webhook have in
// common, as far as its health goes.
type healthSetter[B any] interface {
	SetNillableLastSuccessAt(*int64) B
	SetNillableFailingSince(*int64) B
	SetFailingWarned(bool) B
	SetLastErrorClass(string) B
	SetLastErrorMessage(string) B
}

// setHealth sets every column of a webhook's health.
func setHealth[B healthSetter[B]](b B, h *webhook.Health) B {
	return b.SetNillableLastSuccessAt(micros(h.LastSuccessAt)).
		SetNillableFailingSince(micros(h.FailingSince)).SetFailingWarned(h.Warned).
		SetLastErrorClass(string(h.LastError.Class)).SetLastErrorMessage(h.LastError.Message)
}

// webhookSetter is what ent's builders of a create and of an update have in
// common.
type webhookSetter[B any] interface {
	SetLabel(string) B
	SetDescription(string) B
	SetURL(string) B
	SetEvents([]string) B
	SetFormat(string) B
	SetEnabled(bool) B
	SetDisabledReason(string) B
	SetSealedKeyID(string) B
	SetSealed([]byte) B
	SetSecretMask(string) B
	SetNillableUpdatedAt(*int64) B
	healthSetter[B]
	SetVersion(int64) B
}

// setWebhook sets every column that can change.
func setWebhook[B webhookSetter[B]](s *Store, b B, w *webhook.Webhook) (B, error) {
	private, err := w.Private()
	if err != nil {
		return b, err
	}
	sealed := s.sealer.Seal(private, w.ID)
	events := make([]string, len(w.Events))
	for i, e := range w.Events {
		events[i] = string(e)
	}
	return setHealth(b.SetLabel(w.Label).SetDescription(w.Description).SetURL(w.URL).
		SetEvents(events).SetFormat(string(w.Format)).
		SetEnabled(w.Enabled).SetDisabledReason(string(w.DisabledReason)).
		SetSealedKeyID(sealed.KeyID).SetSealed(sealed.Data).SetSecretMask(w.SecretMask).
		SetNillableUpdatedAt(micros(w.UpdatedAt)).
		SetVersion(w.Version), &w.Health), nil
}

// deliveryOf returns the delivery of a row.
func deliveryOf(row *ent.Delivery) webhook.Delivery {
	return webhook.Delivery{
		ID:             row.ID,
		WebhookID:      row.WebhookID,
		OrganizationID: row.OrganizationID,
		EventID:        row.EventID,
		Event:          apikey.EventType(row.Event),
		ResourceID:     row.ResourceID,
		URL:            row.URL,
		Format:         webhook.Format(row.Format),
		State:          webhook.DeliveryState(row.State),
		Attempts:       row.Attempts,
		Failures:       row.Failures,
		Last: webhook.Outcome{
			Status: row.ResponseStatus, Body: row.ResponseBody,
			Failure: webhook.Failure{Class: webhook.ErrorClass(row.ErrorClass), Message: row.ErrorMessage},
		},
		Trigger:       webhook.Trigger(row.Trigger),
		NextAttemptAt: fromMicros(row.NextAttemptAt),
		Delay:         duration(row.Delay),
		CreatedAt:     fromMicros(&row.CreatedAt),
		UpdatedAt:     fromMicros(row.UpdatedAt),
		FirstSentAt:   fromMicros(row.FirstSentAt),
		EndedAt:       fromMicros(row.EndedAt),
	}
}

// deliverySetter is what ent's builders of a create and of an update have in
// common.
type deliverySetter[B any] interface {
	SetState(string) B
	SetTrigger(string) B
	SetAttempts(int) B
	SetFailures(int) B
	SetResponseStatus(int) B
	SetResponseBody([]byte) B
	SetErrorClass(string) B
	SetErrorMessage(string) B
	SetNillableNextAttemptAt(*int64) B
	SetDelay(int64) B
	SetNillableUpdatedAt(*int64) B
	SetNillableFirstSentAt(*int64) B
	SetNillableEndedAt(*int64) B
}

// setDelivery sets every column of the delivery itself that can change; its lease
// is the queue's.
func setDelivery[B deliverySetter[B]](b B, d *webhook.Delivery) B {
	return b.SetState(string(d.State)).SetTrigger(string(d.Trigger)).
		SetAttempts(d.Attempts).SetFailures(d.Failures).
		SetResponseStatus(d.Last.Status).SetResponseBody(d.Last.Body).
		SetErrorClass(string(d.Last.Failure.Class)).SetErrorMessage(d.Last.Failure.Message).
		SetNillableNextAttemptAt(micros(d.NextAttemptAt)).SetDelay(d.Delay.Microseconds()).
		SetNillableUpdatedAt(micros(d.UpdatedAt)).SetNillableFirstSentAt(micros(d.FirstSentAt)).
		SetNillableEndedAt(micros(d.EndedAt))
}

// createDelivery returns what inserts d, which waits for its next attempt, if for
// anything.
func createDelivery(from *ent.DeliveryClient, d *webhook.Delivery, position int64) *ent.DeliveryCreate {
	return setDelivery(from.Create(), d).SetID(d.ID).SetWebhookID(d.WebhookID).SetOrganizationID(d.OrganizationID).
		SetEventPosition(position).SetEventID(d.EventID).SetEvent(string(d.Event)).SetResourceID(d.ResourceID).
		SetURL(d.URL).SetFormat(string(d.Format)).SetCreatedAt(d.CreatedAt.UnixMicro()).
		SetNillableDueAt(micros(d.NextAttemptAt))
}

// updateDelivery returns the update that makes a row d.
func updateDelivery(from *ent.DeliveryClient, d *webhook.Delivery) *ent.DeliveryUpdate {
	update := setDelivery(from.Update(), d)
	if d.NextAttemptAt.IsZero() {
		update.ClearNextAttemptAt()
	}
	if d.EndedAt.IsZero() {
		update.ClearEndedAt()
	}
	return update
}

func attemptOf(row *ent.DeliveryAttempt) webhook.Attempt {
	return webhook.Attempt{
		DeliveryID: row.DeliveryID,
		Number:     row.Number,
		Trigger:    webhook.Trigger(row.Trigger),
		URL:        row.URL,
		StartedAt:  fromMicros(&row.StartedAt),
		Duration:   duration(row.Duration),
		Outcome: webhook.Outcome{
			Status: row.ResponseStatus, Body: row.ResponseBody,
			Failure: webhook.Failure{Class: webhook.ErrorClass(row.ErrorClass), Message: row.ErrorMessage},
		},
	}
}

func createAttempt(from *ent.DeliveryAttemptClient, a *webhook.Attempt) *ent.DeliveryAttemptCreate {
	return from.Create().SetDeliveryID(a.DeliveryID).SetNumber(a.Number).SetTrigger(string(a.Trigger)).SetURL(a.URL).
		SetStartedAt(a.StartedAt.UnixMicro()).SetDuration(a.Duration.Microseconds()).
		SetResponseStatus(a.Status).SetResponseBody(a.Body).
		SetErrorClass(string(a.Failure.Class)).SetErrorMessage(a.Failure.Message)
}
