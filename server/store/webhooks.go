package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/apikeys-dev/apikeys/ent"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	entwebhook "github.com/apikeys-dev/apikeys/ent/webhook"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// CreateWebhook stores the webhook that rule makes of its time and of how many
// its organization has, with a new id, and returns it.
func (s *Store) CreateWebhook(ctx context.Context, by *apikey.Caller, organization string,
	rule func(count int, now time.Time) (webhook.Webhook, error),
) (webhook.Webhook, error) {
	var created webhook.Webhook
	err := s.commitChange(ctx, by, func(ctx context.Context, t *tx) error {
		count, err := t.Webhook.Query().Where(entwebhook.OrganizationID(organization)).Count(ctx)
		if err != nil {
			return fmt.Errorf("count webhooks: %w", err)
		}
		w, err := rule(count, t.now)
		if err != nil {
			return err
		}
		w.ID, w.CreatedBy = s.newID(webhook.IDPrefix), by.Actor
		create := t.Webhook.Create().SetID(w.ID).SetOrganizationID(w.OrganizationID).SetCreatedAt(w.CreatedAt.UnixMicro()).
			SetCreatedByKind(string(w.CreatedBy.Kind)).SetCreatedByID(w.CreatedBy.ID).SetCreatedByName(w.CreatedBy.Name)
		if create, err = setWebhook(s, create, &w); err != nil {
			return err
		}
		if err := create.Exec(ctx); err != nil {
			return fmt.Errorf("insert webhook: %w", err)
		}
		created = w
		t.result = &created
		_, err = t.appendWebhook(ctx, webhook.WebhookCreated, nil, &w, nil)
		return err
	})
	return created, unexpected("create webhook", err)
}

// Webhook returns a webhook of organization, or webhook.ErrNotFound.
func (s *Store) Webhook(ctx context.Context, organization, id string) (webhook.Webhook, error) {
	w, err := s.findWebhook(ctx, s.reader.Webhook, organization, id)
	return w, unexpected("read webhook", err)
}

func (s *Store) findWebhook(ctx context.Context, from *ent.WebhookClient, organization, id string) (webhook.Webhook, error) {
	row, err := from.Query().Where(entwebhook.ID(id), entwebhook.OrganizationID(organization)).Only(ctx)
	if ent.IsNotFound(err) {
		return webhook.Webhook{}, webhook.ErrNotFound
	}
	if err != nil {
		return webhook.Webhook{}, fmt.Errorf("read webhook: %w", err)
	}
	return s.openWebhook(row)
}

// WebhookFilter says which webhooks a list holds. Zero fields filter nothing.
type WebhookFilter struct {
	// Organization is the one whose webhooks are listed; empty means all, or Among.
	Organization string
	// Among confines the list to some organizations; nil does not.
	Among []string
	// CreatedBy is the id of whoever made the webhooks.
	CreatedBy string
	// Failing is whether the webhooks are failing; nil means either.
	Failing *bool
}

