package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/apikeys-dev/apikeys/ent"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entattempt "github.com/apikeys-dev/apikeys/ent/deliveryattempt"
	entevent "github.com/apikeys-dev/apikeys/ent/event"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	entwebhook "github.com/apikeys-dev/apikeys/ent/webhook"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// DeliveryFilter says which deliveries a list holds. Zero fields filter nothing.
type DeliveryFilter struct {
	// Organization is the one whose deliveries are listed; empty means all, or Among.
	Organization string
	// Among confines the list to some organizations; nil does not.
	Among      []string
	WebhookID  string
	State      webhook.DeliveryState
	Event      apikey.EventType
	ResourceID string
	// Since and Until bound when the delivery was made; Until is not in it.
	Since, Until time.Time
}

// DeliveryOf is a delivery with its event, which is nil where the log no longer
// keeps it.
type DeliveryOf struct {
	webhook.Delivery
	Of *apikey.Event
}

// Deliveries returns a page of up to limit deliveries after the id after, ascending
// by id, and the id after which the next page goes on; empty when this is the
// last. A page ends at about 1 MiB too. It looks at 10,000 rows at most, so a page
// of a filter can be short, even empty, and have a next still.
func (s *Store) Deliveries(ctx context.Context, f DeliveryFilter, after string, limit int) (list []DeliveryOf, next string, err error) {
	end, err := s.beginPage(ctx)
	if err != nil {
		return nil, "", errList("deliveries", err)
	}
	defer end()
	var indexed []predicate.Delivery
	if f.Organization != "" {
		indexed = append(indexed, entdelivery.OrganizationID(f.Organization))
	}
	where := slices.Concat(indexed, f.predicates())
	if len(where) > len(indexed) {
		next, err = lastExamined(ctx, func(ctx context.Context, skip int) ([]string, error) {
			return s.reader.Delivery.Query().Where(append(indexed, entdelivery.IDGT(after))...).Order(entdelivery.ByID()).
				Offset(skip).Limit(1).IDs(ctx)
		})
		if err != nil {
			return nil, "", errList("deliveries", err)
		}
		if next != "" {
			where = append(where, entdelivery.IDLTE(next))
		}
	}
	list, more, err := readPage(limit, sizeOfDelivery, func(last *DeliveryOf, n int) ([]DeliveryOf, error) {
		if last != nil {
			after = last.ID
		}
		rows, err := s.reader.Delivery.Query().Where(slices.Concat(where, []predicate.Delivery{entdelivery.IDGT(after)})...).
			Order(entdelivery.ByID()).Limit(n).All(ctx)
		if err != nil {
			return nil, err
		}
		return s.withEvents(ctx, rows)
	})
	if err != nil {
		return nil, "", errList("deliveries", err)
	}
	if more {
		next = list[len(list)-1].ID
	}
	return list, next, nil
}

// predicates are the parts of the filter for which rows must be looked at.
func (f *DeliveryFilter) predicates() []predicate.Delivery {
	var all []predicate.Delivery
	if f.Among != nil {
		all = append(all, entdelivery.OrganizationIDIn(f.Among...))
	}
	if f.WebhookID != "" {
		all = append(all, entdelivery.WebhookID(f.WebhookID))
	}
	if f.State != "" {
		all = append(all, entdelivery.State(string(f.State)))
	}
	if f.Event != "" {
		all = append(all, entdelivery.Event(string(f.Event)))
	}
	if f.ResourceID != "" {
		all = append(all, entdelivery.ResourceID(f.ResourceID))
	}
	if !f.Since.IsZero() {
		all = append(all, entdelivery.CreatedAtGTE(f.Since.UnixMicro()))
	}
	if !f.Until.IsZero() {
		all = append(all, entdelivery.CreatedAtLT(f.Until.UnixMicro()))
	}
	return all
}

// withEvents adds to deliveries the events that they are of.
func (s *Store) withEvents(ctx context.Context, rows []*ent.Delivery) ([]DeliveryOf, error) {
	positions := make([]int64, len(rows))
	for i, row := range rows {
		positions[i] = row.EventPosition
	}
	slices.Sort(positions)
	events := make(map[int64]*apikey.Event)
	if err := s.readEvents(ctx, slices.Compact(positions), events); err != nil {
		return nil, err
	}
	list := make([]DeliveryOf, len(rows))
	for i, row := range rows {
		list[i] = DeliveryOf{deliveryOf(row), events[row.EventPosition]}
	}
	return list, nil
}

