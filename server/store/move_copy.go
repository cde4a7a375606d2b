package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"

	"entgo.io/ent/dialect"
	"github.com/jackc/pgx/v5"
)

// The sizes of a copy, which bound what is in memory.
const (
	// copyBatch is how many rows are handed from the reader to the writer at once, and
	// copyAhead how many batches the reader may be ahead.
	copyBatch = 250
	copyAhead = 4
	// copyCommit is how many rows of SQLite are in one transaction.
	copyCommit = 50_000
	// maxVariables is how many values a statement of SQLite may have.
	maxVariables = 32_766
)

// copyTable copies the rows of one table, while one goroutine reads and one writes,
// and returns what they come to.
func (m *mover) copyTable(ctx context.Context, t moveTable) (tableSum, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches := make(chan [][]any, copyAhead)
	s := summer{table: t}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(batches)
		if err := m.readBatches(ctx, &s, batches); err != nil {
			cancel(fmt.Errorf("read: %w", err))
		}
	})
	write := m.writeSQLite
	if m.to.dialect == dialect.Postgres {
		write = m.writePostgres
	}
	err := write(ctx, t, &rowSource{mover: m, table: t, batches: batches, ctx: ctx})
	if err != nil {
		err = fmt.Errorf("write: %w", err)
		cancel(err)
	}
	reading.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return s.tableSum, cause // the first of the two
	}
	return s.tableSum, m.copySequence(ctx, t)
}

// readBatches reads the rows of the source and adds them up.
func (m *mover) readBatches(ctx context.Context, s *summer, batches chan<- [][]any) error {
	batch := make([][]any, 0, copyBatch)
	send := func() error {
		select {
		case batches <- batch:
			batch = make([][]any, 0, copyBatch)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := s.table.read(ctx, m.source, func(row []any) error {
		if err := s.add(row); err != nil {
			return err
		}
		batch = append(batch, append([]any(nil), row...))
		if len(batch) < copyBatch {
			return nil
		}
		return send()
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return send()
}

// copySequence lets the target number rows from where the source was.
func (m *mover) copySequence(ctx context.Context, t moveTable) error {
	if t.counted() == "" {
		return nil
	}
	last, err := t.sequence(ctx, m.source, m.from.dialect)
	if err != nil {
		return fmt.Errorf("read its sequence: %w", err)
	}
	return inTx(ctx, m.to.writerDB, func(dbtx *sql.Tx) error {
		return t.setSequence(ctx, dbtx, m.to.dialect, last)
	})
}

// rowSource gives the rows of a table one after the other, as COPY takes them.
type rowSource struct {
	mover   *mover
	table   moveTable
	batches <-chan [][]any
	ctx     context.Context //nolint:containedctx // The interface of COPY has none.

	batch [][]any
	row   int
	err   error
}

var _ pgx.CopyFromSource = (*rowSource)(nil)

// Next moves to the next row, and reports whether there is one.
func (r *rowSource) Next() bool {
	if r.row++; r.row < len(r.batch) {
		return true
	}
	if len(r.batch) > 0 {
		r.mover.done(r.table, int64(len(r.batch)))
	}
	r.batch, r.row = <-r.batches, 0
	if len(r.batch) == 0 {
		r.err = context.Cause(r.ctx) // The reader has failed, or is at its end.
	}
	return len(r.batch) > 0
}

// Values returns the row.
func (r *rowSource) Values() ([]any, error) { return r.batch[r.row], nil }

// Err returns why there are no more rows, nil at their end.
func (r *rowSource) Err() error { return r.err }

// writePostgres copies rows into a table by COPY, in one transaction.
func (m *mover) writePostgres(ctx context.Context, t moveTable, rows *rowSource) error {
	conn, err := m.to.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) // What it has not committed is gone with it.
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{t.Name}, names, rows)
	return err
}

// writeSQLite inserts rows into a table, many in each statement and many statements in
// each transaction.
func (m *mover) writeSQLite(ctx context.Context, t moveTable, rows *rowSource) error {
	perStatement := min(copyBatch, maxVariables/len(t.Columns))
	for more := rows.Next(); more; {
		err := inTx(ctx, m.to.writerDB, func(dbtx *sql.Tx) error {
			insert, err := dbtx.PrepareContext(ctx, insertText(t, perStatement))
			if err != nil {
				return err
			}
			defer insert.Close()
			values := make([]any, 0, perStatement*len(t.Columns))
			for n := 0; more && n < copyCommit; n += perStatement {
				for values = values[:0]; more && len(values) < cap(values); more = rows.Next() {
					row, _ := rows.Values()
					values = append(values, row...)
				}
				if len(values) == cap(values) {
					_, err = insert.ExecContext(ctx, values...)
				} else {
					_, err = dbtx.ExecContext(ctx, insertText(t, len(values)/len(t.Columns)), values...)
				}
				if err != nil {
					return err
				}
			}
			return rows.Err()
		})
		if err != nil {
			return err
		}
	}
	return rows.Err()
}

// insertText returns the statement that inserts n rows.
func insertText(t moveTable, n int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?, ", len(t.Columns)), ", ") + ")"
	return "INSERT INTO " + quoted(t.Name) + " (" + t.columns() + ") VALUES " + strings.TrimSuffix(strings.Repeat(row+", ", n), ", ")
}
