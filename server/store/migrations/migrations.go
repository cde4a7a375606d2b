// Package migrations holds the versioned changes of the database's schema, a
// folder for each dialect. A file that was released is never edited: the next
// change is a new file, made from ent/schema by `go generate`.
package migrations

import "embed"

//go:generate bash ../../../.ci/postgres --optional go run ./generate

// Files holds the folder of each dialect, named as ent names it.
//
//go:embed sqlite3/*.sql sqlite3/atlas.sum postgres/*.sql postgres/atlas.sum
var Files embed.FS
