package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
)

// MoveConfig says what Move moves where.
type MoveConfig struct {
	// From is the database that is moved, To the one that it is moved to. Required.
	// Of both, how they are opened is decided by Move. A caller keeps servers off
	// files of SQLite; databases of PostgreSQL are locked by Move.
	From, To Config
	// Progress is called often, with all that is done so far. Defaults to nothing.
	Progress func(MoveProgress)

	// step is called before each step that can be the last one; for tests.
	step func(name string) error
}

// MoveProgress tells how far a move has come.
type MoveProgress struct {
	// Comparing says that all rows are copied and are read again in the target.
	Comparing bool
	// Table is the one that is under way.
	Table string
	// Rows are done, of Total rows in all tables; those of the comparison are counted
	// apart.
	Rows, Total int64
}

// Moved tells of a move that has ended well.
type Moved struct {
	// Rows is how many rows were moved, by their tables. It is nil where the move had
	// ended before.
	Rows map[string]int64
	// From and To name the databases without a credential.
	From, To string
}

// Move copies every row of a database into another one, which must be empty or the
// target of the same move that has not ended, compares what arrived, and marks the
// source as moved, so that no server starts on it. Memory does not grow with the rows.
//
// It can be killed at any moment and run again. Until it ends, no server starts on the
// target; the source is as it was until the target is whole. The steps are:
//
//  1. The target is emptied and marked as arriving, in one transaction.
//  2. The rows are copied, of one read of the source in which nobody changes it.
//  3. They are read again in the target, and compared.
//  4. The source is marked as moved.
//  5. The target is marked as arrived.
//
// Both marks of one attempt have the same token. A run that finds the source marked as
// moved, and the target as arriving with its token, has step 5 left alone.
func Move(ctx context.Context, c MoveConfig) (_ Moved, err error) {
	m := &mover{MoveConfig: c, token: rand.Text()}
	if m.Progress == nil {
		m.Progress = func(MoveProgress) {}
	}
	if m.step == nil {
		m.step = func(string) error { return nil }
	}
	m.tables, m.all = moveTables()
	m.From.Existing, m.From.moving = true, true
	m.To.Existing, m.To.moving = false, true
	if m.from, m.fromName, err = openMoved(ctx, m.From); err != nil {
		return Moved{}, fmt.Errorf("from: %w", err)
	}
	defer func() { err = errors.Join(err, m.from.close()) }()
	if m.to, m.toName, err = openMoved(ctx, m.To); err != nil {
		return Moved{}, fmt.Errorf("to: %w", err)
	}
	defer func() { err = errors.Join(err, m.to.close()) }()
	rows, err := m.run(ctx)
	return Moved{Rows: rows, From: m.fromName, To: m.toName}, err
}

// openMoved opens a database of a move and names it.
func openMoved(ctx context.Context, c Config) (*backend, string, error) {
	if c.Postgres.IsZero() {
		b, err := openSQLite(ctx, c)
		if err != nil {
			return nil, "", fmt.Errorf("the SQLite database %s: %w", c.Path, err)
		}
		return b, "SQLite database " + b.file, nil
	}
	b, err := openPostgres(ctx, c)
	if err != nil {
		return nil, "", fmt.Errorf("the %w", err)
	}
	d, err := parsePostgres(c.Postgres.Reveal(), "")
	if err != nil {
		return nil, "", err
	}
	return b, d.String(), nil
}

// mover is one attempt of a move.
type mover struct {
	MoveConfig
	token            string
	tables           []moveTable
	all              []string
	from, to         *backend
	fromName, toName string

	source   *sql.Tx // reads the source, and marks it
	identity string
	progress MoveProgress
}

