package store

import (
	"context"
	"fmt"

	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entattempt "github.com/apikeys-dev/apikeys/ent/deliveryattempt"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// deliveryRow is a delivery that was never attempted, and the position of its event.
type deliveryRow struct {
	*webhook.Delivery
	position int64
}

// insertNewDeliveries inserts deliveries that were never attempted; those that are there
// already stay as they are.
var insertNewDeliveries = bulk{
	head: "INSERT INTO " + entdelivery.Table + " (" +
		entdelivery.FieldID + ", " + entdelivery.FieldWebhookID + ", " + entdelivery.FieldOrganizationID + ", " +
		entdelivery.FieldEventPosition + ", " + entdelivery.FieldEventID + ", " + entdelivery.FieldEvent + ", " + entdelivery.FieldResourceID + ", " +
		entdelivery.FieldURL + ", " + entdelivery.FieldFormat + ", " + entdelivery.FieldState + ", " + entdelivery.FieldTrigger + ", " +
		entdelivery.FieldNextAttemptAt + ", " + entdelivery.FieldCreatedAt + ", " + entdelivery.FieldEndedAt + ", " + entdelivery.FieldDueAt + ") VALUES ",
	columns: 15,
	tail:    " ON CONFLICT DO NOTHING",
}

func (s *Store) insertDeliveries(ctx context.Context, q querier, rows []deliveryRow) error {
	args := make([]any, 0, len(rows)*insertNewDeliveries.columns)
	for _, d := range rows {
		args = append(args, d.ID, d.WebhookID, d.OrganizationID,
			d.position, d.EventID, string(d.Event), d.ResourceID,
			d.URL, string(d.Format), string(d.State), string(d.Trigger),
			micros(d.NextAttemptAt), d.CreatedAt.UnixMicro(), micros(d.EndedAt), s.due(d.NextAttemptAt))
	}
	if err := insertNewDeliveries.exec(ctx, q, s.dialect, args); err != nil {
		return fmt.Errorf("queue deliveries: %w", err)
	}
	return nil
}

// claimDeliveries takes deliveries under a lease until a time, as far as they are pending
// and due. It answers with their ids.
var claimDeliveries = bulk{
	head: "UPDATE " + entdelivery.Table + " SET " +
		entdelivery.FieldLease + " = v.column2, " + entdelivery.FieldDueAt + " = v.column3 FROM (VALUES ",
	columns: 4,
	types:   []string{"text", "text", "bigint", "bigint"},
	tail: ") AS v WHERE " + entdelivery.Table + "." + entdelivery.FieldID + " = v.column1 AND " +
		entdelivery.Table + "." + entdelivery.FieldDueAt + " <= v.column4 AND " +
		entdelivery.Table + "." + entdelivery.FieldState + " = '" + string(webhook.StatePending) + "' RETURNING " + entdelivery.FieldID,
}

// settleDeliveries makes deliveries what their attempts have left of them, as nobody's,
// as far as their leases are held and nobody has changed them since they were claimed.
// It answers with their ids.
var settleDeliveries = bulk{
	head: "UPDATE " + entdelivery.Table + " SET " +
		entdelivery.FieldState + " = v.column4, " + entdelivery.FieldTrigger + " = v.column5, " +
		entdelivery.FieldAttempts + " = v.column6, " + entdelivery.FieldFailures + " = v.column7, " +
		entdelivery.FieldResponseStatus + " = v.column8, " + entdelivery.FieldResponseBody + " = v.column9, " +
		entdelivery.FieldErrorClass + " = v.column10, " + entdelivery.FieldErrorMessage + " = v.column11, " +
		entdelivery.FieldNextAttemptAt + " = v.column12, " + entdelivery.FieldDueAt + " = v.column17, " + entdelivery.FieldDelay + " = v.column13, " +
		entdelivery.FieldUpdatedAt + " = v.column14, " + entdelivery.FieldFirstSentAt + " = v.column15, " +
		entdelivery.FieldEndedAt + " = v.column16, " + entdelivery.FieldLease + " = '' FROM (VALUES ",
	columns: 17,
	types: []string{
		"text", "text", "bigint", "text", "text", "bigint", "bigint", "bigint", "bytea", "text", "text",
		"bigint", "bigint", "bigint", "bigint", "bigint", "bigint",
	},
	tail: ") AS v WHERE " + entdelivery.Table + "." + entdelivery.FieldID + " = v.column1 AND " +
		entdelivery.Table + "." + entdelivery.FieldLease + " = v.column2 AND " +
		entdelivery.Table + "." + entdelivery.FieldUpdatedAt + " IS NOT DISTINCT FROM v.column3 RETURNING " + entdelivery.FieldID,
}

// settleArgs are the arguments of settleDeliveries for d, which a result has made of a
// delivery.
func (s *Store) settleArgs(args []any, d *webhook.Delivery, r *webhook.Result) []any {
	return append(args, d.ID, r.Lease, micros(r.Delivery.UpdatedAt),
		string(d.State), string(d.Trigger), d.Attempts, d.Failures,
		d.Last.Status, d.Last.Body, string(d.Last.Failure.Class), d.Last.Failure.Message,
		micros(d.NextAttemptAt), d.Delay.Microseconds(), micros(d.UpdatedAt), micros(d.FirstSentAt), micros(d.EndedAt), s.due(d.NextAttemptAt))
}

// insertAttempts logs attempts.
var insertAttempts = bulk{
	head: "INSERT INTO " + entattempt.Table + " (" +
		entattempt.FieldDeliveryID + ", " + entattempt.FieldNumber + ", " + entattempt.FieldTrigger + ", " + entattempt.FieldURL + ", " +
		entattempt.FieldStartedAt + ", " + entattempt.FieldDuration + ", " +
		entattempt.FieldResponseStatus + ", " + entattempt.FieldResponseBody + ", " +
		entattempt.FieldErrorClass + ", " + entattempt.FieldErrorMessage + ") VALUES ",
	columns: 10,
}

func attemptArgs(args []any, a *webhook.Attempt) []any {
	return append(args, a.DeliveryID, a.Number, string(a.Trigger), a.URL,
		a.StartedAt.UnixMicro(), a.Duration.Microseconds(), a.Status, a.Body,
		string(a.Failure.Class), a.Failure.Message)
}
