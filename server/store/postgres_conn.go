package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
)

// postgresConnector opens connections that tell package sql when they are lost.
type postgresConnector struct{ driver.Connector }

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
	return &postgresConn{known}, nil
}

// postgresConn is a connection. After a restart of PostgreSQL every connection of
// a pool is lost, which the first statement of each finds out. Where that statement
// is a read outside a transaction, or begins one, nothing is lost by running it over
// another connection, which package sql does for driver.ErrBadConn.
type postgresConn struct{ *stdlib.Conn }

var (
	_ driver.ConnBeginTx    = (*postgresConn)(nil)
	_ driver.QueryerContext = (*postgresConn)(nil)
)

// BeginTx begins a transaction.
func (c *postgresConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	dbtx, err := c.Conn.BeginTx(ctx, options)
	if c.lost(ctx, err) {
		return nil, driver.ErrBadConn
	}
	return dbtx, err
}

// QueryContext begins a query.
func (c *postgresConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	const idle = 'I'
	alone := c.Conn.Conn().PgConn().TxStatus() == idle && strings.HasPrefix(query, "SELECT")
	rows, err := c.Conn.QueryContext(ctx, query, args)
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
