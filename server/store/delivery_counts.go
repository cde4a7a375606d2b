package store

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entcount "github.com/apikeys-dev/apikeys/ent/deliverycount"
	entdelay "github.com/apikeys-dev/apikeys/ent/deliverydelay"
	entfailure "github.com/apikeys-dev/apikeys/ent/deliveryfailure"
	entsetting "github.com/apikeys-dev/apikeys/ent/setting"
	entwebhook "github.com/apikeys-dev/apikeys/ent/webhook"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// What deliveries come to is counted in rows by the hour of their event, so that figures
// of a time cost the same however many deliveries there are, and outlive these:
//
//   - delivery_counts, by type of event: how many were made, are in each state, were
//     attempted, and the sum of their delays.
//   - delivery_delays: how many were acknowledged after how long, to two digits.
//   - delivery_failures, by url: attempts that failed, and deliveries that were given up
//     there. After 100 urls of an hour all others share a row without a url.
//
// Triggers of the database keep the rows, in the transaction that changes a delivery:
// whoever changes one counts it, a server of an earlier version too. Only that deliveries
// are deleted is not counted.
//
// On PostgreSQL transactions that change deliveries go on beside each other. Each counts
// in the rows of a slot of its own, the lowest that is free, so that none waits for
// another, or would deadlock with it. Who reads adds the slots up.

// countsFromSetting is the setting that says from which time on, in microseconds, the
// counts are whole. Only a database has it that had deliveries before they were counted.
const countsFromSetting = "delivery_counts_from"

// DeliveryCounts returns what the deliveries of the events of an organization came to in
// the whole hours from since to until: the counts by hour and type, ascending, the delays,
// ascending, and of the urls that failed up to most, those first that did most often.
// There is one such read at a time, as with [Store.MostUsed].
func (s *Store) DeliveryCounts(ctx context.Context, organization string, since, until time.Time, most int) (c webhook.DeliveryCounts, err error) {
	const doing = "delivery counts"
	select {
	case s.summing <- struct{}{}:
		defer func() { <-s.summing }()
	case <-ctx.Done():
		return c, errList(doing, ctx.Err())
	}
	span := []any{organization, since.UnixMicro(), until.UnixMicro()}
	err = queryRows(ctx, s.reader, hoursOfDeliveries, span, func(rows *sql.Rows) error {
		var h webhook.HourOfDeliveries
		var start, delay int64
		var event string
		err := rows.Scan(&start, &event, &h.Made, &h.Delivered, &h.Failed, &h.Cancelled, &h.Attempted, &h.Retried, &delay)
		h.Start, h.Event, h.Delay = time.UnixMicro(start).UTC(), apikey.EventType(event), duration(delay)
		c.Hours = append(c.Hours, h)
		return err
	})
	if err != nil {
		return c, errList(doing, err)
	}
	err = queryRows(ctx, s.reader, delaysOfDeliveries, span, func(rows *sql.Rows) error {
		var d webhook.DelayCount
		var least int64
		err := rows.Scan(&least, &d.Count)
		d.Least = duration(least)
		c.Delays = append(c.Delays, d)
		return err
	})
	if err != nil {
		return c, errList(doing, err)
	}
	err = queryRows(ctx, s.reader, failuresOfDeliveries, append(span, most), func(rows *sql.Rows) error {
		var u webhook.URLFailures
		err := rows.Scan(&u.URL, &u.Attempts, &u.Deliveries)
		c.URLs = append(c.URLs, u)
		return err
	})
	if err != nil {
		return c, errList(doing, err)
	}
	return c, nil
}

// What is summed is a number of the type that is scanned on both databases; PostgreSQL
// would return a sum as a numeric.
func summed(column string) string { return "CAST(SUM(" + column + ") AS bigint)" }

const inSpan = " WHERE organization_id = $1 AND start >= $2 AND start < $3"