// run makes the move, and returns how many rows were moved.
func (m *mover) run(ctx context.Context) (rows map[string]int64, err error) {
	if m.source, err = m.beginSource(ctx); err != nil {
		return nil, fmt.Errorf("from: the %s: %w", m.fromName, err)
	}
	defer m.source.Rollback() //nolint:errcheck // After the commit it has nothing to do.
	left, err := readMark(ctx, m.source)
	if err != nil {
		return nil, err
	}
	if left.State == stateArriving {
		return nil, fmt.Errorf("from: %w", errArriving{left})
	}
	if m.identity, err = m.readIdentity(ctx); err != nil {
		return nil, fmt.Errorf("from: the %s: %w", m.fromName, err)
	}
	arrived, err := m.checkTarget(ctx, left)
	if err != nil {
		return nil, fmt.Errorf("to: the %s: %w", m.toName, err)
	}
	switch {
	case left.State == stateMoved && arrived.Token != left.Token:
		return nil, fmt.Errorf("from: %w", errMovedAway{left})
	case left.State == stateMoved && arrived.State == stateArrived:
		return nil, nil // The attempt before was killed after its end.
	case left.State == stateMoved:
		return nil, m.finish(ctx, arrived)
	}
	return m.copyAll(ctx)
}

// copyAll makes the steps of a move.
func (m *mover) copyAll(ctx context.Context) (map[string]int64, error) {
	target := moveMark{stateArriving, m.token, m.identity, m.fromName, m.From.now()}
	if err := m.empty(ctx, target); err != nil {
		return nil, fmt.Errorf("empty the %s: %w", m.toName, err)
	}
	for _, t := range m.tables {
		n, err := t.count(ctx, m.source)
		if err != nil {
			return nil, fmt.Errorf("count %s: %w", t.Name, err)
		}
		m.progress.Total += n
	}
	sums, rows := make([]tableSum, len(m.tables)), make(map[string]int64)
	for i, t := range m.tables {
		if err := m.step("copy " + t.Name); err != nil {
			return nil, err
		}
		if t.triggered {
			if _, err := m.to.writerDB.ExecContext(ctx, "DELETE FROM "+quoted(t.Name)); err != nil { //nolint:gosec // The name is the schema's.
				return nil, fmt.Errorf("copy %s: %w", t.Name, err)
			}
		}
		var err error
		if sums[i], err = m.copyTable(ctx, t); err != nil {
			return nil, fmt.Errorf("copy %s: %w", t.Name, err)
		}
		rows[t.Name] = sums[i].rows
	}
	if err := m.compare(ctx, sums); err != nil {
		return nil, err
	}
	if err := m.step("mark the source"); err != nil {
		return nil, err
	}
	source := moveMark{stateMoved, m.token, m.identity, m.toName, m.From.now()}
	if err := writeMark(ctx, m.source, m.from.dialect, source); err != nil {
		return nil, err
	}
	if err := m.source.Commit(); err != nil {
		return nil, fmt.Errorf("mark the source: %w", err)
	}
	if err := m.step("mark the target"); err != nil {
		return nil, err
	}
	return rows, m.finish(ctx, target)
}

// now returns the time by the clock of a configuration.
func (c Config) now() time.Time {
	if c.Now == nil {
		return time.Now().UTC()
	}
	return c.Now().UTC()
}

// beginSource begins the transaction that reads the source, in which nobody changes
// it.
func (m *mover) beginSource(ctx context.Context) (*sql.Tx, error) {
	if m.from.dialect == dialect.SQLite {
		return m.from.writerDB.BeginTx(ctx, nil) // IMMEDIATE: it holds the whole database
	}
	source, err := m.from.writerDB.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(m.all))
	for i, name := range m.all {
		names[i] = quoted(name)
	}
	// The lock comes first, because what is read is as of the first read.
	for _, statement := range []string{
		"SET LOCAL lock_timeout = '10s'",
		"LOCK TABLE " + strings.Join(names, ", ") + " IN EXCLUSIVE MODE",
	} {
		if _, err := source.ExecContext(ctx, statement); err != nil {
			return nil, errors.Join(fmt.Errorf("keep others from changing it: %w", err), source.Rollback())
		}
	}
	return source, nil
}

// readIdentity returns what names the source.
func (m *mover) readIdentity(ctx context.Context) (id string, err error) {
	err = m.source.QueryRowContext(ctx, "SELECT value FROM settings WHERE id = 'database_id'").Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", errors.New("no server has started on it yet, so there is nothing to move")
	}
	return id, err
}