// The attempts of a delivery that are shown of many: the first and the newest.
const (
	firstAttempts  = 10
	newestAttempts = 90
)

// DeliveryWithAttempts is a delivery with its attempts, oldest first; of more than 100
// the first 10 and the newest 90.
type DeliveryWithAttempts struct {
	DeliveryOf
	Attempts []webhook.Attempt
}

// Delivery returns a delivery of organization with its attempts, or
// webhook.ErrDeliveryNotFound.
func (s *Store) Delivery(ctx context.Context, organization, id string) (DeliveryWithAttempts, error) {
	row, err := findDelivery(ctx, s.reader.Delivery, organization, id)
	if err != nil {
		return DeliveryWithAttempts{}, unexpected("read delivery", err)
	}
	// Attempts are numbered from 1 without a gap. One that is made meanwhile is as
	// if it came after this read.
	return withAttempts(ctx, s.reader.Event, s.reader.DeliveryAttempt, row)
}

// withAttempts returns the delivery of row with what belongs to it.
func withAttempts(ctx context.Context, events *ent.EventClient, from *ent.DeliveryAttemptClient, row *ent.Delivery) (DeliveryWithAttempts, error) {
	d := DeliveryWithAttempts{DeliveryOf: DeliveryOf{Delivery: deliveryOf(row)}}
	event, err := events.Query().Where(entevent.ID(row.EventPosition)).Only(ctx)
	switch {
	case ent.IsNotFound(err):
	case err != nil:
		return DeliveryWithAttempts{}, fmt.Errorf("read the delivery's event: %w", err)
	default:
		of := eventOf(event)
		d.Of = &of
	}
	rows, err := from.Query().Where(
		entattempt.DeliveryID(row.ID), entattempt.NumberLTE(row.Attempts),
		entattempt.Or(entattempt.NumberLTE(firstAttempts), entattempt.NumberGT(row.Attempts-newestAttempts)),
	).Order(entattempt.ByNumber()).All(ctx)
	if err != nil {
		return DeliveryWithAttempts{}, fmt.Errorf("read the delivery's attempts: %w", err)
	}
	d.Attempts = make([]webhook.Attempt, len(rows))
	for i, row := range rows {
		d.Attempts[i] = attemptOf(row)
	}
	return d, nil
}

func findDelivery(ctx context.Context, from *ent.DeliveryClient, organization, id string) (*ent.Delivery, error) {
	row, err := from.Query().Where(entdelivery.ID(id), entdelivery.OrganizationID(organization)).Only(ctx)
	if ent.IsNotFound(err) {
		return nil, webhook.ErrDeliveryNotFound
	}
	return row, err
}

// ChangeDelivery applies rule to a delivery of organization and returns it as it is
// afterwards. The webhook that rule is given is nil where it was deleted. It appends no
// event, and so waits for no fan-out.
func (s *Store) ChangeDelivery(ctx context.Context, by *apikey.Caller, organization, id string,
	rule func(d *webhook.Delivery, w *webhook.Webhook, now time.Time) error,
) (DeliveryWithAttempts, error) {
	var changed DeliveryWithAttempts
	err := s.commitAtOnce(ctx, by, func(ctx context.Context, t *tx) error {
		row, err := findDelivery(ctx, t.Delivery, organization, id)
		if err != nil {
			return err
		}
		var w *webhook.Webhook
		if found, err := t.Webhook.Query().Where(entwebhook.ID(row.WebhookID)).Only(ctx); err == nil {
			of := webhookOf(found)
			w = &of
		} else if !ent.IsNotFound(err) {
			return fmt.Errorf("read webhook: %w", err)
		}
		d := deliveryOf(row)
		if err := rule(&d, w, t.now); err != nil {
			return err
		}
		if err := t.requeue(ctx, row, &d); err != nil {
			return err
		}
		if changed, err = withAttempts(ctx, t.Event, t.DeliveryAttempt, row); err != nil {
			return err
		}
		changed.Delivery = d
		t.result = &changed
		return nil
	})
	return changed, unexpected("change delivery", err)
}

