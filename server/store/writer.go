package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/apikeys-dev/apikeys/ent"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/broken"
)

// maxGroup bounds how many changes one transaction holds, and with it how long
// the first of them waits for the last.
const maxGroup = 128

// eventChunk is how many events one statement appends; databases bound how many
// values a statement has.
const eventChunk = 128

// group holds the changes that wait to be committed. There is no goroutine of its
// own: the first who waits leads, commits those whose turn it is, and hands the lead
// to the first of those who wait then.
type group struct {
	mu      sync.Mutex
	leading bool
	waiting turns
}

// change is one caller's part of a group.
type change struct {
	ctx   context.Context
	by    *apikey.Caller
	apply func(context.Context, *tx) error
	// many says that it changes many rows, and so shares its transaction with nobody.
	many bool
	// call is the idempotent call that makes it; nil for any other.
	call   *IdempotentCall
	err    error
	wakeup chan bool // true: lead; false: err is the answer
}

// commitChange is commitAtOnce for a change that waits where the fan-out of its
// organization is far behind.
func (s *Store) commitChange(ctx context.Context, by *apikey.Caller, apply func(context.Context, *tx) error) error {
	if err := s.held(ctx, by); err != nil {
		return err
	}
	return s.commitAtOnce(ctx, by, apply)
}

// commitMany is commitChange for a change of many rows. It has a group of its own:
// together with a hundred others of one organization it would hold up everybody.
func (s *Store) commitMany(ctx context.Context, by *apikey.Caller, apply func(context.Context, *tx) error) error {
	if err := s.held(ctx, by); err != nil {
		return err
	}
	return s.commitManyAtOnce(ctx, by, apply)
}

// commitManyAtOnce is to commitMany what commitAtOnce is to commitChange.
func (s *Store) commitManyAtOnce(ctx context.Context, by *apikey.Caller, apply func(context.Context, *tx) error) error {
	return s.join(&change{ctx: ctx, by: by, apply: apply, many: true})
}

// held returns once by's organization may make a change, or why it may not.
func (s *Store) held(ctx context.Context, by *apikey.Caller) error {
	if s.hold == nil || by.Organization == "" {
		return nil
	}
	return s.hold(ctx, by.Organization)
}

// commitAtOnce runs apply in a transaction and returns when it has been committed, or
// refused. It waits for no fan-out, and so is for the server's own changes and for those
// that end what there is, which are bounded by that: a key that was leaked could
// otherwise hold up its own revocation by many changes.
//
// That by may make the change is checked inside the transaction, by the row
// of the key that by is; what by may grant is then in tx.rights.
//
// Changes that wait at the same time share one transaction, each in a savepoint of its
// own, and are answered after its commit, refusals too, since these may rest on a
// change of a sibling.
//
// The transaction runs under the writer's own context and apply must use the one
// it is given: a statement cancelled inside a savepoint would make the driver
// roll the whole transaction back and commit what follows on its own. The
// caller's context counts until its savepoint begins, not after.
func (s *Store) commitAtOnce(ctx context.Context, by *apikey.Caller, apply func(context.Context, *tx) error) error {
	return s.join(&change{ctx: ctx, by: by, apply: apply})
}

// join makes a change in the group whose turn it is.
func (s *Store) join(c *change) error {
	c.wakeup, c.call = make(chan bool, 1), callOf(c.ctx)
	g := &s.group
	g.mu.Lock()
	g.waiting.add(c)
	lead := !g.leading
	g.leading = true
	g.mu.Unlock()
	if !lead && !<-c.wakeup {
		return c.err
	}

	g.mu.Lock()
	members := g.waiting.take(maxGroup)
	g.mu.Unlock()

	s.commit(members) //nolint:contextcheck // A group outlives each of its callers.

	g.mu.Lock()
	if next := g.waiting.first(); next != nil {
		next.wakeup <- true
	} else {
		g.leading = false
	}
	g.mu.Unlock()
	for _, m := range members {
		if m != c {
			m.wakeup <- false
		}
	}
	return c.err
}

// commit runs members in one transaction and leaves each its answer. Its context
// is nobody's, and ends only where a network may hold a statement up: see bounded.
func (s *Store) commit(members []*change) {
	// Whatever breaks here, those who wait behind must get their turn. Whether the
	// changes were made nobody knows.
	defer func() {
		if p := recover(); p != nil {
			for _, m := range members {
				m.err = fmt.Errorf("panic in a commit: %v\n%s", p, debug.Stack())
			}
		}
	}()
	if err := s.commitGroup(context.Background(), members); err != nil {
		s.faults.observe(err)
		line, answer := "A transaction failed; its changes were not made.", "The change could not be stored and was not made; try again."
		if errors.Is(err, errUnknownOutcome) {
			line, answer = "A transaction failed; whether its changes were made is not known.",
				"Whether the change was made is not known, since the database was lost meanwhile; read it before you try again."
		}
		s.log.Error(line, "changes", len(members), "error", err)
		for _, m := range members {
			m.err = apikey.Errorf(apikey.KindUnavailable, apikey.ReasonUnavailable, "%s", answer)
		}
	}
}

