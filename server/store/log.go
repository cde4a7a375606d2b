package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	entterm "github.com/apikeys-dev/apikeys/ent/webhookterm"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// append numbers e, adds it to the transaction as the caller's, and returns it complete.
func (t *tx) append(e apikey.Event) (apikey.Event, error) {
	if !t.rights.In(e.OrganizationID) && !(e.OrganizationID == "" && slices.Contains(apikey.OperatorEventTypes(), e.Type)) {
		return e, fmt.Errorf("a change in %s by a caller of %s", e.OrganizationID, cmp.Or(t.rights.Organization, "others"))
	}
	e.Origin = t.by.Origin
	g := t.group
	g.position++
	e.Position, e.ID, e.CreatedAt = g.position, t.store.newID(apikey.EventIDPrefix), t.now
	g.types = append(g.types, e.Type)
	g.events = append(g.events, t.Event.Create().
		SetID(e.Position).SetEventID(e.ID).SetOrganizationID(e.OrganizationID).
		SetType(string(e.Type)).SetResourceID(e.ResourceID).SetChanges(e.Changes).
		SetActorKind(string(e.Actor.Kind)).SetActorID(e.Actor.ID).SetActorName(e.Actor.Name).SetRequestID(e.RequestID).
		SetCreatedAt(e.CreatedAt.UnixMicro()).SetPayload(e.Payload))
	if n := len(g.organizations); n == 0 || g.organizations[n-1] != e.OrganizationID {
		g.organizations = append(g.organizations, e.OrganizationID)
	}
	return e, nil
}

// appendWebhook adds the event about w, which has become after of before, to the
// transaction, unless the caller may not make such a change. Where this ends the term of before, or begins one, that is at the
// event's position. Of a webhook that is new, before is nil, and after of one that is
// deleted.
func (t *tx) appendWebhook(ctx context.Context, event apikey.EventType, before, after *webhook.Webhook, changes []string) (apikey.Event, error) {
	var none webhook.Webhook
	w := after
	if before == nil {
		before = &none
	}
	if after == nil {
		w, after = before, &none
	}
	if err := webhook.CheckChange(&t.rights, event, w, changes); err != nil {
		return apikey.Event{}, err
	}
	payload, err := wire.WebhookPayload(w)
	if err != nil {
		return apikey.Event{}, err
	}
	e, err := t.append(apikey.Event{
		Type: event, OrganizationID: w.OrganizationID, ResourceID: w.ID, Changes: changes, Payload: payload,
	})
	if err != nil || webhook.SameTerm(before, after) {
		return e, err
	}
	if before.Enabled {
		if err := t.WebhookTerm.Update().Where(entterm.OrganizationID(w.OrganizationID), entterm.WebhookID(w.ID), entterm.UntilPositionIsNil()).
			SetUntilPosition(e.Position).Exec(ctx); err != nil {
			return e, fmt.Errorf("end the term of a webhook: %w", err)
		}
	}
	if !after.Enabled {
		return e, nil
	}
	if err := t.WebhookTerm.Create().SetID(e.Position).SetWebhookID(w.ID).SetOrganizationID(w.OrganizationID).
		SetURL(w.URL).SetEvents(eventWords(w.Events)).SetFormat(string(w.Format)).Exec(ctx); err != nil {
		return e, fmt.Errorf("begin a term of a webhook: %w", err)
	}
	// Where there were no terms yet, nothing before this event is to be fanned out.
	if err := t.FanOutPosition.Create().SetID(w.OrganizationID).SetPosition(e.Position).
		OnConflictColumns("organization_id").Ignore().Exec(ctx); err != nil {
		return e, fmt.Errorf("begin the fan-out of an organization: %w", err)
	}
	t.group.subscribed = append(t.group.subscribed, w.OrganizationID)
	return e, nil
}

// due notes that a webhook has something to deliver once the transaction has been
// committed.
func (t *tx) due(webhookID string) { t.group.due = append(t.group.due, webhookID) }