// Webhooks returns a page of up to limit webhooks that f wants, after the id
// after, ascending by id, and the id after which the next page goes on; empty when
// this is the last. A page ends at about 1 MiB too, and one that is confined by Among
// looks at 10,000 rows at most.
func (s *Store) Webhooks(ctx context.Context, f WebhookFilter, after string, limit int) (list []webhook.Webhook, next string, err error) {
	end, err := s.beginPage(ctx)
	if err != nil {
		return nil, "", errList("webhooks", err)
	}
	defer end()
	var where []predicate.Webhook
	if f.Organization != "" {
		where = append(where, entwebhook.OrganizationID(f.Organization))
	}
	if f.Among != nil {
		next, err = lastExamined(ctx, func(ctx context.Context, skip int) ([]string, error) {
			return s.reader.Webhook.Query().Where(entwebhook.IDGT(after)).Order(entwebhook.ByID()).Offset(skip).Limit(1).IDs(ctx)
		})
		if err != nil {
			return nil, "", errList("webhooks", err)
		}
		if where = append(where, entwebhook.OrganizationIDIn(f.Among...)); next != "" {
			where = append(where, entwebhook.IDLTE(next))
		}
	}
	if f.CreatedBy != "" {
		where = append(where, entwebhook.CreatedByID(f.CreatedBy))
	}
	if f.Failing != nil && *f.Failing {
		where = append(where, entwebhook.FailingSinceNotNil())
	} else if f.Failing != nil {
		where = append(where, entwebhook.FailingSinceIsNil())
	}
	list, more, err := readPage(limit, sizeOfWebhook, func(last *webhook.Webhook, n int) ([]webhook.Webhook, error) {
		if last != nil {
			after = last.ID
		}
		rows, err := s.reader.Webhook.Query().Where(slices.Concat(where, []predicate.Webhook{entwebhook.IDGT(after)})...).
			Order(entwebhook.ByID()).Limit(n).All(ctx)
		if err != nil {
			return nil, err
		}
		chunk := make([]webhook.Webhook, len(rows))
		for i, row := range rows {
			if chunk[i], err = s.openWebhook(row); err != nil {
				return nil, err
			}
		}
		return chunk, nil
	})
	if err != nil {
		return nil, "", errList("webhooks", err)
	}
	if more {
		next = list[len(list)-1].ID
	}
	return list, next, nil
}

// ChangeWebhook applies rule to a webhook of organization and returns it as it is
// afterwards. A rule that changes nothing writes nothing.
func (s *Store) ChangeWebhook(ctx context.Context, by *apikey.Caller, organization, id string, event apikey.EventType,
	rule func(w *webhook.Webhook, now time.Time) error,
) (webhook.Webhook, error) {
	return s.changeWebhook(ctx, s.commitChange, by, organization, id, event, rule)
}

// DisableWebhook is ChangeWebhook for a rule that does nothing but disable a webhook.
// Like what deletes a webhook, it waits for no fan-out.
func (s *Store) DisableWebhook(ctx context.Context, by *apikey.Caller, organization, id string,
	rule func(w *webhook.Webhook, now time.Time) error,
) (webhook.Webhook, error) {
	return s.changeWebhook(ctx, s.commitAtOnce, by, organization, id, webhook.WebhookUpdated, func(w *webhook.Webhook, now time.Time) error {
		before := *w
		if err := rule(w, now); err != nil {
			return err
		}
		return disables(webhook.Changes(&before, w), w.Enabled)
	})
}

func (s *Store) changeWebhook(ctx context.Context, commit commit, by *apikey.Caller, organization, id string, event apikey.EventType,
	rule func(w *webhook.Webhook, now time.Time) error,
) (webhook.Webhook, error) {
	var changed webhook.Webhook
	err := commit(ctx, by, func(ctx context.Context, t *tx) error {
		before, err := s.findWebhook(ctx, t.Webhook, organization, id)
		if err != nil {
			return err
		}
		after := before
		if err := rule(&after, t.now); err != nil {
			return err
		}
		changes := webhook.Changes(&before, &after)
		t.result = &changed
		if changed = after; len(changes) == 0 {
			return nil
		}
		after.UpdatedAt = t.now
		after.Version++
		if err := t.updateWebhook(ctx, &after); err != nil {
			return err
		}
		changed = after
		_, err = t.appendWebhook(ctx, event, &before, &after, changes)
		return err
	})
	return changed, unexpected("change webhook", err)
}

