package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
)

// MoveConfig says which database is moved where.
type MoveConfig struct {
	// From and To are databases, as [Config.Database] names them; none leads through
	// PgBouncer. Required.
	From, To string
	// FromPasswordFile and ToPasswordFile are files that hold the password of a
	// PostgreSQL database alone. Default to none.
	FromPasswordFile, ToPasswordFile string
	// Wait is how long to wait for a PostgreSQL database that cannot be reached.
	// Defaults to not at all.
	Wait time.Duration
	// Progress is called often, with all that is done so far. Defaults to nothing.
	Progress func(MoveProgress)
	// Logger hears of what is no error. Defaults to slog.Default.
	Logger *slog.Logger
}

// MoveProgress tells how far a move has come.
type MoveProgress = store.MoveProgress

// Moved tells of a move that has ended well.
type Moved = store.Moved

// Move moves a database with all that is in it, which takes an empty target. The
// secrets file stays where it is: its keys are those of the target from then on. No
// server may run on either database. A move that was interrupted can be run again;
// the errors say in one line what is wrong, without a password.
func Move(ctx context.Context, c MoveConfig) (_ Moved, err error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	from, err := c.side("from", c.From, c.FromPasswordFile)
	if err != nil {
		return Moved{}, err
	}
	to, err := c.side("to", c.To, c.ToPasswordFile)
	if err != nil {
		return Moved{}, err
	}
	if c.From == c.To || from.Path != "" && to.Path != "" && realPath(from.Path) == realPath(to.Path) {
		return Moved{}, errors.New("to: must be another database than from")
	}
	if from.Path != "" {
		if _, err := os.Stat(from.Path); errors.Is(err, fs.ErrNotExist) {
			return Moved{}, fmt.Errorf("from: there is no database at %s", from.Path)
		}
	}
	if to.Path != "" {
		if err := os.MkdirAll(filepath.Dir(to.Path), 0o700); err != nil {
			return Moved{}, fmt.Errorf("to: %w", err)
		}
	}
	for _, side := range []struct{ name, path string }{{"from", from.Path}, {"to", to.Path}} {
		if side.path == "" {
			continue // The store locks it.
		}
		lock, err := lockDatabase(side.path)
		if err != nil {
			return Moved{}, fmt.Errorf("%s: %w", side.name, err)
		}
		defer func() { err = errors.Join(err, lock.release()) }()
	}
	return store.Move(ctx, store.MoveConfig{From: from, To: to, Progress: c.Progress})
}

// side returns what opens one of the two databases.
func (c MoveConfig) side(name, database, passwordFile string) (store.Config, error) {
	config := store.Config{Logger: c.Logger, Wait: c.Wait, PostgresPasswordFile: passwordFile}
	if !(Config{Database: database}).postgres() {
		path, err := sqlitePath(database)
		if err != nil {
			return config, fmt.Errorf("%s: %w", name, err)
		}
		if passwordFile != "" {
			return config, fmt.Errorf("%s_password_file: is for PostgreSQL alone, and %s names a file of SQLite", name, name)
		}
		config.Path = path
		return config, nil
	}
	pooled, err := store.CheckPostgresURL(database)
	if err != nil {
		return config, fmt.Errorf("%s: %w", name, err)
	}
	if pooled {
		return config, fmt.Errorf("%s: must not lead through PgBouncer; name the database itself, without pgbouncer=true", name)
	}
	config.Postgres = masked.New(database)
	return config, nil
}

// HoldsPassword reports whether a database is named by a URL with a password, which
// has no place among the arguments of a program.
func HoldsPassword(database string) bool {
	u, err := url.Parse(database)
	if err != nil {
		return strings.Contains(database, "://") // What cannot be read may hold one.
	}
	_, ok := u.User.Password()
	return ok || u.Query().Has("password")
}
