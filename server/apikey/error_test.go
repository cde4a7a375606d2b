package apikey

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func TestErrors(t *testing.T) {
	t.Parallel()
	wrapped := fmt.Errorf("read: %w", ErrNotFound)
	if !errors.Is(wrapped, ErrNotFound) || AsError(wrapped) != ErrNotFound {
		t.Error("ErrNotFound is lost in wrapping")
	}
	if AsError(errors.New("other")) != nil || AsError(nil) != nil {
		t.Error("other errors pass for an Error")
	}
	if InvalidFields(nil) != nil {
		t.Error("no problem is an error")
	}
	err := InvalidFields([]FieldProblem{{"a", "is odd"}, {"b", "is even"}})
	for _, part := range []string{"a is odd", "b is even"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

// TestManyFields counts the faulty fields of a request, whose reader stops to collect
// them.
func TestManyFields(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{
		1:             "a0 is bad.",
		2:             "a0 is bad; 1 more field is not valid.",
		MaxFields - 1: "a0 is bad; 62 more fields are not valid.",
		MaxFields:     "a0 is bad; at least 63 more fields are not valid.",
		3000:          "a0 is bad; at least 63 more fields are not valid.",
	} {
		var problems []FieldProblem
		for i := range n {
			problems = append(problems, FieldProblem{Field: "a" + strconv.Itoa(i), Problem: "is bad"})
		}
		if got := InvalidFields(problems); got.Message != want || len(got.Fields) != min(n, MaxFields) {
			t.Errorf("%d fields: %s (%d of them named)", n, got.Message, len(got.Fields))
		}
	}
}
