// Generates the package ent from ent/schema; run by `go generate ./ent`.
//
// It does what `ent generate` does and hands one thing on that the command has
// no flag for: ent compiles ent/schema with a `go run` of its own, and that
// child must read .tools/go.mod too, because the server's own go.mod does not
// know what a code generator imports.
package main

import (
	"log"

	"entgo.io/ent/entc"
	"entgo.io/ent/entc/gen"
)

func main() {
	err := entc.Generate("./schema",
		&gen.Config{Features: []gen.Feature{
			gen.FeatureVersionedMigration, // migrations are files, never a diff at start
			gen.FeatureExecQuery,          // savepoints, and statements that ent cannot say
			gen.FeatureLock,               // SELECT ... FOR UPDATE
			gen.FeatureModifier,           // conditions that ent cannot say
			gen.FeatureUpsert,             // counters are written with ON CONFLICT
		}},
		entc.BuildFlags("-modfile=../.tools/go.mod"),
	)
	if err != nil {
		log.Fatal("generate ent: ", err)
	}
}
