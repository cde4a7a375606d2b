package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// The times of the presence of a server on a PostgreSQL database.
const (
	// presenceCheck is how often its session is asked whether it still stands, and
	// presenceTimeout how long that may take.
	presenceCheck   = time.Second
	presenceTimeout = 5 * time.Second
	// presenceWait is how long a move waits for a server that has just ended and whose
	// session PostgreSQL has not taken away yet.
	presenceWait = 3 * time.Second
)

// presenceLock is the class of the advisory lock that servers share and a move has
// alone; its second number is the schema's.
const presenceLock int32 = 0x61706b33

// errMoving says that a move has the database, and errServed that a server has it.
const (
	errMoving = refusal("is being moved by apikeys migrate, or is the target of its move; start the server when that has ended")
	errServed = refusal("is in use by a server; stop every server of it first")
)

// presence keeps moves off a database while a server runs on it, and servers while it
// is moved. It is an advisory lock that a session of its own holds, so that PostgreSQL
// drops it with the session. A server whose session is lost takes it anew, and ends
// where the database is moved by then.
type presence struct {
	database *postgresDatabase // around PgBouncer, which knows no session
	log      *slog.Logger
	alone    bool // it is a move's

	mu   sync.Mutex // held while conn is used
	conn *pgx.Conn
}

// appear takes the lock over a connection of its own.
func (d *postgresDatabase) appear(ctx context.Context, c Config) (*presence, error) {
	if d.pooled {
		return nil, refusal("is behind PgBouncer; set database_direct to its URL without PgBouncer")
	}
	p := &presence{database: d, log: c.Logger, alone: c.moving}
	for began := time.Now(); ; {
		err := p.take(ctx)
		if !errors.Is(err, errServed) || time.Since(began) > presenceWait {
			return p, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take takes the lock over a new connection. It is errMoving or errServed where others
// have it. There is a connection afterwards only where it has the lock.
func (p *presence) take(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeLocked()
	conn, err := p.database.connect(ctx)
	if err != nil {
		return err
	}
	p.conn = conn
	if err := p.lockLocked(ctx); err != nil {
		p.closeLocked()
		return err
	}
	return nil
}

// lockLocked takes the lock over the connection.
func (p *presence) lockLocked(ctx context.Context) error {
	// PostgreSQL has to find out by itself that a machine is gone.
	const keepalive = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
	if _, err := p.conn.Exec(ctx, keepalive); err != nil {
		return err
	}
	function, taken := "pg_try_advisory_lock_shared", false
	if p.alone {
		function = "pg_try_advisory_lock"
	}
	err := p.conn.QueryRow(ctx, "SELECT "+function+"($1, hashtext(current_schema()))", presenceLock).Scan(&taken)
	switch {
	case err != nil || taken:
		return err
	case p.alone:
		return errServed
	}
	return errMoving
}

// closeLocked closes the connection, if there is one.
func (p *presence) closeLocked() {
	if p.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.conn.Close(ctx) // It is gone either way.
	p.conn = nil
}

// stands returns nil while the session answers.
func (p *presence) stands(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, presenceTimeout)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		return errors.New("the connection is closed")
	}
	return p.conn.Ping(ctx)
}

// hold keeps the presence until ctx ends. It is an error where the database was moved
// while the session was lost.
func (p *presence) hold(ctx context.Context, check func(context.Context) error) error {
	next := time.NewTicker(presenceCheck)
	defer next.Stop()
	lost := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		err := p.stands(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if !lost {
			p.log.Warn("The connection that keeps moves off the database is lost; it is made again.", "error", p.database.explain(err))
			lost = true
		}
		attempt, cancel := context.WithTimeout(ctx, presenceTimeout)
		if err = p.take(attempt); err == nil {
			if err = check(attempt); err != nil {
				p.release() // Else the next look would find a session and not check again.
			}
		}
		cancel()
		_, moved := errors.AsType[errMovedAway](err)
		switch {
		case moved || errors.Is(err, errMoving):
			return fmt.Errorf("the connection to the database was lost, and meanwhile %w", p.database.refuse(err))
		case err == nil:
			p.log.Info("The connection that keeps moves off the database stands again.")
			lost = false
		}
	}
}

// release ends the presence.
func (p *presence) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeLocked()
}
