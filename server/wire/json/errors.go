package json

import (
	"fmt"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// A SyntaxError says that a body is not one JSON object, and where it stops
// being one. It never quotes the body.
type SyntaxError struct {
	Offset       int // bytes before the place
	Line, Column int // from 1; the column counts bytes
	Problem      string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("the body is not valid JSON: %s at line %d, column %d", e.Problem, e.Line, e.Column)
}

// problems collects the faulty fields of a request, in the order in which they
// stand there, by the names that the caller wrote, with dots and indexes below
// the first level: rate_limit.requests, scopes[2]. Of an overlong name
// an excerpt is told, so that a secret in the place of a name is not repeated.
type problems struct{ list []apikey.FieldProblem }

func (p *problems) add(field, text string) {
	if len(p.list) <= apikey.MaxFields { // a body of a megabyte can hold a hundred thousand
		p.list = append(p.list, apikey.FieldProblem{Field: apikey.Excerpt(field), Problem: text})
	}
}

func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	return apikey.InvalidFields(p.list)
}