// commitGroup returns an error where the transaction itself died, and then
// nothing of it is in the database, unless the error is errUnknownOutcome.
func (s *Store) commitGroup(ctx context.Context, members []*change) (unknown error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	began := time.Now() // Not the store's clock: see Commit.
	etx, err := s.writer.Tx(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer etx.Rollback() //nolint:errcheck // After the commit it has nothing to do, before it there is nobody to tell.
	g := &groupTx{}
	if g.position, err = s.lockRevision(ctx, etx); err != nil {
		return err
	}
	before := g.position
	t := &tx{Tx: etx, store: s, now: s.timestamp(), group: g}
	for _, m := range members {
		if m.err = m.ctx.Err(); m.err != nil {
			continue
		}
		if err := t.member(ctx, m, len(members) > 1); err != nil {
			return err
		}
		s.faults.observe(m.err)
	}
	if len(members) == 1 && members[0].err != nil {
		if err := etx.Rollback(); err != nil {
			return fmt.Errorf("roll back: %w after: %w", err, members[0].err)
		}
		return nil
	}
	if g.position > before {
		for events := range slices.Chunk(g.events, eventChunk) {
			if err := etx.Event.CreateBulk(events...).Exec(ctx); err != nil {
				return fmt.Errorf("append events: %w", err)
			}
		}
		if err := etx.Revision.Update().SetPosition(g.position).Exec(ctx); err != nil {
			return fmt.Errorf("advance the revision: %w", err)
		}
	}
	committing := time.Now()
	// Told of one that may not have been made, too: what is cached of its keys must go.
	tell := func() {
		if g.position == before && len(g.due)+len(g.changed)+len(g.changedTokens) == 0 {
			return
		}
		if g.position > before || len(g.due) > 0 {
			s.notices.committed(g.position)
		}
		for _, f := range s.committed {
			f(Commit{
				First: before + 1, Position: g.position, Unknown: unknown != nil, ChangedKeys: g.changed, ChangedTokens: g.changedTokens, Due: g.due,
				Organizations: g.organizations, Subscribed: g.subscribed, Deleted: g.deleted,
				Events: g.types, Changes: len(members), Began: began, Committing: committing,
			})
		}
	}
	if broken.Is(broken.DropEarly) {
		tell()
		tell = func() {}
	}
	if err := etx.Commit(); err != nil {
		if broken.Is(broken.AnswerEarly) {
			return nil
		}
		if err = s.outcome(g, err); err != nil && !errors.Is(err, errUnknownOutcome) {
			return err
		}
		unknown = err
	}
	tell()
	return unknown
}

// member runs one change. What it refuses is rolled back to its savepoint and is
// its own answer; an error of the savepoint itself is the transaction's end. A
// change that is alone needs no savepoint: the transaction is its own. PostgreSQL is told
// of the savepoint together with the statement after it, which spares two round trips a
// change; where its beginning fails, the next statement says so.
func (t *tx) member(ctx context.Context, m *change, savepoint bool) error {
	if !savepoint {
		m.err = t.protect(ctx, m)
		return nil
	}
	kept := *t.group
	if _, err := t.ExecContext(ctx, savepointStatement); err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	if m.err = t.protect(ctx, m); m.err != nil {
		*t.group = kept
		if _, err := t.ExecContext(ctx, rollBackStatement); err != nil {
			return fmt.Errorf("roll back to savepoint: %w", err)
		}
	}
	if _, err := t.ExecContext(ctx, releaseStatement); err != nil {
		return fmt.Errorf("release savepoint: %w", err)
	}
	return nil
}

// protect runs one change, whose caller must be admitted, and turns a panic of it into
// its error, so that it cannot take its siblings along.
func (t *tx) protect(ctx context.Context, m *change) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a change: %v\n%s", p, debug.Stack())
		}
	}()
	if err := checkFence(m.ctx, ctx, t); err != nil {
		return err
	}
	if err := t.admit(ctx, m.by); err != nil {
		return err
	}
	if m.call == nil {
		return m.apply(ctx, t)
	}
	return t.once(ctx, m.call, m.apply)
}

// The statements around each change of a group.
const (
	savepointStatement = "SAVEPOINT member"
	rollBackStatement  = "ROLLBACK TO SAVEPOINT member"
	releaseStatement   = "RELEASE SAVEPOINT member"
)

// revisionRow is the id of the one row of revisions.
const revisionRow = 1

// lockRevision returns the newest position and, on PostgreSQL, holds its row
// until the end of the transaction: without that, groups of two servers
// deadlock. On SQLite the transaction holds the whole database.
func (s *Store) lockRevision(ctx context.Context, etx *ent.Tx) (int64, error) {
	query := etx.Revision.Query()
	if s.locksRows() {
		query.ForUpdate()
	}
	row, err := query.Only(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the revision: %w", err)
	}
	return row.Position, nil
}

// unexpected wraps err unless it is an answer for the caller.
func unexpected(doing string, err error) error {
	if err == nil {
		return nil
	}
	var known *apikey.Error
	if errors.As(err, &known) {
		return err
	}
	return fmt.Errorf("%s: %w", doing, err)
}
