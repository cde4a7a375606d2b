package store

import (
	"ariga.io/atlas/sql/migrate"
	"entgo.io/ent/dialect"
)

// dialectOf returns the dialect of a configuration.
func dialectOf(c Config) string {
	if c.Postgres.IsZero() {
		return dialect.SQLite
	}
	return dialect.Postgres
}

// MigrationVersions returns the versions of the migrations of c's dialect, ascending.
func MigrationVersions(c Config) (versions []string, _ error) {
	dir, err := migrationDir(dialectOf(c))
	if err != nil {
		return nil, err
	}
	files, err := dir.Files()
	for _, f := range files {
		versions = append(versions, f.Version())
	}
	return versions, err
}

// WithMigrationsUpTo returns c for the program of before, whose last migration was that
// of a version.
func WithMigrationsUpTo(c Config, version string) (Config, error) {
	all, err := migrationDir(dialectOf(c))
	if err != nil {
		return c, err
	}
	files, err := all.Files()
	if err != nil {
		return c, err
	}
	dir := &migrate.MemDir{}
	for _, f := range files {
		if f.Version() > version {
			break
		}
		if err := dir.WriteFile(f.Name(), f.Bytes()); err != nil {
			return c, err
		}
	}
	sum, err := dir.Checksum()
	if err != nil {
		return c, err
	}
	c.migrations = dir
	return c, migrate.WriteSumFile(dir, sum)
}
