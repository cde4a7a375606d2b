package wire

import (
	"fmt"
	"strings"
)

// maxProblems is how many faulty fields one answer names. A body of a megabyte
// can hold a hundred thousand.
const maxProblems = 50

// A FieldsError lists everything that is wrong with the fields of a request,
// in the order in which they stand there. Each field is named once.
type FieldsError struct {
	Problems []Problem
}

// A Problem says of one field what is wrong with it, as the end of a sentence
// that begins with the field's name: "must be a string".
type Problem struct {
	// Field is the name as the caller wrote it, with dots and indexes below the
	// first level: rate_limit.requests, scopes[2]. An overlong name is cut, so
	// that a secret that slipped into the place of a name is not repeated.
	Field string
	Text  string
}

func (e *FieldsError) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.Field)
		b.WriteByte(' ')
		b.WriteString(p.Text)
	}
	return b.String()
}

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

// problems collects what becomes a FieldsError.
type problems struct {
	list  []Problem
	named map[string]bool
}

func (p *problems) add(field, text string) {
	field = shown(field)
	if len(p.list) == maxProblems || p.named[field] {
		return
	}
	if p.named == nil {
		p.named = make(map[string]bool)
	}
	p.named[field] = true
	p.list = append(p.list, Problem{Field: field, Text: text})
}

func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	return &FieldsError{Problems: p.list}
}

// shown cuts each part of a name that is longer than any name of ours. What is
// left of a secret is what its mask shows anyway.
func shown(field string) string {
	const longest, left = 40, 20
	if len(field) <= longest {
		return field
	}
	parts := strings.Split(field, ".")
	for i, part := range parts {
		if len(part) > longest {
			parts[i] = strings.ToValidUTF8(part[:left], "") + "..."
		}
	}
	if short := strings.Join(parts, "."); len(short) <= 4*longest {
		return short
	}
	return strings.ToValidUTF8(field[:left], "") + "..."
}
