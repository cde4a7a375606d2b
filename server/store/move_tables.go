package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql/schema"
	"entgo.io/ent/schema/field"

	entmigrate "github.com/apikeys-dev/apikeys/ent/migrate"
)

// moves says of each table of the schema what a move does with it: its rows are moved,
// or left for a reason. A test holds it against the schema, so that a table which is
// added cannot be forgotten.
var moves = map[string]move{
	"access_tokens":          moved,
	"access_token_uses":      moved,
	"api_keys":               moved,
	"api_key_quotas":         moved,
	"api_key_rate_limits":    moved,
	"api_key_usage":          moved,
	"api_key_refusals":       moved,
	"api_key_refusal_totals": moved,
	"deliveries":             moved,
	"delivery_attempts":      moved,
	"delivery_counts":        {triggered: true},
	"delivery_delays":        {triggered: true},
	"delivery_failures":      {triggered: true},
	"events":                 moved,
	"fan_out_positions":      moved,
	"leases":                 {left: "they say which server does what now, and none does while a database is moved"},
	"idempotency_records":    moved,
	"idempotency_usage":      moved,
	"operator_tokens":        moved,
	"revisions":              moved,
	// The database's identity goes along, so that cursors which clients hold stay valid.
	"settings":      {where: "id <> '" + markSetting + "'"},
	"usage_buckets": moved,
	"usage_units":   moved,
	"webhooks":      moved,
	"webhook_terms": moved,
}

// move is what becomes of the rows of one table.
type move struct {
	left  string // why the rows are left; empty where they are moved
	where string // which rows are moved; all, where it is empty
	// triggered says that triggers of the target have counted the rows of tables before it.
	// Those counts are deleted first: the source has counted rows that are gone, too.
	triggered bool
}

var moved = move{}

// moveTable is a table whose rows are moved.
type moveTable struct {
	*schema.Table
	where     string
	triggered bool
}

// moveTables returns the tables whose rows are moved, and the names of all.
func moveTables() (tables []moveTable, all []string) {
	for _, t := range entmigrate.Tables {
		all = append(all, t.Name)
		if m, ok := moves[t.Name]; ok && m.left == "" {
			tables = append(tables, moveTable{t, m.where, m.triggered})
		}
	}
	return tables, all
}

// columns returns the names of the columns, quoted for both dialects.
func (t moveTable) columns() string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = quoted(c.Name)
	}
	return strings.Join(names, ", ")
}

// quoted returns a name as both dialects take it.
func quoted(name string) string { return `"` + name + `"` }

// counted returns the column that the database numbers, or "" where there is none.
func (t moveTable) counted() string {
	for _, c := range t.Columns {
		if c.Increment {
			return c.Name
		}
	}
	return ""
}

// from returns the end of a statement that reads the rows to be moved.
func (t moveTable) from() string {
	text := " FROM " + quoted(t.Name)
	if t.where != "" {
		text += " WHERE " + t.where
	}
	return text
}

// count returns how many rows are to be moved.
func (t moveTable) count(ctx context.Context, tx *sql.Tx) (n int64, err error) {
	err = tx.QueryRowContext(ctx, "SELECT count(*)"+t.from()).Scan(&n)
	return n, err
}