// requeue stores what a rule has made of the delivery of row. An attempt that is under
// way keeps its lease, and finds the change when it is settled: until then nobody else
// may take the delivery, whatever its state.
func (t *tx) requeue(ctx context.Context, row *ent.Delivery, d *webhook.Delivery) error {
	update := updateDelivery(t.Delivery, d).Where(entdelivery.ID(d.ID))
	switch {
	case row.Lease != "" && row.DueAt != nil && *row.DueAt > *t.store.due(t.now):
	case d.State != webhook.StatePending:
		update.ClearDueAt().SetLease("")
	default:
		update.SetNillableDueAt(t.store.due(d.NextAttemptAt)).SetLease("")
		t.due(d.WebhookID)
	}
	if err := update.Exec(ctx); err != nil {
		return fmt.Errorf("update delivery: %w", err)
	}
	return nil
}

// TestWebhook appends a webhook.test event about a webhook of organization and
// queues its delivery to that webhook, which must be enabled.
func (s *Store) TestWebhook(ctx context.Context, by *apikey.Caller, organization, id string) (DeliveryOf, error) {
	var made DeliveryOf
	err := s.commitChange(ctx, by, func(ctx context.Context, t *tx) error {
		w, err := s.findWebhook(ctx, t.Webhook, organization, id)
		if err != nil {
			return err
		}
		if !w.Enabled {
			return apikey.Errorf(apikey.KindFailedPrecondition, webhook.ReasonWebhookDisabled,
				"The webhook is disabled; enable it before testing it.")
		}
		e, err := t.appendWebhook(ctx, webhook.WebhookTest, &w, &w, nil)
		if err != nil {
			return err
		}
		made = DeliveryOf{webhook.NewDelivery(&w, &e, webhook.TriggerTest, t.now), &e}
		t.result = &made
		t.due(w.ID)
		return s.insertDeliveries(ctx, t, []deliveryRow{{&made.Delivery, e.Position}})
	})
	return made, unexpected("test webhook", err)
}

// RetryDeliveries opens up to limit deliveries of a webhook of organization again that
// are in one of states, after the position of an event in their order. It returns how
// many, and the position after which the rest follows; 0 where there is none.
func (s *Store) RetryDeliveries(ctx context.Context, by *apikey.Caller, organization, webhookID string, states []webhook.DeliveryState, after int64, limit int) (queued int, next int64, err error) {
	const doing = "retry deliveries"
	words := make([]string, len(states))
	for i, state := range states {
		words[i] = string(state)
	}
	// Looked for without the writer, because those in other states may be many.
	found, err := s.reader.Delivery.Query().
		Where(entdelivery.WebhookID(webhookID), entdelivery.EventPositionGT(after), entdelivery.StateIn(words...)).
		Order(entdelivery.ByEventPosition()).Limit(limit).
		Select(entdelivery.FieldID, entdelivery.FieldEventPosition).All(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", doing, err)
	}
	err = s.commitMany(ctx, by, func(ctx context.Context, t *tx) error {
		queued = 0
		w, err := s.findWebhook(ctx, t.Webhook, organization, webhookID)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			// There may be nothing to retry, and still the webhook has to be enabled.
			return (&webhook.Delivery{}).Retry(&w, webhook.TriggerRetry, t.now)
		}
		rows, err := t.Delivery.Query().Where(entdelivery.IDIn(idsOf(found)...), entdelivery.StateIn(words...)).
			Order(entdelivery.ByID()).All(ctx)
		if err != nil {
			return fmt.Errorf("read deliveries: %w", err)
		}
		for _, row := range rows {
			d := deliveryOf(row)
			if err := d.Retry(&w, webhook.TriggerRetry, t.now); err != nil {
				return err
			}
			if err := t.requeue(ctx, row, &d); err != nil {
				return err
			}
			queued++
		}
		return nil
	})
	if len(found) == limit {
		next = found[limit-1].EventPosition
	}
	return queued, next, unexpected(doing, err)
}