// checkTarget returns the mark of the target. It is an error where the target has rows
// that are not of this move.
func (m *mover) checkTarget(ctx context.Context, left moveMark) (mark moveMark, err error) {
	err = inTx(ctx, m.to.writerDB, func(dbtx *sql.Tx) error {
		if mark, err = readMark(ctx, dbtx); err != nil {
			return err
		}
		switch {
		case mark.State == stateArriving && mark.Database == m.identity:
			return nil
		case mark.State == stateArriving:
			return errors.New("is the target of a move of another database that has not ended; name an empty database")
		case mark.State == stateArrived && left.State == stateMoved && mark.Token == left.Token:
			return nil
		}
		for _, name := range m.all {
			var some bool
			if err := dbtx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM "+quoted(name)+")").Scan(&some); err != nil {
				return err
			}
			if some {
				return fmt.Errorf("must be empty, and its table %s has rows; name an empty database", name)
			}
		}
		return nil
	})
	return mark, err
}

// empty removes every row of the target and marks it.
func (m *mover) empty(ctx context.Context, mark moveMark) error {
	if err := m.step("empty the target"); err != nil {
		return err
	}
	return inTx(ctx, m.to.writerDB, func(dbtx *sql.Tx) error {
		for _, name := range append(slices.Clip(m.all), termTable) { // TRUNCATE calls no trigger
			statement := "DELETE FROM " + quoted(name) //nolint:gosec // The names are the schema's.
			if m.to.dialect == dialect.Postgres {
				statement = "TRUNCATE " + quoted(name)
			}
			if _, err := dbtx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return writeMark(ctx, dbtx, m.to.dialect, mark)
	})
}

// compare reads every table of the target and holds it against what was copied.
func (m *mover) compare(ctx context.Context, want []tableSum) error {
	m.progress.Comparing, m.progress.Rows = true, 0
	return inTx(ctx, m.to.writerDB, func(dbtx *sql.Tx) error {
		for i, t := range m.tables {
			if err := m.step("compare " + t.Name); err != nil {
				return err
			}
			s := summer{table: t}
			err := t.read(ctx, dbtx, func(row []any) error {
				m.done(t, 1)
				return s.add(row)
			})
			if err != nil {
				return fmt.Errorf("compare %s: %w", t.Name, err)
			}
			if s.tableSum != want[i] {
				return fmt.Errorf("compare %s: %d rows arrived, and %d were sent, or their values differ; the source is as it was; run the command again",
					t.Name, s.rows, want[i].rows)
			}
		}
		return nil
	})
}

// done counts rows.
func (m *mover) done(t moveTable, rows int64) {
	m.progress.Table = t.Name
	m.progress.Rows += rows
	m.Progress(m.progress)
}

// finish marks the target as whole. What was under way in the source is due in the
// target, since no server runs on either.
func (m *mover) finish(ctx context.Context, mark moveMark) error {
	etx, err := ent.NewClient(ent.Driver(entsql.OpenDB(m.to.dialect, m.to.writerDB))).Tx(ctx)
	if err != nil {
		return fmt.Errorf("mark the target: %w", err)
	}
	defer etx.Rollback() //nolint:errcheck // After the commit it has nothing to do.
	if err := release(etx.Delivery.Update().Where(entdelivery.DueAtNotNil(), entdelivery.LeaseNEQ("")), m.From.now(), 0).Exec(ctx); err != nil {
		return fmt.Errorf("mark the target: %w", err)
	}
	mark.State, mark.At = stateArrived, m.From.now()
	if err := writeMark(ctx, etx, m.to.dialect, mark); err != nil {
		return err
	}
	if err := etx.Commit(); err != nil {
		return fmt.Errorf("mark the target: %w", err)
	}
	return m.step("end")
}

// inTx runs a transaction.
func inTx(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	dbtx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer dbtx.Rollback() //nolint:errcheck // After the commit it has nothing to do.
	if err := do(dbtx); err != nil {
		return err
	}
	return dbtx.Commit()
}