// read calls each with every row, by the order of the primary key. A row is good until
// each returns; its values are nil, int64, float64, bool, string and []byte.
func (t moveTable) read(ctx context.Context, tx *sql.Tx, each func(row []any) error) error {
	rows, err := tx.QueryContext(ctx, "SELECT "+t.columns()+t.from()+" ORDER BY "+quoted(t.PrimaryKey[0].Name)) //nolint:gosec // The names are the schema's.
	if err != nil {
		return err
	}
	defer rows.Close()
	scans := make([]any, len(t.Columns))
	for i, c := range t.Columns {
		if scans[i], err = scanOf(c.Type); err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	row := make([]any, len(scans))
	for rows.Next() {
		if err := rows.Scan(scans...); err != nil {
			return err
		}
		for i, scan := range scans {
			row[i] = scanned(scan)
		}
		if err := each(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

// scanOf returns what a column of a type is scanned into.
func scanOf(t field.Type) (any, error) {
	switch {
	case t.Integer():
		return new(sql.NullInt64), nil
	case t.Float():
		return new(sql.NullFloat64), nil
	}
	switch t {
	case field.TypeBool:
		return new(sql.NullBool), nil
	case field.TypeString, field.TypeEnum:
		return new(sql.NullString), nil
	case field.TypeBytes, field.TypeJSON:
		return new([]byte), nil
	default:
	}
	return nil, fmt.Errorf("a move does not know the type %s", t)
}

// scanned returns the value that was scanned, nil for NULL.
func scanned(scan any) any {
	switch s := scan.(type) {
	case *sql.NullInt64:
		if s.Valid {
			return s.Int64
		}
	case *sql.NullFloat64:
		if s.Valid {
			return s.Float64
		}
	case *sql.NullBool:
		if s.Valid {
			return s.Bool
		}
	case *sql.NullString:
		if s.Valid {
			return s.String
		}
	case *[]byte:
		if *s != nil {
			return *s
		}
	}
	return nil
}

// tableSum is what the rows of a table come to: it is the same for the same rows in
// another order, and on both dialects.
type tableSum struct {
	rows int64
	sum  [4]uint64
}

// summer adds rows up.
type summer struct {
	table   moveTable
	scratch []byte
	tableSum
}

// add adds one row.
func (s *summer) add(row []any) error {
	s.scratch = s.scratch[:0]
	for i, value := range row {
		if raw, ok := value.([]byte); ok && s.table.Columns[i].Type == field.TypeJSON {
			text, err := canonicalJSON(raw)
			if err != nil {
				return fmt.Errorf("column %s: %w", s.table.Columns[i].Name, err)
			}
			value = text
		}
		s.scratch = appendValue(s.scratch, value)
	}
	hash := sha256.Sum256(s.scratch)
	for i := range s.sum {
		s.sum[i] += binary.BigEndian.Uint64(hash[8*i:])
	}
	s.rows++
	return nil
}

// appendValue appends a value so that no other values give the same bytes.
func appendValue(b []byte, value any) []byte {
	var text string
	switch v := value.(type) {
	case nil:
		return append(b, 0)
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 1), uint64(v))
	case bool:
		return strconv.AppendBool(append(b, 2), v)
	case float64:
		return strconv.AppendFloat(append(b, 3), v, 'g', -1, 64)
	case string:
		b, text = append(b, 4), v
	case []byte:
		b, text = append(b, 5), string(v)
	}
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

// canonicalJSON returns a JSON value in the one form that both dialects give back:
// PostgreSQL keeps neither spaces nor the order of names.
func canonicalJSON(raw []byte) ([]byte, error) {
	switch string(raw) {
	case "null", "[]", "{}":
		return raw, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// sequence returns the last number that a database gave to a row of the table.
func (t moveTable) sequence(ctx context.Context, tx *sql.Tx, dialectName string) (last int64, err error) {
	column := t.counted()
	if dialectName == dialect.SQLite {
		err = tx.QueryRowContext(ctx, "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?), 0)", t.Name).Scan(&last)
		return last, err
	}
	var name string
	if err := tx.QueryRowContext(ctx, "SELECT pg_get_serial_sequence($1, $2)", t.Name, column).Scan(&name); err != nil {
		return 0, err
	}
	// The name comes quoted as a statement needs it.
	err = tx.QueryRowContext(ctx, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM "+name).Scan(&last)
	return last, err
}

// setSequence makes a database go on after last.
func (t moveTable) setSequence(ctx context.Context, tx *sql.Tx, dialectName string, last int64) error {
	if dialectName == dialect.SQLite {
		if _, err := tx.ExecContext(ctx, "DELETE FROM sqlite_sequence WHERE name = ?", t.Name); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", t.Name, last)
		return err
	}
	_, err := tx.ExecContext(ctx, "SELECT setval(pg_get_serial_sequence($1, $2), greatest($3::bigint, 1), $3::bigint > 0)", t.Name, t.counted(), last)
	return err
}
