package servertest

import (
	"os"
	"testing"
)

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
