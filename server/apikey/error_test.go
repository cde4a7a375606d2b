package apikey

import (
	"errors"
	"fmt"
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
