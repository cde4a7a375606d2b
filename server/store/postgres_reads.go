package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5/pgconn"
)

// Unavailable reports whether err is of a database that did not answer, or could not
// just then: what was asked may be asked again.
func Unavailable(err error) bool {
	if err == nil {
		return false
	}
	if code := postgresCode(err); code != "" {
		switch {
		case temporary(err):
			return true
		case strings.HasPrefix(code, "40"): // The transaction met another one.
			return true
		}
		// A statement or a lock took too long; a primary that has become a standby.
		return code == "57014" || code == "55P03" || code == "25006"
	}
	if errors.Is(err, errNoAnswer) || temporary(err) {
		return true
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return false // The deadline is the caller's.
	}
	_, network := errors.AsType[net.Error](err)
	return network || pgconn.SafeToRetry(err) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// errNoAnswer says that the database has not answered a read in time.
var errNoAnswer = fmt.Errorf("the database has not answered within %v", statementsTimeout)

// boundedReads is a driver whose reads end after statementsTimeout, the wait for a
// connection included. The network may take a query and never answer, and a caller
// without a deadline would wait for ever.
type boundedReads struct{ *entsql.Driver }

// boundReads returns d with reads that are bounded where the database is behind a
// network.
func boundReads(d *entsql.Driver) dialect.Driver {
	if d.Dialect() == dialect.SQLite {
		return d
	}
	return boundedReads{d}
}

// Query reads rows. Their bound ends when they are closed.
func (d boundedReads) Query(ctx context.Context, query string, args, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, statementsTimeout, errNoAnswer)
	rows, ok := into.(*entsql.Rows)
	err := d.Driver.Query(ctx, query, args, into)
	if err != nil || !ok {
		defer cancel()
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			return fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		return err
	}
	rows.ColumnScanner = &boundedRows{rows.ColumnScanner, ctx, cancel}
	return nil
}

// boundedRows are rows that a time was set for.
type boundedRows struct {
	entsql.ColumnScanner
	ctx    context.Context // of the read of these rows alone
	cancel context.CancelFunc
}

// Err returns why the rows have ended.
func (r *boundedRows) Err() error {
	err := r.ColumnScanner.Err()
	if err != nil && errors.Is(context.Cause(r.ctx), errNoAnswer) {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return err
}

// Close closes the rows.
func (r *boundedRows) Close() error {
	defer r.cancel()
	return r.ColumnScanner.Close()
}
