package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// defers reports whether a statement may travel with the one after it. It changes
// nothing by itself, and cannot fail inside a transaction that is whole.
func defers(query string) bool { return query == savepointStatement || query == releaseStatement }

// ExecContext executes a statement, with those that were deferred before it. A statement
// that defers is answered at once.
func (c *postgresConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	switch {
	case defers(query) && len(args) == 0:
		c.deferred = append(c.deferred, query)
		return driver.ResultNoRows, nil
	case len(c.deferred) == 0:
		result, err := c.Conn.ExecContext(ctx, query, args)
		c.note(err)
		return result, err
	}
	sent, err := c.send(ctx, query, args)
	if err != nil {
		return nil, err
	}
	tag, err := sent.Exec()
	if err = errors.Join(err, sent.Close()); err != nil {
		c.note(err)
		return nil, err
	}
	return driver.RowsAffected(tag.RowsAffected()), nil
}

// queryDeferred is QueryContext behind statements that were deferred.
func (c *postgresConn) queryDeferred(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	sent, err := c.send(ctx, query, args)
	if err != nil {
		return nil, err
	}
	rows, err := sent.Query()
	if err != nil {
		err = errors.Join(err, sent.Close())
		c.note(err)
		return nil, err
	}
	// The columns are known once there is a row, or none.
	r := &pipelineRows{rows: rows, sent: sent, types: c.Conn.Conn().TypeMap()}
	if r.more = rows.Next(); !r.more && rows.Err() != nil {
		err := errors.Join(rows.Err(), r.Close())
		c.note(err)
		return nil, err
	}
	return r, nil
}

// send sends a statement behind those that were deferred, in one round trip, and takes the
// answers of these. Where nothing of it has reached PostgreSQL, they stay deferred.
func (c *postgresConn) send(ctx context.Context, query string, args []driver.NamedValue) (pgx.BatchResults, error) {
	deferred := c.deferred
	var batch pgx.Batch
	for _, statement := range deferred {
		batch.Queue(statement)
	}
	values := make([]any, len(args))
	for i := range args {
		values[i] = args[i].Value
	}
	batch.Queue(query, values...)
	sent := c.Conn.Conn().SendBatch(ctx, &batch)
	for i, statement := range deferred {
		if _, err := sent.Exec(); err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", strings.ToLower(statement), err), sent.Close())
			c.note(err)
			return nil, err
		}
		c.deferred = slices.Clone(deferred[i+1:])
	}
	c.deferred = nil
	return sent, nil
}

// pipelineRows are the rows of a statement that was sent behind others.
type pipelineRows struct {
	rows  pgx.Rows
	sent  pgx.BatchResults
	types *pgtype.Map
	more  bool // the next row has been read already
}

var _ driver.Rows = (*pipelineRows)(nil)

// Columns returns the names of the columns.
func (r *pipelineRows) Columns() []string {
	fields := r.rows.FieldDescriptions()
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].Name
	}
	return names
}

// Close ends the rows.
func (r *pipelineRows) Close() error {
	r.rows.Close()
	return errors.Join(r.rows.Err(), r.sent.Close())
}

// Next reads a row.
func (r *pipelineRows) Next(dest []driver.Value) error {
	if !r.more && !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	r.more = false
	fields := r.rows.FieldDescriptions()
	for i, raw := range r.rows.RawValues() {
		var err error
		if dest[i], err = r.value(fields[i].DataTypeOID, fields[i].Format, raw); err != nil {
			return fmt.Errorf("column %s: %w", fields[i].Name, err)
		}
	}
	return nil
}

// value returns a value of a column as package sql takes it.
func (r *pipelineRows) value(oid uint32, format int16, raw []byte) (driver.Value, error) {
	if raw == nil {
		return nil, nil //nolint:nilnil // That is NULL.
	}
	switch oid {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		return scanValue[int64](r.types, oid, format, raw)
	case pgtype.BoolOID:
		return scanValue[bool](r.types, oid, format, raw)
	case pgtype.Float4OID, pgtype.Float8OID:
		return scanValue[float64](r.types, oid, format, raw)
	case pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.DateOID:
		return scanValue[time.Time](r.types, oid, format, raw)
	case pgtype.ByteaOID, pgtype.JSONOID, pgtype.JSONBOID:
		return scanValue[[]byte](r.types, oid, format, raw)
	default:
		return scanValue[string](r.types, oid, format, raw)
	}
}

// scanValue returns a value as a T.
func scanValue[T any](types *pgtype.Map, oid uint32, format int16, raw []byte) (driver.Value, error) {
	var value T
	if err := types.Scan(oid, format, raw, &value); err != nil {
		return nil, err
	}
	return value, nil
}
