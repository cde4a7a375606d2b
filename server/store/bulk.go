package store

import (
	"context"
	"database/sql"
	"strconv"
	"strings"

	"entgo.io/ent/dialect"
)

// A bulk is a statement over many rows of arguments. It is for the flush of
// counters, which writes thousands of rows a second: building a statement of that
// size with ent's builders took longer than running it.
type bulk struct {
	head    string // before the rows
	columns int    // of a row
	tail    string // after the rows
	// types are those of the columns for PostgreSQL, which cannot tell them where the
	// rows are not those of a table.
	types []string
}

// bulkSizes are how many rows one statement has, the most first: few sizes, so
// that their texts repeat and the driver finds them prepared.
var bulkSizes = [...]int{400, 100, 25, 5, 1}

// run calls do with the text and the arguments of statements that have all rows
// of args among them, in order.
func (b bulk) run(dialect string, args []any, do func(text string, args []any) error) error {
	for _, rows := range bulkSizes {
		for size := rows * b.columns; len(args) >= size; args = args[size:] {
			if err := do(b.text(dialect, rows), args[:size]); err != nil {
				return err
			}
		}
	}
	return nil
}

// text returns the statement for so many rows.
func (b bulk) text(database string, rows int) string {
	var text strings.Builder
	text.WriteString(b.head)
	for i := range rows {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteByte('(')
		for j := range b.columns {
			if j > 0 {
				text.WriteByte(',')
			}
			if database == dialect.Postgres {
				text.WriteByte('$')
				text.WriteString(strconv.Itoa(i*b.columns + j + 1))
				if i == 0 && b.types != nil {
					text.WriteString("::" + b.types[j])
				}
			} else {
				text.WriteByte('?')
			}
		}
		text.WriteByte(')')
	}
	text.WriteString(b.tail)
	return text.String()
}

// querier is what a transaction of ent has for statements of our own.
type querier interface {
	ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
}

// exec runs the bulk in a transaction.
func (b bulk) exec(ctx context.Context, q querier, dialect string, args []any) error {
	return b.run(dialect, args, func(text string, args []any) error {
		_, err := q.ExecContext(ctx, text, args...)
		return err
	})
}

// texts runs the bulk, each statement of which answers with texts, and returns them
// all.
func (b bulk) texts(ctx context.Context, q querier, dialect string, args []any) (map[string]bool, error) {
	texts := make(map[string]bool)
	err := b.query(ctx, q, dialect, args, func(rows *sql.Rows) error {
		var text string
		err := rows.Scan(&text)
		texts[text] = true
		return err
	})
	return texts, err
}

// query runs the bulk and calls do for each row that it answers with.
func (b bulk) query(ctx context.Context, q querier, dialect string, args []any, do func(*sql.Rows) error) error {
	return b.run(dialect, args, func(text string, args []any) error {
		return queryRows(ctx, q, text, args, do)
	})
}

// queryRows runs a query and calls do for each row that it answers with.
func queryRows(ctx context.Context, q querier, text string, args []any, do func(*sql.Rows) error) error {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
