package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	entsql "entgo.io/ent/dialect/sql"
)

// markSetting is the setting by which a database says that it was moved, or is the
// target of a move.
const markSetting = "move"

// moveMark is the value of markSetting.
type moveMark struct {
	State moveState `json:"state"`
	// Token is the attempt's that wrote the mark. The target has the token of the
	// source exactly where it is the database that the source was moved to.
	Token string `json:"token"`
	// Database is the identity of the database that is moved, in the source and the
	// target alike.
	Database string `json:"database"`
	// Other names the other database, without a credential.
	Other string    `json:"other"`
	At    time.Time `json:"at"`
}

// moveState is where in a move a database is.
type moveState string

const (
	// stateArriving is a target whose rows may not be whole yet.
	stateArriving moveState = "arriving"
	// stateArrived is a target whose rows are whole.
	stateArrived moveState = "arrived"
	// stateMoved is a source whose rows are in its target.
	stateMoved moveState = "moved"
)

// errMovedAway says that a database was moved, and errArriving that it is not whole.
type (
	errMovedAway struct{ moveMark }
	errArriving  struct{ moveMark }
)

// Error says where to go on instead.
func (e errMovedAway) Error() string {
	return fmt.Sprintf("the database was moved to the %s at %s; start the server there, or with --force here, which forgets every change that was made there",
		e.Other, e.At.Format(time.DateTime))
}

// Error says how to go on.
func (e errArriving) Error() string {
	return fmt.Sprintf("the database is the target of a move from the %s that has not ended; run apikeys migrate again", e.Other)
}

// readMark returns the mark of a database, whose state is empty where there is none.
func readMark(ctx context.Context, dbtx *sql.Tx) (m moveMark, _ error) {
	var text string
	err := dbtx.QueryRowContext(ctx, "SELECT value FROM settings WHERE id = '"+markSetting+"'").Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &m)
	}
	if err != nil {
		return m, fmt.Errorf("read the mark of a move: %w", err)
	}
	return m, nil
}

// execer is a transaction, of package sql or of ent.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// writeMark adds the mark or replaces it.
func writeMark(ctx context.Context, dbtx execer, dialectName string, m moveMark) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	query, args := entsql.Dialect(dialectName).Insert("settings").Columns("id", "value").Values(markSetting, string(text)).
		OnConflict(entsql.ConflictColumns("id"), entsql.ResolveWithNewValues()).Query()
	if _, err := dbtx.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("write the mark of a move: %w", err)
	}
	return nil
}

// checkMark returns the mark of a database. It is an error where a server may not use
// the database: it was moved, or is not whole. Where c.Force is set, a database that was
// moved is one no longer.
func checkMark(ctx context.Context, dbtx *sql.Tx, c Config) (moveMark, error) {
	m, err := readMark(ctx, dbtx)
	if err != nil || c.moving {
		return m, err
	}
	switch m.State {
	case stateArriving:
		return m, errArriving{m}
	case stateMoved:
		if !c.Force {
			return m, errMovedAway{m}
		}
		if _, err := dbtx.ExecContext(ctx, "DELETE FROM settings WHERE id = '"+markSetting+"'"); err != nil {
			return m, fmt.Errorf("remove the mark of a move: %w", err)
		}
		c.Logger.Warn("The server starts on a database that was moved, and goes on from what it was then; it can be started from now on.", "moved_to", m.Other, "moved_at", m.At)
	case stateArrived:
	}
	return m, nil
}
