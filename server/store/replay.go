package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/apikeys-dev/apikeys/ent"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entevent "github.com/apikeys-dev/apikeys/ent/event"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// Replay is a batch of a replay: what it matched and queued, and where the next
// batch goes on.
type Replay struct {
	Matched, Queued int
	// Last is the position up to which events were looked at.
	Last int64
}

// PositionBefore returns the position of the last event made before t.
func (s *Store) PositionBefore(ctx context.Context, t time.Time) (int64, error) {
	const doing = "look for a time in the log"
	etx, err := s.reader.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	defer etx.Rollback() //nolint:errcheck // Nothing was written.
	floor, newest, err := eventBounds(ctx, etx.Client())
	if err != nil {
		return 0, unexpected(doing, err)
	}
	position, err := lastBefore(ctx, etx, floor, newest, t)
	return position, unexpected(doing, err)
}

// TimeAt returns when the event at a position was made.
func (s *Store) TimeAt(ctx context.Context, position int64) (time.Time, error) {
	row, err := s.reader.Event.Query().Where(entevent.ID(position)).Select(entevent.FieldCreatedAt).Only(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the time of an event: %w", err)
	}
	return fromMicros(&row.CreatedAt), nil
}

// ReplayEvents looks at up to limit events of a webhook's organization after a
// position, up to the position last, and queues those that the webhook is
// subscribed to: a delivery that is there is opened again, unless it is pending,
// one that is not is added. choose says which deliveries are meant, by the one
// that is there, or nil. The webhook must be enabled.
func (s *Store) ReplayEvents(ctx context.Context, by *apikey.Caller, organization, id string, after, last int64, limit int,
	choose func(d *webhook.Delivery) bool,
) (Replay, error) {
	var batch Replay
	err := s.commitMany(ctx, by, func(ctx context.Context, t *tx) error {
		batch = Replay{Last: last}
		w, err := s.findWebhook(ctx, t.Webhook, organization, id)
		if err != nil {
			return err
		}
		if !w.Enabled {
			return apikey.Errorf(apikey.KindFailedPrecondition, webhook.ReasonWebhookDisabled,
				"The webhook is disabled; enable it before replaying to it.")
		}
		rows, err := t.Event.Query().Where(entevent.OrganizationID(organization), entevent.IDGT(after), entevent.IDLTE(last)).
			Order(entevent.ByID()).Limit(limit).All(ctx)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		if len(rows) == limit {
			batch.Last = rows[limit-1].ID
		}
		known, err := t.deliveriesOf(ctx, id, rows)
		if err != nil {
			return err
		}
		var added []deliveryRow
		for _, row := range rows {
			d, err := t.replay(ctx, &batch, &w, eventOf(row), known[row.ID], choose)
			if err != nil {
				return err
			}
			if d != nil {
				added = append(added, deliveryRow{d, row.ID})
			}
		}
		return s.insertDeliveries(ctx, t, added)
	})
	return batch, unexpected("replay events", err)
}

// deliveriesOf returns the deliveries of events to a webhook by the events'
// positions.
func (t *tx) deliveriesOf(ctx context.Context, webhookID string, events []*ent.Event) (map[int64]*ent.Delivery, error) {
	if len(events) == 0 {
		return nil, nil
	}
	rows, err := t.Delivery.Query().Where(entdelivery.WebhookID(webhookID),
		entdelivery.EventPositionGTE(events[0].ID), entdelivery.EventPositionLTE(events[len(events)-1].ID)).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	known := make(map[int64]*ent.Delivery, len(rows))
	for _, row := range rows {
		known[row.EventPosition] = row
	}
	return known, nil
}

// replay queues one event, where it is meant and not pending already, and counts
// it in batch. It returns what inserts the delivery, if there was none.
func (t *tx) replay(ctx context.Context, batch *Replay, w *webhook.Webhook, e apikey.Event, row *ent.Delivery, choose func(*webhook.Delivery) bool) (*webhook.Delivery, error) {
	if !w.Receives(&e) {
		return nil, nil
	}
	var d *webhook.Delivery
	if row != nil {
		of := deliveryOf(row)
		d = &of
	}
	if !choose(d) {
		return nil, nil
	}
	batch.Matched++
	if d != nil && d.State == webhook.StatePending {
		return nil, nil
	}
	batch.Queued++
	if d == nil {
		t.due(w.ID)
		added := webhook.NewDelivery(w, &e, webhook.TriggerReplay, t.now)
		return &added, nil
	}
	if err := d.Retry(w, webhook.TriggerReplay, t.now); err != nil {
		return nil, err
	}
	return nil, t.requeue(ctx, row, d)
}
