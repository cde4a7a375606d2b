package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"entgo.io/ent/dialect"

	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entwebhook "github.com/apikeys-dev/apikeys/ent/webhook"
)

// Due returns for each enabled webhook with pending deliveries when the first of
// them may be taken. It looks one row up for each webhook that has any, however many
// wait.
func (s *Store) Due(ctx context.Context) (map[string]time.Time, error) {
	const doing = "read what is due"
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	text := dueByWebhook
	if s.dialect == dialect.Postgres {
		text = dueByWebhookPostgres
		if err := s.measureClock(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
	}
	due := make(map[string]time.Time)
	err := queryRows(ctx, s.reader, text, nil, func(rows *sql.Rows) error {
		var id string
		var first sql.NullInt64
		err := rows.Scan(&id, &first)
		if first.Valid {
			due[id] = s.fromDue(first.Int64)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return due, nil
}

// dueByWebhook looks one row up for each webhook, and dueByWebhookPostgres one for each
// that has something pending, which servers that share a database ask for every second.
var (
	dueByWebhook = "SELECT w." + entwebhook.FieldID + ", (SELECT MIN(d." + entdelivery.FieldDueAt + ") FROM " + entdelivery.Table + " AS d WHERE d." +
		entdelivery.FieldWebhookID + " = w." + entwebhook.FieldID + " AND d." + entdelivery.FieldDueAt + " IS NOT NULL) FROM " +
		entwebhook.Table + " AS w WHERE w." + entwebhook.FieldEnabled
	dueByWebhookPostgres = strings.NewReplacer("$first", "SELECT "+entdelivery.FieldWebhookID+" AS id, "+entdelivery.FieldDueAt+" AS due FROM "+entdelivery.Table+
		" WHERE "+entdelivery.FieldDueAt+" IS NOT NULL", "$order", "ORDER BY "+entdelivery.FieldWebhookID+", "+entdelivery.FieldDueAt+" LIMIT 1").
		Replace("WITH RECURSIVE pending AS (($first $order) UNION ALL SELECT following.id, following.due FROM pending CROSS JOIN LATERAL (" +
			"$first AND " + entdelivery.FieldWebhookID + " > pending.id $order) AS following) " +
			"SELECT w." + entwebhook.FieldID + ", pending.due FROM pending JOIN " + entwebhook.Table + " AS w ON w." + entwebhook.FieldID + " = pending.id AND w." + entwebhook.FieldEnabled)
)