var (
	hoursOfDeliveries = "SELECT " + entcount.FieldStart + ", " + entcount.FieldEvent + ", " + summed(entcount.FieldMade) + ", " +
		summed(entcount.FieldDelivered) + ", " + summed(entcount.FieldFailed) + ", " + summed(entcount.FieldCancelled) + ", " +
		summed(entcount.FieldAttempted) + ", " + summed(entcount.FieldRetried) + ", " + summed(entcount.FieldDelay) +
		" FROM " + entcount.Table + inSpan + " GROUP BY " + entcount.FieldStart + ", " + entcount.FieldEvent +
		" ORDER BY " + entcount.FieldStart + ", " + entcount.FieldEvent
	delaysOfDeliveries = "SELECT " + entdelay.FieldLeast + ", " + summed(entdelay.FieldCount) + " FROM " + entdelay.Table + inSpan +
		" GROUP BY " + entdelay.FieldLeast + " HAVING SUM(" + entdelay.FieldCount + ") > 0 ORDER BY " + entdelay.FieldLeast
	failuresOfDeliveries = "SELECT " + entfailure.FieldURL + ", " + summed(entfailure.FieldAttempts) + ", " + summed(entfailure.FieldDeliveries) +
		" FROM " + entfailure.Table + inSpan + " AND " + entfailure.FieldURL + " <> '' GROUP BY " + entfailure.FieldURL +
		" HAVING SUM(" + entfailure.FieldAttempts + ") > 0 ORDER BY 2 DESC, 1 LIMIT $4"
)

// DeliveryCountsFrom returns from which time on the counts of deliveries are whole, as far
// as nothing was deleted of them. The zero time means that they always were.
func (s *Store) DeliveryCountsFrom(ctx context.Context) (time.Time, error) {
	const doing = "read since when deliveries are counted"
	row, err := s.reader.Setting.Query().Where(entsetting.ID(countsFromSetting)).Only(ctx)
	if ent.IsNotFound(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", doing, err)
	}
	at, err := strconv.ParseInt(row.Value, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", doing, err)
	}
	return time.UnixMicro(at).UTC(), nil
}

// DeleteDeliveryCountsBefore deletes up to limit rows of counts of hours that ended before
// the time given, and returns how many.
func (s *Store) DeleteDeliveryCountsBefore(ctx context.Context, before time.Time, limit int) (deleted int, err error) {
	const doing = "delete old counts of deliveries"
	for _, table := range []string{entcount.Table, entdelay.Table, entfailure.Table} {
		old := "IN (SELECT id FROM " + table + " WHERE start < $1 ORDER BY start LIMIT $2)"
		if s.dialect == dialect.Postgres {
			// A row that is just counted in has not to be waited for: there is a next time. And an
			// array is looked up by the index, however large PostgreSQL expects the table to be.
			old = "= ANY (ARRAY(SELECT id FROM " + table + " WHERE start < $1 ORDER BY start LIMIT $2 FOR UPDATE SKIP LOCKED))"
		}
		err := s.transact(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
			result, err := etx.ExecContext(ctx, "DELETE FROM "+table+" WHERE id "+old, before.Add(-time.Hour).UnixMicro(), limit-deleted)
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			deleted += int(n)
			return err
		})
		if err != nil || deleted == limit {
			return deleted, err
		}
	}
	return deleted, nil
}

// NewestDeliveries returns up to limit deliveries of the events of an organization in a
// span of time, newest first.
func (s *Store) NewestDeliveries(ctx context.Context, organization string, since, until time.Time, limit int) ([]DeliveryOf, error) {
	rows, err := s.reader.Delivery.Query().
		Where(entdelivery.OrganizationID(organization),
			entdelivery.IDGTE(firstID(webhook.DeliveryIDPrefix, since)), entdelivery.IDLT(firstID(webhook.DeliveryIDPrefix, until))).
		Order(entdelivery.ByID(entsql.OrderDesc())).Limit(limit).All(ctx)
	if err != nil {
		return nil, errList("deliveries", err)
	}
	list, err := s.withEvents(ctx, rows)
	if err != nil {
		return nil, errList("deliveries", err)
	}
	return list, nil
}

// WebhookCounts returns how many webhooks an organization has, how many of them are
// enabled, and how many of these fail.
func (s *Store) WebhookCounts(ctx context.Context, organization string) (total, enabled, failing int, err error) {
	rows, err := s.reader.Webhook.Query().Where(entwebhook.OrganizationID(organization)).
		Select(entwebhook.FieldEnabled, entwebhook.FieldFailingSince).All(ctx)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("count webhooks: %w", err)
	}
	for _, row := range rows {
		if row.Enabled {
			enabled++
			if row.FailingSince != nil {
				failing++
			}
		}
	}
	return len(rows), enabled, failing, nil
}
