package apikey

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestEdits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "a", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abcd", "", 4}, {"kitten", "sitting", 3}, {"abcdef", "uvwxyz", 4}, {"api_key.read", "api_keys.read", 1},
	} {
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("edits(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
	// Against the whole table.
	word := rapid.StringMatching("[ab]{0,9}")
	rapid.Check(t, func(t *rapid.T) {
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		table := make([][]int, len(a)+1)
		for i := range table {
			table[i] = make([]int, len(b)+1)
			for j := range table[i] {
				switch {
				case i == 0 || j == 0:
					table[i][j] = i + j
				case a[i-1] == b[j-1]:
					table[i][j] = table[i-1][j-1]
				default:
					table[i][j] = 1 + min(table[i-1][j-1], table[i-1][j], table[i][j-1])
				}
			}
		}
		if got, want := edits(a, b), min(table[len(a)][len(b)], maxEdits+1); got != want {
			t.Errorf("edits(%q, %q) = %d, want %d", a, b, got, want)
		}
	})
}

func TestNearestIsBounded(t *testing.T) {
	t.Parallel()
	if got := nearest(strings.Repeat("x", longestName+1), DefaultScopes()); got != nil {
		t.Errorf("got %v", got)
	}
	if got := nearest("organizations.nothing", DefaultScopes()); len(got) != maxNearest {
		t.Errorf("got %v", got)
	}
}
