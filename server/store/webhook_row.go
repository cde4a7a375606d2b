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
	return webhook.Webhook{
		ID:             row.ID,
		OrganizationID: row.OrganizationID,
		Label:          row.Label,
		Description:    row.Description,
		URL:            row.URL,
		Events:         eventTypes(row.Events),
		Format:         webhook.Format(row.Format),
		Enabled:        row.Enabled,
		DisabledReason: webhook.DisabledReason(row.DisabledReason),
		SecretMask:     row.SecretMask,
		CreatedBy:      apikey.Actor{Kind: apikey.ActorKind(row.CreatedByKind), ID: row.CreatedByID, Name: row.CreatedByName},
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

// eventWords and eventTypes turn types of events into a column and back.
func eventWords(types []apikey.EventType) []string {
	words := make([]string, len(types))
	for i, t := range types {
		words[i] = string(t)
	}
	return words
}

func eventTypes(words []string) []apikey.EventType {
	types := make([]apikey.EventType, len(words))
	for i, word := range words {
		types[i] = apikey.EventType(word)
	}
	return types
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
	return setHealth(b.SetLabel(w.Label).SetDescription(w.Description).SetURL(w.URL).
		SetEvents(eventWords(w.Events)).SetFormat(string(w.Format)).
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

// updateDelivery returns the update that makes a row d, but for its lease, which is the
// queue's.
func updateDelivery(from *ent.DeliveryClient, d *webhook.Delivery) *ent.DeliveryUpdate {
	update := from.Update().SetState(string(d.State)).SetTrigger(string(d.Trigger)).
		SetAttempts(d.Attempts).SetFailures(d.Failures).
		SetResponseStatus(d.Last.Status).SetResponseBody(d.Last.Body).
		SetErrorClass(string(d.Last.Failure.Class)).SetErrorMessage(d.Last.Failure.Message).
		SetNillableNextAttemptAt(micros(d.NextAttemptAt)).SetDelay(d.Delay.Microseconds()).
		SetNillableUpdatedAt(micros(d.UpdatedAt)).SetNillableFirstSentAt(micros(d.FirstSentAt)).
		SetNillableEndedAt(micros(d.EndedAt))
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
