package store

import (
	"context"
	"database/sql"
	"strconv"
	"strings"

	"entgo.io/ent/dialect"
)

// A columnBulk is a bulk whose rows are given a column at a time. It is for what each
// flush writes of each key. On PostgreSQL a column is one argument, an array, so that a
// statement of any number of rows has the same text and few arguments: with one for each
// value, making and encoding those was most of what a flush cost this process.
type columnBulk struct {
	head  string   // before the rows
	types []string // of the columns, as PostgreSQL names them
	tail  string   // after the rows
}

// columnValues are the values of one column, in the order of the rows.
type columnValues interface {
	// len is how many rows there are, the same for all columns of a statement.
	len() int
	// value returns the i-th value.
	value(i int) any
	// array returns all values as the text of an array of PostgreSQL.
	array() string
}

type (
	texts   []string
	numbers []int64
)

var (
	_ columnValues = texts(nil)
	_ columnValues = numbers(nil)
)

func (c texts) len() int          { return len(c) }
func (c texts) value(i int) any   { return c[i] }
func (c numbers) len() int        { return len(c) }
func (c numbers) value(i int) any { return c[i] }

func (c texts) array() string {
	size := len("{}")
	for _, text := range c {
		size += len(text) + len(`"",`)
	}
	var array strings.Builder
	array.Grow(size)
	array.WriteByte('{')
	for i, text := range c {
		if i > 0 {
			array.WriteByte(',')
		}
		array.WriteByte('"')
		for {
			special := strings.IndexByte(text, '"')
			if backslash := strings.IndexByte(text, '\\'); special < 0 || backslash >= 0 && backslash < special {
				special = backslash
			}
			if special < 0 {
				break
			}
			array.WriteString(text[:special])
			array.WriteByte('\\')
			array.WriteByte(text[special])
			text = text[special+1:]
		}
		array.WriteString(text)
		array.WriteByte('"')
	}
	array.WriteByte('}')
	return array.String()
}

func (c numbers) array() string {
	array := make([]byte, 0, len("{}")+len(c)*len("1234567890123456,"))
	array = append(array, '{')
	for i, n := range c {
		if i > 0 {
			array = append(array, ',')
		}
		array = strconv.AppendInt(array, n, 10)
	}
	return string(append(array, '}'))
}

// run calls do with the text and the arguments of statements that have all rows among
// them, in order.
func (b columnBulk) run(database string, columns []columnValues, do func(text string, args []any) error) error {
	rows := columns[0].len()
	if database == dialect.Postgres {
		if rows == 0 {
			return nil
		}
		args := make([]any, len(columns))
		for i, c := range columns {
			args[i] = c.array()
		}
		return do(b.text(), args)
	}
	args := make([]any, 0, rows*len(columns))
	for i := range rows {
		for _, c := range columns {
			args = append(args, c.value(i))
		}
	}
	return bulk{head: b.head + "VALUES ", columns: len(columns), tail: b.tail}.run(database, args, do)
}

// text returns the statement for PostgreSQL.
func (b columnBulk) text() string {
	var text strings.Builder
	text.WriteString(b.head + "SELECT * FROM unnest(")
	for i, name := range b.types {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString("$" + strconv.Itoa(i+1) + "::" + name + "[]")
	}
	text.WriteString(")" + b.tail)
	return text.String()
}

// exec runs the bulk in a transaction.
func (b columnBulk) exec(ctx context.Context, q querier, dialect string, columns ...columnValues) error {
	return b.run(dialect, columns, func(text string, args []any) error {
		_, err := q.ExecContext(ctx, text, args...)
		return err
	})
}

// sum runs the bulk, each statement of which answers with one number, and returns their
// sum.
func (b columnBulk) sum(ctx context.Context, q querier, dialect string, columns ...columnValues) (total int, err error) {
	err = b.run(dialect, columns, func(text string, args []any) error {
		return queryRows(ctx, q, text, args, func(rows *sql.Rows) error {
			var n int
			err := rows.Scan(&n)
			total += n
			return err
		})
	})
	return total, err
}
