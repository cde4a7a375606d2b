package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entattempt "github.com/apikeys-dev/apikeys/ent/deliveryattempt"
	entwebhook "github.com/apikeys-dev/apikeys/ent/webhook"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// VoidLeases makes every delivery due that was under way when the last server of
// this database died. It is for a database that no other server has open: what other
// servers have under way stays theirs on a database that is shared, and that of a dead
// one is due at the end of its lease.
func (s *Store) VoidLeases(ctx context.Context) error {
	if s.Shared() {
		return nil
	}
	return s.transact(ctx, "void leases", func(ctx context.Context, etx *ent.Tx) error {
		return s.release(etx.Delivery.Update().Where(entdelivery.DueAtNotNil(), entdelivery.LeaseNEQ(""))).Exec(ctx)
	})
}

// release makes the rows of an update due when they were before they were taken.
func (s *Store) release(u *ent.DeliveryUpdate) *ent.DeliveryUpdate {
	return release(u, s.timestamp(), s.ahead.Load())
}

// release makes the rows of an update due when they were before they were taken, and now
// at the latest: another server may have set that time, whose clock is ahead. The clock of
// the queue is ahead of now by so many microseconds.
func release(u *ent.DeliveryUpdate, now time.Time, ahead int64) *ent.DeliveryUpdate {
	return u.SetLease("").Modify(func(u *entsql.UpdateBuilder) {
		u.Set(entdelivery.FieldDueAt, entsql.ExprFunc(func(b *entsql.Builder) {
			b.WriteString("CASE WHEN ").Ident(entdelivery.FieldNextAttemptAt).WriteString(" > ").Arg(now.UnixMicro())
			b.WriteString(" THEN ").Arg(now.UnixMicro() + ahead)
			b.WriteString(" ELSE ").Ident(entdelivery.FieldNextAttemptAt).WriteString(" + ").Arg(ahead).WriteString(" END")
		}))
	})
}

// Endpoints returns whose webhooks are and where they lead.
func (s *Store) Endpoints(ctx context.Context, webhookIDs []string) ([]webhook.Endpoint, error) {
	var endpoints []webhook.Endpoint
	for ids := range slices.Chunk(webhookIDs, eventChunk) {
		rows, err := s.reader.Webhook.Query().Where(entwebhook.IDIn(ids...)).
			Select(entwebhook.FieldID, entwebhook.FieldOrganizationID, entwebhook.FieldURL).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read where webhooks lead: %w", err)
		}
		for _, row := range rows {
			endpoints = append(endpoints, webhook.Endpoint{WebhookID: row.ID, OrganizationID: row.OrganizationID, URL: row.URL})
		}
	}
	return endpoints, nil
}

func idsOf(rows []*ent.Delivery) []string {
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	return ids
}

// settledAttempt is an attempt and the state that it has left its delivery in.
type settledAttempt struct {
	webhook.Attempt
	state webhook.DeliveryState
}

// Settle takes what came of attempts whose leases are still held, with what that means
// for the health of the endpoints, in one transaction.
func (s *Store) Settle(ctx context.Context, results []webhook.Result, rules webhook.Rules, b webhook.Backoff) (webhook.Settlement, error) {
	var settlement webhook.Settlement
	err := s.commitAtOnce(ctx, apikey.System("deliveries"), func(ctx context.Context, t *tx) (err error) {
		settlement, err = t.settle(ctx, results, rules, b)
		return err
	})
	return settlement, unexpected("settle deliveries", err)
}

func (t *tx) settle(ctx context.Context, results []webhook.Result, rules webhook.Rules, b webhook.Backoff) (settled webhook.Settlement, err error) {
	results = slices.DeleteFunc(slices.Clone(results), func(r webhook.Result) bool { return r.Lease == "" })
	// In the order of ids, as every writer in the background.
	slices.SortFunc(results, func(a, b webhook.Result) int { return strings.Compare(a.Delivery.ID, b.Delivery.ID) })
	done := make([]webhook.Delivery, len(results))
	attempts := make([]webhook.Attempt, len(results))
	args := make([]any, 0, len(results)*settleDeliveries.columns)
	for i := range results {
		done[i] = results[i].Delivery
		attempts[i] = done[i].Settle(&results[i], b)
		args = t.store.settleArgs(args, &done[i], &results[i])
	}
	held, err := settleDeliveries.texts(ctx, t, t.store.dialect, args)
	if err != nil {
		return settled, fmt.Errorf("update deliveries: %w", err)
	}
	args = make([]any, 0, len(results)*insertAttempts.columns)
	byWebhook := make(map[string][]settledAttempt)
	var telling []string // the webhooks whose health the attempts may change
	for i := range results {
		d, result := &done[i], &results[i]
		if !held[d.ID] {
			if attempts[i], err = t.settleChanged(ctx, d, result, b); err != nil {
				return settled, err
			}
			if attempts[i].DeliveryID == "" {
				continue
			}
		}
		args = attemptArgs(args, &attempts[i])
		settled.Deliveries = append(settled.Deliveries, *d)
		byWebhook[d.WebhookID] = append(byWebhook[d.WebhookID], settledAttempt{attempts[i], d.State})
		if result.Health.NeedsRecord(&result.Outcome, result.EndedAt) {
			telling = append(telling, d.WebhookID)
		}
	}
	if len(args) == 0 {
		return settled, nil
	}
	if err := insertAttempts.exec(ctx, t, t.store.dialect, args); err != nil {
		return settled, fmt.Errorf("log attempts: %w", err)
	}
	settled.Changed, err = t.recordHealth(ctx, rules, byWebhook, telling)
	return settled, err
}

