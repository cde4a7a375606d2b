// Package testenv tells tests what the machine has that they need. It imports the
// standard library alone, so that the tests of every package can use it.
package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// Postgres returns the URL of the PostgreSQL server that APIKEYS_TEST_POSTGRES names.
// Without one, the test ends as [Missing] says.
func Postgres(tb testing.TB) string {
	tb.Helper()
	server := os.Getenv("APIKEYS_TEST_POSTGRES")
	if server == "" {
		Missing(tb, "APIKEYS_TEST_POSTGRES names no server; run the tests by: bash .ci/postgres go test ./...")
	}
	return server
}

// Program returns the path of a program that a test runs. Where the machine lacks the
// program, the test ends as [Missing] says.
func Program(tb testing.TB, name, remedy string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(tb, name+" is not installed: "+remedy)
	}
	return path
}

// Missing ends a test for which the machine lacks something that .ci/run installs: it
// is skipped, but fails where CI is true, so that no test goes missing there. The remedy
// names what is missing and how to get it.
func Missing(tb testing.TB, remedy string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal(remedy)
	}
	tb.Skip(remedy)
}
