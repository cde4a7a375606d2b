package apikey

import (
	"slices"
	"strings"
	"unicode"
)

// LabelProblem returns what is wrong with a label, as the end of a sentence that
// begins with it, or "". A label is there to be read by people: blanks alone, or
// characters that show nothing, are none.
func LabelProblem(label string) string {
	switch {
	case label == "":
		return "is required and must not be empty"
	case !strings.ContainsFunc(label, visible):
		return "must have at least one visible character"
	}
	return ""
}

// visible reports whether r is a letter, digit, mark, number, punctuation or
// symbol.
func visible(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S)
}

// UnknownPath is what is wrong with an update_mask that names something else than
// a mutable field.
const UnknownPath = "names a field that does not exist or cannot be changed"

// Standing returns those of faults, which were found when an update was read,
// that count: all but those of fields that stay as they are. A field is judged
// because it changes, not because it is named, so that a resource can be sent back
// as it was read, whatever the rules have become since. fields are the mutable
// ones, and changed those whose values differ afterwards.
func Standing(faults []FieldProblem, fields, changed []string) []FieldProblem {
	return slices.DeleteFunc(slices.Clone(faults), func(f FieldProblem) bool {
		field := f.Field
		if i := strings.IndexAny(field, ".["); i >= 0 {
			field = field[:i]
		}
		return slices.Contains(fields, field) && !slices.Contains(changed, field)
	})
}