// settleChanged settles an attempt whose delivery a caller has changed since it was
// claimed, and sets d to what it is now. Where the lease is no longer held, it returns
// the zero Attempt.
func (t *tx) settleChanged(ctx context.Context, d *webhook.Delivery, r *webhook.Result, b webhook.Backoff) (webhook.Attempt, error) {
	query := t.Delivery.Query().Where(entdelivery.ID(d.ID), entdelivery.Lease(r.Lease))
	if t.store.locksRows() {
		query.ForUpdate()
	}
	row, err := query.Only(ctx)
	if ent.IsNotFound(err) {
		return webhook.Attempt{}, nil
	}
	if err != nil {
		return webhook.Attempt{}, fmt.Errorf("read delivery: %w", err)
	}
	*d = deliveryOf(row)
	attempt := d.Settle(r, b)
	update := updateDelivery(t.Delivery, d).Where(entdelivery.ID(d.ID)).SetLease("")
	if due := t.store.due(d.NextAttemptAt); due == nil {
		update.ClearDueAt()
	} else {
		update.SetDueAt(*due)
	}
	if err := update.Exec(ctx); err != nil {
		return webhook.Attempt{}, fmt.Errorf("update delivery: %w", err)
	}
	return attempt, nil
}

// recordHealth takes attempts into the health of their webhooks: of those of telling,
// and of those that are failing, which a success ends whatever was claimed.
func (t *tx) recordHealth(ctx context.Context, rules webhook.Rules, byWebhook map[string][]settledAttempt, telling []string) ([]webhook.HealthChange, error) {
	ids := make([]any, 0, len(byWebhook))
	for id := range byWebhook {
		ids = append(ids, id)
	}
	failing, err := failingWebhooks.texts(ctx, t, t.store.dialect, ids)
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	for _, id := range telling {
		failing[id] = true
	}
	if len(failing) == 0 {
		return nil, nil
	}
	rows, err := t.Webhook.Query().Where(entwebhook.IDIn(slices.Sorted(maps.Keys(failing))...)).Order(entwebhook.ByID()).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	var changed []webhook.HealthChange
	for _, row := range rows {
		attempts := byWebhook[row.ID]
		slices.SortStableFunc(attempts, func(a, b settledAttempt) int {
			return a.StartedAt.Add(a.Duration).Compare(b.StartedAt.Add(b.Duration))
		})
		change, err := t.recordAttempts(ctx, rules, row, attempts)
		if err != nil {
			return nil, err
		}
		if change != nil {
			changed = append(changed, *change)
		}
	}
	return changed, nil
}

// failingWebhooks answers with those of ids that are of webhooks that are failing.
var failingWebhooks = bulk{
	head: "SELECT " + entwebhook.FieldID + " FROM " + entwebhook.Table + " WHERE " +
		entwebhook.FieldFailingSince + " IS NOT NULL AND " + entwebhook.FieldID + " IN (VALUES ",
	columns: 1,
	tail:    ")",
}

// Release gives deliveries back as they were.
func (s *Store) Release(ctx context.Context, lease string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return s.transact(ctx, "release deliveries", func(ctx context.Context, etx *ent.Tx) error {
		return s.release(etx.Delivery.Update().Where(entdelivery.IDIn(ids...), entdelivery.Lease(lease))).Exec(ctx)
	})
}

// DeleteDeliveriesBefore deletes up to limit deliveries with their attempts that came to
// an end before the time given, and returns how many. What has not ended stays.
func (s *Store) DeleteDeliveriesBefore(ctx context.Context, before time.Time, limit int) (deleted int, err error) {
	const doing = "delete old deliveries"
	old := entdelivery.EndedAtLT(before.UnixMicro())
	ids, err := s.reader.Delivery.Query().Where(old).Order(entdelivery.ByEndedAt()).Limit(limit).IDs(ctx)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	if len(ids) == 0 {
		return 0, nil
	}
	return len(ids), s.transact(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
		// One that was opened again since it was read stays.
		query := etx.Delivery.Query().Where(entdelivery.IDIn(ids...), old).Order(entdelivery.ByID())
		if s.locksRows() {
			query.ForUpdate()
		}
		held, err := query.IDs(ctx)
		if err != nil {
			return err
		}
		if _, err := etx.DeliveryAttempt.Delete().Where(entattempt.DeliveryIDIn(held...)).Exec(ctx); err != nil {
			return err
		}
		_, err = etx.Delivery.Delete().Where(entdelivery.IDIn(held...)).Exec(ctx)
		return err
	})
}
