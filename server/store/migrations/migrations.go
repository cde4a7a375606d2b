// Package migrations holds the versioned changes of the database's schema, a
// folder for each dialect. A file that was released is never edited: the next
// change is a new file, made from ent/schema by `go generate`.
//
// A migration expands the schema where a program that does not know it can work on:
// it adds tables, columns that may be absent or have a default, and indexes that
// refuse nothing. It begins with the line
//
//	-- apikeys:expand
//
// which the generator writes where it sees that this is so. Such migrations are what
// lets the servers of one database be replaced one after another: the first new one
// applies them, and the old ones go on. A program that finds a later migration
// without the line does not start.
//
// To rename or drop something takes two releases. The first adds the new and writes
// both; the second, when no server of before is left, drops the old.
package migrations

import (
	"bytes"
	"embed"
)

// ExpandMark is the first line of a migration that expands the schema.
const ExpandMark = "-- apikeys:expand"

// Expands reports whether the text of a migration has the mark.
func Expands(text []byte) bool {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	return string(bytes.TrimSpace(first)) == ExpandMark
}

//go:generate bash ../../../.ci/postgres --optional go run ./generate

// Files holds the folder of each dialect, named as ent names it.
//
//go:embed sqlite3/*.sql sqlite3/atlas.sum postgres/*.sql postgres/atlas.sum
var Files embed.FS
