package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
)

// postgresConnector opens connections that tell package sql when they are lost.
type postgresConnector struct {
	driver.Connector
	inTransaction string // a statement that begins each transaction; "" for none
}

var _ driver.Connector = postgresConnector{}

// Connect opens a connection.
func (c postgresConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	known, ok := conn.(*stdlib.Conn)
	if !ok {
		return nil, fmt.Errorf("a connection of %T", conn)
	}
	return &postgresConn{Conn: known, inTransaction: c.inTransaction}, nil
}

// postgresConn is a connection. After a restart of PostgreSQL every connection of
// a pool is lost, which the first statement of each finds out. Where that statement
// is a read outside a transaction, or begins one, nothing is lost by running it over
// another connection, which package sql does for driver.ErrBadConn.
//
// A connection to a database that has become read-only is given up too: where the URL
// names several hosts, the next one leads to the new primary.
type postgresConn struct {
	*stdlib.Conn
	inTransaction string
	readOnly      bool
	// deferred are statements of the transaction that travel with the next one: see defers.
	deferred []string
}

var (
	_ driver.ConnBeginTx    = (*postgresConn)(nil)
	_ driver.QueryerContext = (*postgresConn)(nil)
	_ driver.ExecerContext  = (*postgresConn)(nil)
	_ driver.Validator      = (*postgresConn)(nil)
)

// IsValid reports whether the connection may be used again.
func (c *postgresConn) IsValid() bool { return !c.readOnly }

// note looks at what a statement was answered with.
func (c *postgresConn) note(err error) {
	if err != nil && postgresCode(err) == "25006" {
		c.readOnly = true
	}
}

// BeginTx begins a transaction.
func (c *postgresConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	dbtx, err := c.Conn.BeginTx(ctx, options)
	if err == nil && c.inTransaction != "" {
		if _, err = c.Conn.Conn().Exec(ctx, c.inTransaction); err != nil {
			_ = dbtx.Rollback() // It has nothing yet.
		}
	}
	switch {
	case c.lost(ctx, err):
		return nil, driver.ErrBadConn
	case err != nil:
		return nil, err
	}
	return &postgresTx{Tx: dbtx, conn: c}, nil
}

// postgresTx is a transaction.
type postgresTx struct {
	driver.Tx
	conn *postgresConn
}

// Commit commits the transaction; what was deferred ends with it.
func (t *postgresTx) Commit() error {
	t.conn.deferred = nil
	return t.Tx.Commit()
}

// Rollback rolls the transaction back, and what was deferred with it.
func (t *postgresTx) Rollback() error {
	t.conn.deferred = nil
	return t.Tx.Rollback()
}

// QueryContext begins a query.
func (c *postgresConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if len(c.deferred) > 0 {
		return c.queryDeferred(ctx, query, args)
	}
	const idle = 'I'
	alone := c.Conn.Conn().PgConn().TxStatus() == idle && strings.HasPrefix(query, "SELECT")
	rows, err := c.Conn.QueryContext(ctx, query, args)
	c.note(err)
	if alone && c.lost(ctx, err) {
		return nil, driver.ErrBadConn
	}
	return rows, err
}

// lost reports whether err says that the connection, and not the statement, has
// failed, while ctx goes on.
func (c *postgresConn) lost(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil {
		return false
	}
	code := postgresCode(err)
	return strings.HasPrefix(code, "57P") || strings.HasPrefix(code, "08") || code == "" && c.Conn.Conn().IsClosed()
}
