package store

import (
	"context"
	"database/sql"
	"time"

	"entgo.io/ent/dialect"
)

// A delivery is due, and a lease ends, by the clock of the queue. Where several servers
// share a PostgreSQL database this is the database's, whatever the clock of each says:
// by its own, one that is ten minutes fast would take what another is sending, and one
// that is slow would make deliveries that are due in ten minutes. On SQLite, and in a
// store that was given a clock, it is the store's.
//
// The column due_at holds times of the queue's clock; all other times are the store's
// own.

// sharesClock reports whether the clock of the queue is the database's.
func (s *Store) sharesClock() bool { return s.ownClock && s.dialect == dialect.Postgres }

// givenClock is the time of a store that was given a clock, as the statements of the
// queue take it; nil means the database's time.
func (s *Store) givenClock() *int64 {
	if s.sharesClock() {
		return nil
	}
	now := s.timestamp().UnixMicro()
	return &now
}

// measureClock finds out by how much the queue's clock is ahead of the store's, at least:
// so what is due now is due when it is written, and never milliseconds later.
func (s *Store) measureClock(ctx context.Context) error {
	if !s.sharesClock() {
		return nil
	}
	return queryRows(ctx, s.reader, "SELECT "+queueClock, []any{s.givenClock()}, func(rows *sql.Rows) error {
		var queue int64
		err := rows.Scan(&queue)
		if err == nil {
			s.ahead.Store(queue - s.now().UnixMicro())
		}
		return err
	})
}

// due returns a time of the store's clock as due_at holds it; nil for the zero time.
func (s *Store) due(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	n := t.UnixMicro() + s.ahead.Load()
	return &n
}

// fromDue returns what due_at holds as a time of the store's clock.
func (s *Store) fromDue(n int64) time.Time { return time.UnixMicro(n - s.ahead.Load()).UTC() }
