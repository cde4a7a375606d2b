package apikey

import (
	"slices"
	"strings"
)

// The bounds of a search for names like one that is wrong: how many names are told,
// how many edits away they may be, and how long the wrong one may be.
const (
	maxNearest  = 3
	maxEdits    = 3
	longestName = 128
)

// nearest returns the names of known that are most like name, which is none of
// them: those a few edits away, the nearest first, or else those of the same
// resource. Its cost is bounded whatever name is.
func nearest(name string, known []string) []string {
	if len(name) > longestName {
		return nil
	}
	name = strings.ToLower(name)
	byEdits := make([][]string, maxEdits+1)
	var siblings []string
	resource, _, _ := strings.Cut(name, ".")
	for _, k := range known {
		if d := edits(name, strings.ToLower(k)); d <= maxEdits {
			byEdits[d] = append(byEdits[d], k)
		}
		if strings.HasPrefix(k, resource+".") {
			siblings = append(siblings, k)
		}
	}
	found := slices.Concat(byEdits...)
	if len(found) == 0 {
		found = siblings
	}
	return found[:min(len(found), maxNearest)]
}

// edits returns how many bytes have to be put in, taken out or replaced to make b
// of a, or more than maxEdits where it is more than that.
func edits(a, b string) int {
	if max(len(a)-len(b), len(b)-len(a)) > maxEdits {
		return maxEdits + 1
	}
	// One row of the table of Wagner and Fischer at a time, and of it the cells that
	// lie within maxEdits of the diagonal: every other has a higher number.
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		from, to := max(1, i-maxEdits), min(len(b), i+maxEdits)
		diagonal := row[from-1]
		if row[from-1] = i; from > 1 {
			row[from-1] = maxEdits + 1
		}
		for j := from; j <= to; j++ {
			above := row[j]
			if j == i+maxEdits {
				above = maxEdits + 1
			}
			replaced := diagonal
			if a[i-1] != b[j-1] {
				replaced++
			}
			diagonal, row[j] = row[j], min(replaced, above+1, row[j-1]+1)
		}
	}
	return min(row[len(b)], maxEdits+1)
}