// recordAttempts takes attempts of deliveries to a webhook, in their order, into its
// health, publishes the events that this leads to, and returns what changed; nil where
// its endpoint neither began to fail nor recovered.
func (t *tx) recordAttempts(ctx context.Context, rules webhook.Rules, row *ent.Webhook, attempts []settledAttempt) (*webhook.HealthChange, error) {
	before := webhookOf(row)
	after := before
	var events []apikey.EventType
	for i := range attempts {
		events = append(events, rules.RecordAttempt(&after, &attempts[i].Attempt, attempts[i].state, attempts[i].StartedAt.Add(attempts[i].Duration))...)
	}
	if after.Health == before.Health && len(events) == 0 {
		return nil, nil
	}
	if len(events) == 0 {
		if err := updateHealth(t.Webhook.UpdateOneID(row.ID), &after.Health).Exec(ctx); err != nil {
			return nil, fmt.Errorf("record the health of a webhook: %w", err)
		}
	} else if err := t.publishHealth(ctx, row, &after, events); err != nil {
		return nil, err
	}
	began := before.Health.FailingSince.IsZero() && !after.Health.FailingSince.IsZero()
	recovered := !before.Health.FailingSince.IsZero() && after.Health.FailingSince.IsZero()
	if !began && !recovered && len(events) == 0 {
		return nil, nil
	}
	change := &webhook.HealthChange{
		WebhookID: row.ID, OrganizationID: row.OrganizationID, State: after.Health.State(), DisabledReason: after.DisabledReason,
		FailingSince: after.Health.FailingSince, LastError: after.Health.LastError,
	}
	if recovered {
		change.FailingSince = before.Health.FailingSince
	}
	return change, nil
}

// updateHealth makes an update set h, where times that are not there go.
func updateHealth(u *ent.WebhookUpdateOne, h *webhook.Health) *ent.WebhookUpdateOne {
	if h.FailingSince.IsZero() {
		u.ClearFailingSince()
	}
	if h.LastSuccessAt.IsZero() {
		u.ClearLastSuccessAt()
	}
	return setHealth(u, h)
}

// publishHealth stores a webhook that attempts have changed, with events about it.
func (t *tx) publishHealth(ctx context.Context, row *ent.Webhook, after *webhook.Webhook, events []apikey.EventType) error {
	before, err := t.store.openWebhook(row)
	if err != nil {
		return err
	}
	whole := before
	whole.Health, whole.Enabled, whole.DisabledReason = after.Health, after.Enabled, after.DisabledReason
	changes := webhook.Changes(&before, &whole)
	if len(changes) > 0 {
		whole.UpdatedAt = t.now
		whole.Version++
	}
	if err := t.updateWebhook(ctx, &whole); err != nil {
		return err
	}
	for _, event := range events {
		if _, err := t.appendWebhook(ctx, event, &before, &whole, changes); err != nil {
			return err
		}
		before = whole
	}
	return nil
}

// DeleteWebhook takes a webhook of organization out of the store. Its deliveries
// are cancelled by CancelOrphans.
func (s *Store) DeleteWebhook(ctx context.Context, by *apikey.Caller, organization, id string) error {
	return unexpected("delete webhook", s.commitAtOnce(ctx, by, func(ctx context.Context, t *tx) error {
		w, err := s.findWebhook(ctx, t.Webhook, organization, id)
		if err != nil {
			return err
		}
		if err := t.Webhook.DeleteOneID(id).Exec(ctx); err != nil {
			return fmt.Errorf("delete webhook: %w", err)
		}
		t.group.deleted = append(t.group.deleted, w.ID)
		_, err = t.appendWebhook(ctx, webhook.WebhookDeleted, &w, nil, nil)
		return err
	}))
}

// CancelOrphans cancels up to limit pending deliveries whose webhook was deleted, and
// returns how many it looked at. What that costs depends on how many webhooks have
// pending deliveries, not on how many these are.
func (s *Store) CancelOrphans(ctx context.Context, limit int) (looked int, err error) {
	return s.cancel(ctx, limit, pendingOrphans, limit)
}

