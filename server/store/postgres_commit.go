package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"entgo.io/ent/dialect"
	"github.com/jackc/pgx/v5"

	entevent "github.com/apikeys-dev/apikeys/ent/event"
)

// statementsTimeout bounds a transaction over a network, which may take what is
// sent and never answer. It is far above what a transaction takes, and what bounds
// how long a change waits behind one that hangs.
const statementsTimeout = 10 * time.Second

// bounded returns a context that ends with ctx and, where the database is behind a
// network, after statementsTimeout. On SQLite nothing but the disk holds a
// statement up, and the driver spends a goroutine on every statement that can be
// cancelled.
func (b *backend) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if b.dialect == dialect.SQLite {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, statementsTimeout)
}

// errUnknownOutcome says that nobody knows whether a commit was made.
var errUnknownOutcome = errors.New("the connection was lost during the commit")

// outcome returns nil where a commit that failed was made all the same: its
// connection may be lost after PostgreSQL has heard of it. Else it returns the
// failure, as errUnknownOutcome where the database cannot be asked.
//
// Asking locks the revision, for which the transaction that was lost has to end
// first, one way or the other. A transaction without an event leaves nothing that
// could be asked for.
func (s *Store) outcome(g *groupTx, failure error) error {
	failure = fmt.Errorf("commit: %w", failure)
	if s.dialect == dialect.SQLite || postgresCode(failure) != "" || errors.Is(failure, pgx.ErrTxCommitRollback) {
		return failure
	}
	made, err := s.holds(g)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w; it could not be asked: %w", errUnknownOutcome, failure, err)
	case !made:
		return failure
	}
	s.log.Warn("A connection was lost during a commit, which was made.", "error", failure)
	return nil
}

// holds reports whether the log has the last event of g at its position.
func (s *Store) holds(g *groupTx) (bool, error) {
	if len(g.events) == 0 {
		return false, errors.New("it has no event")
	}
	id, _ := g.events[len(g.events)-1].Mutation().EventID()
	ctx, cancel := s.bounded(context.Background())
	defer cancel()
	etx, err := s.writer.Tx(ctx)
	if err != nil {
		return false, err
	}
	defer etx.Rollback() //nolint:errcheck // Nothing was written.
	if _, err := s.lockRevision(ctx, etx); err != nil {
		return false, err
	}
	return etx.Event.Query().Where(entevent.ID(g.position), entevent.EventID(id)).Exist(ctx)
}
