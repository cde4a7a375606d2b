package output

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Terminal is the terminal that reads an output. The zero value is none: a file, a
// pipe.
type Terminal struct {
	// Width is how many columns it has; 0 for no terminal.
	Width int
	// Color is whether it shows bold text.
	Color bool
}

// A Column of a table shows what Path finds in a result.
type Column struct {
	Head string
	// Path leads through the result's objects, such as metrics.last_used_at.
	Path string
	// Else leads to what is shown where Path leads to nothing.
	Else string
	// Least is how wide the column is at least, for tables whose rows come one by one.
	Least int
	// Flexible columns are cut where the table is wider than the terminal.
	Flexible bool
}

// A Printer writes the results of one command.
type Printer struct {
	w        io.Writer
	format   Format
	terminal Terminal
	id       string // the member that -o id shows

	columns []Column
	listing bool
	items   int
	rows    [][]string
	widths  []int
	all     []any // for a path
}

// NewPrinter returns a printer of a format to w. With id it is told which member of
// a result -o id shows.
func NewPrinter(w io.Writer, format Format, terminal Terminal, id string) *Printer {
	if terminal.Width > 0 {
		w = SafeWriter(w)
	}
	return &Printer{w: w, format: format, terminal: terminal, id: id}
}

// ErrNoSecret is what -o secret meets where a result has none.
var ErrNoSecret = errors.New("-o secret is for commands that make a secret; use -o json, yaml, id or table")

// One writes the only result of a command.
func (p *Printer) One(text []byte) error {
	if p.format.kind == asJSON || p.format.kind == jsonl {
		return p.write(append(text, '\n'))
	}
	v, err := parse(text)
	if err != nil {
		return err
	}
	switch p.format.kind {
	case asYAML:
		text, err := v.yamlText(false)
		if err != nil {
			return err
		}
		return p.write(text)
	case ids:
		return p.line(v.at(p.id).String())
	case secret:
		secret := v.at("secret")
		if secret == nil {
			return ErrNoSecret
		}
		return p.line(secret.text)
	case "jsonpath":
		return p.found(v.plain())
	}
	return p.details(v)
}

// Begin starts a list, which has these columns as a table.
func (p *Printer) Begin(columns []Column) error {
	p.columns, p.listing = columns, true
	switch p.format.kind {
	case asJSON:
		return p.write([]byte("["))
	case secret:
		return ErrNoSecret
	}
	return nil
}

// Item adds a result to the list.
func (p *Printer) Item(text []byte) error {
	p.items++
	switch p.format.kind {
	case asJSON:
		if p.items > 1 {
			text = append([]byte(","), text...)
		}
		return p.write(text)
	case jsonl:
		return p.write(append(text, '\n'))
	}
	v, err := parse(text)
	if err != nil {
		return err
	}
	switch p.format.kind {
	case asYAML:
		text, err := v.yamlText(true)
		if err != nil {
			return err
		}
		return p.write(text)
	case ids:
		return p.line(v.at(p.id).String())
	case "jsonpath":
		p.all = append(p.all, v.plain())
		return nil
	}
	row := make([]string, len(p.columns))
	for i, c := range p.columns {
		found := v.at(c.Path)
		if found.String() == nothing && c.Else != "" {
			found = v.at(c.Else)
		}
		row[i] = Printable(found.String())
	}
	p.rows = append(p.rows, row)
	return nil
}

// Flush writes what of the list is known and can be written.
func (p *Printer) Flush() error {
	if !p.format.IsTable() {
		return nil
	}
	return p.table()
}

// End finishes the list.
func (p *Printer) End() error {
	switch p.format.kind {
	case asJSON:
		return p.write([]byte("]\n"))
	case asYAML:
		if p.items == 0 {
			return p.line("[]")
		}
	case "jsonpath":
		all := p.all
		if all == nil {
			all = []any{}
		}
		return p.found(all)
	}
	return p.Flush()
}

// found writes what the path finds in a value, a line each: texts as they are, other
// values as JSON.
func (p *Printer) found(in any) error {
	for _, node := range p.format.path.Select(in) {
		text, ok := node.(string)
		if !ok {
			encoded, err := json.Marshal(node)
			if err != nil {
				return fmt.Errorf("write what the path found: %w", err)
			}
			text = string(encoded)
		}
		if err := p.line(text); err != nil {
			return err
		}
	}
	return nil
}

func (p *Printer) line(text string) error { return p.write(append([]byte(text), '\n')) }

func (p *Printer) write(text []byte) error {
	if _, err := p.w.Write(text); err != nil {
		return Error{fmt.Errorf("write the result: %w", err)}
	}
	return nil
}

// Error is what hindered an output.
type Error struct{ Err error }

// Error says what was written and what hindered it.
func (e Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e Error) Unwrap() error { return e.Err }
