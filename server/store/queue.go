package store

import (
	"context"
	"fmt"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"entgo.io/ent/dialect"

	"github.com/apikeys-dev/apikeys/ent"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entattempt "github.com/apikeys-dev/apikeys/ent/deliveryattempt"
	entwebhook "github.com/apikeys-dev/apikeys/ent/webhook"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

var _ webhook.Queue = (*Store)(nil)

// VoidLeases makes every delivery due that was under way when the last server of
// this database died. It is for a database that has one server.
func (s *Store) VoidLeases(ctx context.Context) error {
	return s.administer(ctx, "void leases", func(ctx context.Context, etx *ent.Tx) error {
		return giveBack(etx.Delivery.Update().Where(entdelivery.LeaseNEQ(""))).Exec(ctx)
	})
}

// giveBack makes the rows of an update due when they were before they were taken.
func giveBack(u *ent.DeliveryUpdate) *ent.DeliveryUpdate {
	return u.SetLease("").Modify(func(u *entsql.UpdateBuilder) {
		u.Set(entdelivery.FieldDueAt, entsql.Expr(entdelivery.FieldNextAttemptAt))
	})
}

// Due returns for each webhook with pending deliveries when the first of them may
// be taken.
func (s *Store) Due(ctx context.Context) (map[string]time.Time, error) {
	var rows []struct {
		WebhookID string `json:"webhook_id"`
		First     int64  `json:"first"`
	}
	err := s.reader.Delivery.Query().Where(entdelivery.DueAtNotNil()).
		GroupBy(entdelivery.FieldWebhookID).
		Aggregate(ent.As(ent.Min(entdelivery.FieldDueAt), "first")).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("read what is due: %w", err)
	}
	due := make(map[string]time.Time, len(rows))
	for _, row := range rows {
		due[row.WebhookID] = time.UnixMicro(row.First).UTC()
	}
	return due, nil
}

// Claim takes deliveries that are due under a lease.
func (s *Store) Claim(ctx context.Context, asks []webhook.Ask, lease string, until time.Time) ([]webhook.Claim, map[string]time.Time, error) {
	var taken []*ent.Delivery
	webhooks := make(map[string]webhook.Webhook, len(asks))
	next := make(map[string]time.Time, len(asks))
	err := s.administer(ctx, "claim deliveries", func(ctx context.Context, etx *ent.Tx) error {
		ids := make([]string, len(asks))
		for i, ask := range asks {
			ids[i] = ask.WebhookID
		}
		rows, err := etx.Webhook.Query().Where(entwebhook.IDIn(ids...), entwebhook.Enabled(true)).All(ctx)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if webhooks[row.ID], err = s.openWebhook(row); err != nil {
				return err
			}
		}
		now := s.timestamp().UnixMicro()
		for _, ask := range asks {
			if _, enabled := webhooks[ask.WebhookID]; !enabled {
				continue
			}
			query := etx.Delivery.Query().
				Where(entdelivery.WebhookID(ask.WebhookID), entdelivery.DueAtNotNil()).
				Order(entdelivery.ByDueAt()).Limit(ask.Max + 1)
			if s.dialect == dialect.Postgres {
				query.ForUpdate(entsql.WithLockAction(entsql.SkipLocked))
			}
			rows, err := query.All(ctx)
			if err != nil {
				return err
			}
			for i, row := range rows {
				if i == ask.Max || *row.DueAt > now {
					next[ask.WebhookID] = fromMicros(row.DueAt)
					break
				}
				taken = append(taken, row)
			}
		}
		if len(taken) == 0 {
			return nil
		}
		return etx.Delivery.Update().Where(entdelivery.IDIn(idsOf(taken)...)).
			SetLease(lease).SetDueAt(until.UnixMicro()).Exec(ctx)
	})
	if err != nil {
		return nil, nil, err
	}
	list, err := s.withEvents(ctx, taken)
	if err != nil {
		return nil, nil, err
	}
	claims := make([]webhook.Claim, 0, len(list))
	for _, d := range list {
		claim := webhook.Claim{Delivery: d.Delivery, Webhook: webhooks[d.WebhookID]}
		if d.Of != nil {
			claim.Event = *d.Of
		}
		claims = append(claims, claim)
	}
	return claims, next, nil
}

func idsOf(rows []*ent.Delivery) []string {
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	return ids
}

// Settle takes what came of attempts under lease.
func (s *Store) Settle(ctx context.Context, lease string, results []webhook.Result, b webhook.Backoff) (map[string]webhook.Settled, error) {
	settled := make(map[string]webhook.Settled, len(results))
	byID := make(map[string]*webhook.Result, len(results))
	ids := make([]string, len(results))
	for i := range results {
		byID[results[i].DeliveryID] = &results[i]
		ids[i] = results[i].DeliveryID
	}
	err := s.administer(ctx, "settle deliveries", func(ctx context.Context, etx *ent.Tx) error {
		rows, err := etx.Delivery.Query().Where(entdelivery.IDIn(ids...), entdelivery.Lease(lease)).
			Order(entdelivery.ByID()).All(ctx)
		if err != nil {
			return err
		}
		now := s.timestamp()
		attempts := make([]*ent.DeliveryAttemptCreate, len(rows))
		for i, row := range rows {
			d, result := deliveryOf(row), byID[row.ID]
			attempt := d.Settle(result.Outcome, result.Trigger, result.StartedAt, b, now)
			update := updateDelivery(etx.Delivery, &d).Where(entdelivery.ID(d.ID)).SetLease("")
			if d.State == webhook.StatePending {
				update.SetNillableDueAt(micros(d.NextAttemptAt))
			} else {
				update.ClearDueAt()
			}
			if err := update.Exec(ctx); err != nil {
				return err
			}
			attempts[i] = createAttempt(etx.DeliveryAttempt, &attempt)
			settled[d.ID] = webhook.Settled{Delivery: d, Attempt: attempt}
		}
		if len(attempts) == 0 {
			return nil
		}
		return etx.DeliveryAttempt.CreateBulk(attempts...).Exec(ctx)
	})
	if err != nil {
		return nil, err
	}
	return settled, nil
}

// Release gives deliveries back as they were.
func (s *Store) Release(ctx context.Context, lease string, ids []string) error {
	return s.administer(ctx, "release deliveries", func(ctx context.Context, etx *ent.Tx) error {
		return giveBack(etx.Delivery.Update().Where(entdelivery.IDIn(ids...), entdelivery.Lease(lease))).Exec(ctx)
	})
}

// DeleteDeliveriesBefore deletes up to limit of the oldest deliveries with their
// attempts, as far as they were made before the time given, and returns how many.
func (s *Store) DeleteDeliveriesBefore(ctx context.Context, before time.Time, limit int) (deleted int, err error) {
	const doing = "delete old deliveries"
	rows, err := s.reader.Delivery.Query().Order(entdelivery.ByID()).Limit(limit).
		Select(entdelivery.FieldID, entdelivery.FieldCreatedAt).All(ctx)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	for deleted < len(rows) && rows[deleted].CreatedAt < before.UnixMicro() {
		deleted++
	}
	if deleted == 0 {
		return 0, nil
	}
	ids := idsOf(rows[:deleted])
	return deleted, s.administer(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
		if _, err := etx.DeliveryAttempt.Delete().Where(entattempt.DeliveryIDIn(ids...)).Exec(ctx); err != nil {
			return err
		}
		_, err := etx.Delivery.Delete().Where(entdelivery.IDIn(ids...)).Exec(ctx)
		return err
	})
}