// pendingOrphans goes from webhook to webhook of those that have pending deliveries, by
// the index of what is due, and looks only into those whose webhook is gone.
const pendingOrphans = "WITH RECURSIVE pending(webhook) AS (" +
	"SELECT MIN(" + entdelivery.FieldWebhookID + ") FROM " + entdelivery.Table + " WHERE " + entdelivery.FieldDueAt + " IS NOT NULL" +
	" UNION ALL SELECT (SELECT MIN(" + entdelivery.FieldWebhookID + ") FROM " + entdelivery.Table +
	" WHERE " + entdelivery.FieldDueAt + " IS NOT NULL AND " + entdelivery.FieldWebhookID + " > pending.webhook)" +
	" FROM pending WHERE pending.webhook IS NOT NULL) " +
	"SELECT d." + entdelivery.FieldID + " FROM pending JOIN " + entdelivery.Table + " d" +
	" ON d." + entdelivery.FieldWebhookID + " = pending.webhook AND d." + entdelivery.FieldDueAt + " IS NOT NULL" +
	" WHERE NOT EXISTS (SELECT 1 FROM " + entwebhook.Table + " w WHERE w." + entwebhook.FieldID + " = pending.webhook) LIMIT $1"

// CancelWaiting cancels up to limit pending deliveries of disabled webhooks that were
// due before a time, and returns how many it looked at: a delivery waits for its webhook
// to be enabled, but not for ever, because the log is kept for it.
func (s *Store) CancelWaiting(ctx context.Context, before time.Time, limit int) (looked int, err error) {
	return s.cancel(ctx, limit, waitingOfDisabled, before.UnixMicro(), limit)
}

const waitingOfDisabled = "SELECT d." + entdelivery.FieldID + " FROM " + entwebhook.Table + " w CROSS JOIN " + entdelivery.Table + " d" +
	" WHERE d." + entdelivery.FieldWebhookID + " = w." + entwebhook.FieldID + " AND d." + entdelivery.FieldDueAt + " < $1" +
	" AND NOT w." + entwebhook.FieldEnabled + " LIMIT $2"

// cancel cancels the pending deliveries that a query without the writer finds.
func (s *Store) cancel(ctx context.Context, limit int, which string, args ...any) (looked int, err error) {
	const doing = "cancel deliveries"
	ids := make([]string, 0, limit)
	err = queryRows(ctx, s.reader, which, args, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	if len(ids) == 0 {
		return 0, nil
	}
	now := s.timestamp().UnixMicro()
	return len(ids), s.transact(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
		// One that was acknowledged since it was read stays so.
		return etx.Delivery.Update().Where(entdelivery.IDIn(ids...), entdelivery.State(string(webhook.StatePending))).
			SetState(string(webhook.StateCancelled)).SetTrigger("").SetDelay(0).ClearDueAt().ClearNextAttemptAt().
			SetUpdatedAt(now).SetEndedAt(now).Exec(ctx)
	})
}

// updateWebhook writes every column of w that can change, and lets the workers
// look at it again.
func (t *tx) updateWebhook(ctx context.Context, w *webhook.Webhook) error {
	update, err := setWebhook(t.store, t.Webhook.Update().Where(entwebhook.ID(w.ID)), w)
	if err != nil {
		return err
	}
	if w.Health.FailingSince.IsZero() {
		update.ClearFailingSince()
	}
	if w.Health.LastSuccessAt.IsZero() {
		update.ClearLastSuccessAt()
	}
	if err := update.Exec(ctx); err != nil {
		return fmt.Errorf("update webhook: %w", err)
	}
	t.due(w.ID)
	return nil
}

// Pending returns how many deliveries of a webhook wait or are under way, counted up to
// most.
func (s *Store) Pending(ctx context.Context, webhookID string, most int) (int, error) {
	var n int
	err := queryRows(ctx, s.reader, countPending, []any{webhookID, most}, func(rows *sql.Rows) error { return rows.Scan(&n) })
	if err != nil {
		return 0, fmt.Errorf("count the pending deliveries: %w", err)
	}
	return n, nil
}

// countPending counts inside, because a limit beside COUNT bounds nothing.
const countPending = "SELECT COUNT(*) FROM (SELECT 1 FROM " + entdelivery.Table +
	" WHERE " + entdelivery.FieldWebhookID + " = $1 AND " + entdelivery.FieldDueAt + " IS NOT NULL LIMIT $2) AS pending"
