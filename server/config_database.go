package server

import (
	"errors"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
)

// postgres reports whether the database is of PostgreSQL.
func (c Config) postgres() bool {
	scheme, _, _ := strings.Cut(c.Database, ":")
	return scheme == "postgres" || scheme == "postgresql"
}

// setClock returns the clock of a database that servers share, nil for one of SQLite.
// It becomes c's.
func (c *Config) setClock() *feed.Clock {
	if !c.postgres() {
		return nil
	}
	clock := feed.NewClock(feed.ClockConfig{Machine: c.Machine, Now: c.Now})
	c.Now, c.systemClock = clock.Now, c.Now == nil
	return clock
}

// checkDatabase tells fault what is wrong with the settings of the database. None
// of it repeats a URL, which may hold a password.
func (c Config) checkDatabase(fault func(setting, format string, args ...any)) {
	if c.DatabaseWait > time.Hour {
		fault("database_wait", "must be at most an hour")
	}
	if !c.postgres() {
		if _, err := sqlitePath(c.Database); err != nil {
			fault("database", "%w", err)
		}
		if c.DatabaseDirect != "" {
			fault("database_direct", "is for PostgreSQL alone, and database names a file of SQLite")
		}
		if c.DatabasePasswordFile != "" {
			fault("database_password_file", "is for PostgreSQL alone, and database names a file of SQLite")
		}
		return
	}
	pooled, err := store.CheckPostgresURL(c.Database)
	switch {
	case err != nil:
		fault("database", "%w", err)
	case pooled && c.DatabaseDirect == "":
		fault("database_direct", "must be set where database has pgbouncer=true: the URL of the same database without PgBouncer")
	}
	if c.DatabaseDirect != "" {
		if pooled, err := store.CheckPostgresURL(c.DatabaseDirect); err != nil {
			fault("database_direct", "%w", err)
		} else if pooled {
			fault("database_direct", "must not have pgbouncer=true: it is the way around PgBouncer")
		}
	}
	// Who starts a server on a database elsewhere may not be at a terminal, and a
	// token that one of several servers makes would be shown by that one alone.
	if c.RootToken.IsZero() && c.RootTokenFile == "" {
		fault("root_token", "must be set with PostgreSQL, itself or by root_token_file")
	}
}

// storeConfig returns what opens the database for a server.
func (c Config) storeConfig(onFault func(*store.Fault)) (store.Config, error) {
	config := store.Config{Now: c.Now, NewID: apikey.NewIDAt(c.Now), Logger: c.Logger, OnFault: onFault, Serving: true, Force: c.Force}
	config.SharedClock = c.systemClock // Servers that share a database have its clock for what they share.
	if !c.postgres() {
		var err error
		config.Path, err = sqlitePath(c.Database)
		return config, err
	}
	config.Postgres, config.PostgresPasswordFile = masked.New(c.Database), c.DatabasePasswordFile
	if c.DatabaseDirect != "" {
		config.PostgresDirect = masked.New(c.DatabaseDirect)
	}
	config.Wait, config.Unnotified = c.DatabaseWait, c.Unnotified
	return config, nil
}

// rescan is how often the worker looks for deliveries that another server has made or
// has left behind; zero where there is no other.
func (c Config) rescan() time.Duration {
	if c.postgres() {
		return time.Second
	}
	return 0
}

const sqliteScheme = "sqlite:"

// sqlitePath returns the file that database names.
func sqlitePath(database string) (string, error) {
	path, ok := strings.CutPrefix(database, sqliteScheme)
	switch {
	case !ok:
		return "", errors.New("must be sqlite:<path>, such as sqlite:data/apikeys.db, or postgres://<user>@<host>:<port>/<database>")
	case path == "" || strings.HasPrefix(path, ":"):
		return "", errors.New("must name a file after sqlite:; a database in memory would lose its keys")
	case strings.HasPrefix(path, "//"):
		// Other programs read sqlite:///x as x or as /x. Guessing would open,
		// and so make, another database.
		return "", errors.New("must be sqlite:<path> without //, such as sqlite:data/apikeys.db or sqlite:/var/lib/apikeys.db")
	case strings.ContainsAny(path, "?\x00"):
		return "", errors.New("must be sqlite:<path> without options")
	}
	return path, nil
}
