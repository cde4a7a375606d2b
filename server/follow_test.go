package server

import "testing"

// TestOwnCommits tells the positions that this server has committed from those of others.
func TestOwnCommits(t *testing.T) {
	t.Parallel()
	var own ownCommits
	want := func(position int64, is bool) {
		t.Helper()
		if got := own.take(position); got != is {
			t.Errorf("position %d is this server's own: %t", position, got)
		}
	}
	own.add(3, 4)
	own.add(7, 7)
	want(2, false)
	want(3, true)
	want(4, true)
	want(5, false)
	want(7, true)
	want(8, false)
	// A log that has lost its newest part gives its positions to other commits.
	own.add(9, 9)
	own.forget()
	want(9, false)
	own.add(9, 10)
	want(9, true)
}
