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

// The times of the lock of a PostgreSQL database.
const (
	// lockWait is how long a start waits for a server that has just ended and whose
	// session PostgreSQL has not taken away yet.
	lockWait = 3 * time.Second
	// lockCheck is how often the lock's session is asked whether it still stands, and
	// lockTimeout how long that may take.
	lockCheck   = time.Second
	lockTimeout = 5 * time.Second
)

// errInUse says that another server has the database.
const errInUse = refusal("is in use by another server; servers cannot share a database yet")

// postgresLock keeps a second server off a database, until servers can share one.
// It is an advisory lock that a session of its own holds, so that PostgreSQL drops
// it with the session.
type postgresLock struct {
	database *postgresDatabase
	log      *slog.Logger

	mu   sync.Mutex // held while conn is used
	conn *pgx.Conn
}

// lockPostgres takes the lock over a connection that no pooler is in.
func lockPostgres(ctx context.Context, d *postgresDatabase, c Config) (*postgresLock, error) {
	if d.pooled {
		return nil, refusal("is behind PgBouncer; set database_direct to its URL without PgBouncer")
	}
	l := &postgresLock{database: d, log: c.Logger}
	for began := time.Now(); ; {
		err := l.take(ctx)
		if !errors.Is(err, errInUse) || time.Since(began) > lockWait {
			return l, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take takes the lock over a new connection. It is errInUse where another session
// holds the lock.
func (l *postgresLock) take(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeLocked()
	conn, err := l.database.connect(ctx)
	if err != nil {
		return err
	}
	l.conn = conn
	// PostgreSQL has to find out by itself that a machine is gone.
	const keepalive = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
	if _, err := conn.Exec(ctx, keepalive); err != nil {
		return err
	}
	var taken bool
	err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, hashtext(current_schema()))", serverLock).Scan(&taken)
	if err == nil && !taken {
		l.closeLocked()
		return errInUse
	}
	return err
}

// closeLocked closes the connection, if there is one.
func (l *postgresLock) closeLocked() {
	if l.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.conn.Close(ctx) // It is gone either way.
	l.conn = nil
}

// stands returns nil while the session of the lock answers.
func (l *postgresLock) stands(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return errors.New("the connection of the lock is closed")
	}
	return l.conn.Ping(ctx)
}

// hold keeps the lock until ctx ends. A lock whose session is lost is taken again;
// another server's holding it by then is the error.
func (l *postgresLock) hold(ctx context.Context) error {
	next := time.NewTicker(lockCheck)
	defer next.Stop()
	lost := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		err := l.stands(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if !lost {
			l.log.Warn("The connection that keeps other servers off the database is lost; it is made again.", "error", l.database.explain(err))
			lost = true
		}
		attempt, cancel := context.WithTimeout(ctx, lockTimeout)
		err = l.take(attempt)
		cancel()
		if errors.Is(err, errInUse) {
			return fmt.Errorf("the connection to the database was lost, and meanwhile %w", l.database.refuse(err))
		}
		if err == nil {
			l.log.Info("The connection that keeps other servers off the database stands again.")
			lost = false
		}
	}
}

// release gives the lock up.
func (l *postgresLock) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeLocked()
}
