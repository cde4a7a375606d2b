package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestUnavailable(t *testing.T) {
	t.Parallel()
	answer := func(code string) error { return fmt.Errorf("read key: %w", &pgconn.PgError{Code: code}) }
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"none":                      {nil, false},
		"shutting down":             {answer("57P01"), true},
		"too many connections":      {answer("53300"), true},
		"a lost connection":         {answer("08006"), true},
		"a statement that was long": {answer("57014"), true},
		"a deadlock":                {answer("40P01"), true},
		"read-only":                 {answer("25006"), true},
		"a unique key":              {answer("23505"), false},
		"a faulty statement":        {answer("42601"), false},
		"cut off":                   {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), true},
		"the network":               {&net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, true},
		"a bad connection":          {driver.ErrBadConn, true},
		"no answer":                 {fmt.Errorf("%w: %w", errNoAnswer, context.DeadlineExceeded), true},
		"the caller's deadline":     {context.DeadlineExceeded, false},
		"the caller's end":          {context.Canceled, false},
		"no row":                    {sql.ErrNoRows, false},
	} {
		if got := Unavailable(c.err); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
