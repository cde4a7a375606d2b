package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"entgo.io/ent/dialect"

	"github.com/apikeys-dev/apikeys/ent"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entevent "github.com/apikeys-dev/apikeys/ent/event"
	entwebhook "github.com/apikeys-dev/apikeys/ent/webhook"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// Claim takes deliveries that are due under a lease of a length, by the clock of the
// queue. What came of a delivery's earlier attempts is not in a claim.
//
// On SQLite it looks for them without the writer, which has better things to do, and
// takes those that have not changed since. On PostgreSQL it takes what no other server
// is just taking, in one statement, and waits for nobody: neither for the changes of
// this server nor for those of others.
func (s *Store) Claim(ctx context.Context, picks []webhook.Pick, lease string, length time.Duration) (claims []webhook.Claim, next map[string]time.Time, err error) {
	const doing = "claim deliveries"
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	webhooks, err := s.pickedWebhooks(ctx, picks)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	picks = slices.DeleteFunc(slices.Clone(picks), func(p webhook.Pick) bool { return webhooks[p.WebhookID] == nil })
	if len(picks) == 0 {
		return nil, nil, nil
	}
	take := s.takeSQLite
	if s.dialect == dialect.Postgres {
		take = s.takePostgres
	}
	rows, next, err := take(ctx, picks, lease, length)
	if err == nil && len(rows) > 0 {
		claims, err = s.claimsOf(ctx, rows, lease, webhooks)
	}
	if err != nil {
		ids := make([]string, len(rows))
		for i := range rows {
			ids[i] = rows[i].ID
		}
		if released := s.Release(ctx, lease, ids); released != nil {
			err = fmt.Errorf("%w; and then: %w", err, released)
		}
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	return claims, next, nil
}

// claimsOf returns the claims of rows, with their webhooks and events.
func (s *Store) claimsOf(ctx context.Context, rows []claimRow, lease string, webhooks map[string]*webhook.Webhook) ([]webhook.Claim, error) {
	events, err := s.eventsOf(ctx, rows)
	if err != nil {
		return nil, err
	}
	claims := make([]webhook.Claim, len(rows))
	for i := range rows {
		w := webhooks[rows[i].WebhookID]
		rows[i].OrganizationID, rows[i].State = w.OrganizationID, webhook.StatePending
		claims[i] = webhook.Claim{Lease: lease, Delivery: rows[i].Delivery, Webhook: w, Event: events[rows[i].position]}
	}
	return claims, nil
}

// claimRow is a delivery as a claim reads it.
type claimRow struct {
	webhook.Delivery
	position, due int64
}

// claimColumns are the columns of a claimRow, in the order of scan.
const claimColumns = entdelivery.FieldID + ", " + entdelivery.FieldWebhookID + ", " + entdelivery.FieldEventPosition + ", " +
	entdelivery.FieldEventID + ", " + entdelivery.FieldEvent + ", " + entdelivery.FieldResourceID + ", " +
	entdelivery.FieldURL + ", " + entdelivery.FieldFormat + ", " + entdelivery.FieldTrigger + ", " +
	entdelivery.FieldAttempts + ", " + entdelivery.FieldFailures + ", " + entdelivery.FieldNextAttemptAt + ", " + entdelivery.FieldDelay + ", " +
	entdelivery.FieldCreatedAt + ", " + entdelivery.FieldUpdatedAt + ", " + entdelivery.FieldFirstSentAt + ", " + entdelivery.FieldDueAt

func (r *claimRow) scan(rows *sql.Rows) error {
	var event, format, trigger string
	var delay, created int64
	var next, updated, first sql.NullInt64
	err := rows.Scan(&r.ID, &r.WebhookID, &r.position, &r.EventID, &event, &r.ResourceID, &r.URL, &format, &trigger,
		&r.Attempts, &r.Failures, &next, &delay, &created, &updated, &first, &r.due)
	r.Event, r.Format, r.Trigger = apikey.EventType(event), webhook.Format(format), webhook.Trigger(trigger)
	r.NextAttemptAt, r.UpdatedAt, r.FirstSentAt = nullTime(next), nullTime(updated), nullTime(first)
	r.Delay, r.CreatedAt = duration(delay), time.UnixMicro(created).UTC()
	return err
}

// nullTime is fromMicros for a column that was scanned.
func nullTime(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}

// firstOfWebhook finds those deliveries of a webhook that are due first.
const firstOfWebhook = "SELECT " + claimColumns + " FROM " + entdelivery.Table + " WHERE " +
	entdelivery.FieldWebhookID + " = ? AND " + entdelivery.FieldDueAt + " IS NOT NULL AND " +
	entdelivery.FieldState + " = '" + string(webhook.StatePending) + "' ORDER BY " + entdelivery.FieldDueAt + " LIMIT ?"

func (s *Store) takeSQLite(ctx context.Context, picks []webhook.Pick, lease string, length time.Duration) (found []claimRow, next map[string]time.Time, err error) {
	now := s.timestamp().UnixMicro()
	next = make(map[string]time.Time, len(picks))
	for _, pick := range picks {
		n := 0
		err := queryRows(ctx, s.reader, firstOfWebhook, []any{pick.WebhookID, pick.Max + 1}, func(rows *sql.Rows) error {
			var row claimRow
			if err := row.scan(rows); err != nil {
				return err
			}
			if n++; n <= pick.Max && row.due <= now {
				found = append(found, row)
			} else if _, told := next[pick.WebhookID]; !told {
				next[pick.WebhookID] = time.UnixMicro(row.due).UTC()
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	if len(found) == 0 {
		return nil, next, nil
	}
	args := make([]any, 0, len(found)*claimDeliveries.columns)
	for i := range found {
		args = append(args, found[i].ID, lease, now+length.Microseconds(), now)
	}
	err = s.transact(ctx, "take deliveries", func(ctx context.Context, etx *ent.Tx) error {
		held, err := claimDeliveries.texts(ctx, etx, s.dialect, args)
		found = slices.DeleteFunc(found, func(row claimRow) bool { return !held[row.ID] })
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return found, next, nil
}

// The clock of the queue on PostgreSQL is the database's, but for a store that was given
// a clock, whose time is the first argument then.
const queueClock = "coalesce($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"

const (
	// takeDeliveries takes deliveries of picks that are due, those first that have waited
	// longest, and passes those over that another server is just taking or changing.
	takeDeliveries = "WITH clock AS MATERIALIZED (SELECT " + queueClock + " AS now), " +
		"taken AS MATERIALIZED (SELECT d." + entdelivery.FieldID + " AS taken_id FROM unnest($2::text[], $3::bigint[]) AS pick(webhook, most) CROSS JOIN LATERAL (" +
		"SELECT " + entdelivery.FieldID + " FROM " + entdelivery.Table + " WHERE " + entdelivery.FieldWebhookID + " = pick.webhook AND " +
		entdelivery.FieldDueAt + " IS NOT NULL AND " + entdelivery.FieldDueAt + " <= (SELECT now FROM clock) AND " +
		entdelivery.FieldState + " = '" + string(webhook.StatePending) + "' ORDER BY " + entdelivery.FieldDueAt +
		" LIMIT pick.most FOR UPDATE SKIP LOCKED) AS d) " +
		"UPDATE " + entdelivery.Table + " SET " + entdelivery.FieldLease + " = $4, " + entdelivery.FieldDueAt + " = (SELECT now FROM clock) + $5 " +
		"FROM taken WHERE " + entdelivery.FieldID + " = taken_id RETURNING " + claimColumns
	// nextOfWebhooks finds when the first delivery of each webhook is due that is not
	// under a given lease.
	nextOfWebhooks = "SELECT pick.webhook, d." + entdelivery.FieldDueAt + " FROM unnest($1::text[]) AS pick(webhook) CROSS JOIN LATERAL (" +
		"SELECT " + entdelivery.FieldDueAt + " FROM " + entdelivery.Table + " WHERE " + entdelivery.FieldWebhookID + " = pick.webhook AND " +
		entdelivery.FieldDueAt + " IS NOT NULL AND " + entdelivery.FieldLease + " <> $2 AND " +
		entdelivery.FieldState + " = '" + string(webhook.StatePending) + "' ORDER BY " + entdelivery.FieldDueAt + " LIMIT 1) AS d"
)

func (s *Store) takePostgres(ctx context.Context, picks []webhook.Pick, lease string, length time.Duration) (found []claimRow, next map[string]time.Time, err error) {
	ids, most := make([]string, len(picks)), make([]int64, len(picks))
	for i, pick := range picks {
		ids[i], most[i] = pick.WebhookID, int64(pick.Max)
	}
	defer func() { s.faults.observe(err) }()
	// Over a connection for reads: the statement is a transaction of its own, waits for
	// no lock, and so can hold none against another.
	err = queryRows(ctx, s.reader, takeDeliveries, []any{s.givenClock(), ids, most, lease, length.Microseconds()}, func(rows *sql.Rows) error {
		var row claimRow
		err := row.scan(rows)
		found = append(found, row)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(found, func(a, b claimRow) int { return a.NextAttemptAt.Compare(b.NextAttemptAt) })
	took := make(map[string]bool, len(picks))
	for i := range found {
		took[found[i].WebhookID] = true
	}
	next = make(map[string]time.Time, len(picks))
	return found, next, queryRows(ctx, s.reader, nextOfWebhooks, []any{ids, lease}, func(rows *sql.Rows) error {
		var id string
		var due int64
		err := rows.Scan(&id, &due)
		if next[id] = s.fromDue(due); !took[id] {
			// What is due all the same is locked, which may last.
			next[id] = later(next[id], s.now().Add(lockedPause))
		}
		return err
	})
}

// lockedPause is how long a webhook is left alone whose deliveries are all locked.
const lockedPause = 50 * time.Millisecond

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// claimedWebhooks reads of webhooks that are enabled what changes without a new version.
var claimedWebhooks = bulk{
	head: "SELECT " + entwebhook.FieldID + ", " + entwebhook.FieldVersion + ", " + entwebhook.FieldLastSuccessAt + ", " +
		entwebhook.FieldFailingSince + ", " + entwebhook.FieldFailingWarned + ", " + entwebhook.FieldLastErrorClass + ", " + entwebhook.FieldLastErrorMessage +
		" FROM " + entwebhook.Table + " WHERE " + entwebhook.FieldEnabled + " AND " + entwebhook.FieldID + " IN (VALUES ",
	columns: 1,
	tail:    ")",
}

// pickedWebhooks returns those webhooks of picks that are enabled. One that cannot be
// opened is left out: it must not hold up the others.
func (s *Store) pickedWebhooks(ctx context.Context, picks []webhook.Pick) (map[string]*webhook.Webhook, error) {
	ids := make([]any, len(picks))
	for i, pick := range picks {
		ids[i] = pick.WebhookID
	}
	webhooks := make(map[string]*webhook.Webhook, len(picks))
	var unknown []string
	err := claimedWebhooks.query(ctx, s.reader, s.dialect, ids, func(rows *sql.Rows) error {
		var id, class, message string
		var version int64
		var success, failing sql.NullInt64
		var warned bool
		if err := rows.Scan(&id, &version, &success, &failing, &warned, &class, &message); err != nil {
			return err
		}
		known := s.opened.get(id, version)
		if known == nil {
			unknown = append(unknown, id)
			return nil
		}
		w := *known
		w.Health = webhook.Health{
			LastSuccessAt: nullTime(success), FailingSince: nullTime(failing), Warned: warned,
			LastError: webhook.Failure{Class: webhook.ErrorClass(class), Message: message},
		}
		webhooks[id] = &w
		return nil
	})
	if err != nil || len(unknown) == 0 {
		return webhooks, err
	}
	rows, err := s.reader.Webhook.Query().Where(entwebhook.IDIn(unknown...), entwebhook.Enabled(true)).All(ctx)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		w, err := s.openWebhook(row)
		if err != nil {
			s.log.Error("The deliveries of a webhook cannot be signed; they wait.", "webhook_id", row.ID, "error", err)
			continue
		}
		s.opened.put(&w)
		webhooks[row.ID] = &w
	}
	return webhooks, nil
}

// eventsOf returns the events of deliveries by their positions, as far as the log keeps
// them.
func (s *Store) eventsOf(ctx context.Context, rows []claimRow) (map[int64]*apikey.Event, error) {
	events := make(map[int64]*apikey.Event)
	missing := s.recent.take(rows, events)
	if len(missing) == 0 {
		return events, nil
	}
	err := s.readEvents(ctx, missing, events)
	for _, position := range missing {
		if e := events[position]; e != nil {
			s.recent.add(e)
		}
	}
	return events, err
}

// readEvents adds to events those of positions, as far as the log keeps them.
func (s *Store) readEvents(ctx context.Context, positions []int64, events map[int64]*apikey.Event) error {
	for chunk := range slices.Chunk(positions, eventChunk) {
		found, err := s.reader.Event.Query().Where(entevent.IDIn(chunk...)).All(ctx)
		if err != nil {
			return fmt.Errorf("read the deliveries' events: %w", err)
		}
		for _, row := range found {
			e := eventOf(row)
			events[row.ID] = &e
		}
	}
	return nil
}
