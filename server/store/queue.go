package store

import (
	"context"
	"errors"
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
// this database died. It is for a database that has one server.
func (s *Store) VoidLeases(ctx context.Context) error {
	return s.transact(ctx, "void leases", func(ctx context.Context, etx *ent.Tx) error {
		return release(etx.Delivery.Update().Where(entdelivery.DueAtNotNil(), entdelivery.LeaseNEQ(""))).Exec(ctx)
	})
}

// release makes the rows of an update due when they were before they were taken.
func release(u *ent.DeliveryUpdate) *ent.DeliveryUpdate {
	return u.SetLease("").Modify(func(u *entsql.UpdateBuilder) {
		u.Set(entdelivery.FieldDueAt, entsql.Expr(entdelivery.FieldNextAttemptAt))
	})
}

// Due returns for each enabled webhook with pending deliveries when the first of
// them may be taken. It looks one row up for each webhook, however many wait.
func (s *Store) Due(ctx context.Context) (map[string]time.Time, error) {
	var rows []struct {
		ID    string `json:"id"`
		First *int64 `json:"first"`
	}
	err := s.reader.Webhook.Query().Where(entwebhook.Enabled(true)).Modify(func(sel *entsql.Selector) {
		d := entsql.Dialect(sel.Dialect())
		t := d.Table(entdelivery.Table)
		first := d.Select(entsql.Min(t.C(entdelivery.FieldDueAt))).From(t).Where(entsql.And(
			entsql.ColumnsEQ(t.C(entdelivery.FieldWebhookID), sel.C(entwebhook.FieldID)),
			entsql.NotNull(t.C(entdelivery.FieldDueAt))))
		sel.Select(sel.C(entwebhook.FieldID)).AppendSelectExprAs(first, "first")
	}).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("read what is due: %w", err)
	}
	due := make(map[string]time.Time)
	for _, row := range rows {
		if row.First != nil {
			due[row.ID] = fromMicros(row.First)
		}
	}
	return due, nil
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

// Claim takes deliveries that are due under a lease. On SQLite it looks for them
// without the writer, which has better things to do, and takes those that have not
// changed since.
func (s *Store) Claim(ctx context.Context, picks []webhook.Pick, lease string, until time.Time) ([]webhook.Claim, map[string]time.Time, error) {
	const doing = "claim deliveries"
	now := s.timestamp().UnixMicro()
	var found claimable
	var err error
	if !s.locksRows() {
		if found, err = s.claimable(ctx, s.reader, picks, now); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", doing, err)
		}
		if len(found.rows) == 0 {
			return nil, found.next, nil
		}
	}
	err = s.transact(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
		if s.locksRows() {
			if found, err = s.claimable(ctx, etx.Client(), picks, now); err != nil {
				return err
			}
		}
		args := make([]any, 0, len(found.rows)*claimDeliveries.columns)
		for _, row := range found.rows {
			args = append(args, row.ID, lease, until.UnixMicro(), now)
		}
		held, err := claimDeliveries.texts(ctx, etx, s.dialect, args)
		found.rows = slices.DeleteFunc(found.rows, func(row *ent.Delivery) bool { return !held[row.ID] })
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	list, err := s.withEvents(ctx, found.rows)
	if err != nil {
		return nil, nil, errors.Join(err, s.Release(ctx, lease, idsOf(found.rows)))
	}
	claims := make([]webhook.Claim, len(list))
	for i, d := range list {
		claims[i] = webhook.Claim{Lease: lease, Delivery: d.Delivery, Webhook: found.webhooks[d.WebhookID]}
		if d.Of != nil {
			claims[i].Event = *d.Of
		}
	}
	return claims, found.next, nil
}

// claimable is what can be taken for picks.
type claimable struct {
	webhooks map[string]webhook.Webhook
	rows     []*ent.Delivery
	next     map[string]time.Time // when more of a webhook can be
}

func (s *Store) claimable(ctx context.Context, from *ent.Client, picks []webhook.Pick, now int64) (found claimable, err error) {
	if found.webhooks, err = s.pickedWebhooks(ctx, from, picks); err != nil {
		return found, err
	}
	found.next = make(map[string]time.Time, len(picks))
	for _, pick := range picks {
		if _, enabled := found.webhooks[pick.WebhookID]; !enabled {
			continue
		}
		query := from.Delivery.Query().
			Where(entdelivery.WebhookID(pick.WebhookID), entdelivery.DueAtNotNil(), entdelivery.State(string(webhook.StatePending))).
			Order(entdelivery.ByDueAt()).Limit(pick.Max + 1)
		if s.locksRows() {
			query.ForUpdate(entsql.WithLockAction(entsql.SkipLocked))
		}
		rows, err := query.All(ctx)
		if err != nil {
			return found, err
		}
		for i, row := range rows {
			if i == pick.Max || *row.DueAt > now {
				found.next[pick.WebhookID] = fromMicros(row.DueAt)
				break
			}
			found.rows = append(found.rows, row)
		}
	}
	return found, nil
}

// pickedWebhooks returns those webhooks of picks that are enabled. One that cannot
// be opened is left out: it must not hold up the others.
func (s *Store) pickedWebhooks(ctx context.Context, from *ent.Client, picks []webhook.Pick) (map[string]webhook.Webhook, error) {
	ids := make([]string, len(picks))
	for i, pick := range picks {
		ids[i] = pick.WebhookID
	}
	rows, err := from.Webhook.Query().Where(entwebhook.IDIn(ids...), entwebhook.Enabled(true)).All(ctx)
	if err != nil {
		return nil, err
	}
	webhooks := make(map[string]webhook.Webhook, len(rows))
	for _, row := range rows {
		w, err := s.openWebhook(row)
		if err != nil {
			s.log.Error("The deliveries of a webhook cannot be signed; they wait.", "webhook_id", row.ID, "error", err)
			continue
		}
		webhooks[row.ID] = w
	}
	return webhooks, nil
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
	err := s.commitAtOnce(ctx, apikey.System(), func(ctx context.Context, t *tx) (err error) {
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
		args = settleArgs(args, &done[i], &results[i])
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
	if d.NextAttemptAt.IsZero() {
		update.ClearDueAt()
	} else {
		update.SetDueAt(d.NextAttemptAt.UnixMicro())
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
		return release(etx.Delivery.Update().Where(entdelivery.IDIn(ids...), entdelivery.Lease(lease))).Exec(ctx)
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
		held, err := etx.Delivery.Query().Where(entdelivery.IDIn(ids...), old).IDs(ctx)
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
