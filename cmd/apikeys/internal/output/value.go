package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// A value is a JSON value whose objects keep the order of their members.
type value struct {
	kind jsontext.Kind
	// text is a string without its quotes and escapes; a number, true, false or null
	// as it is written.
	text    string
	names   []string // of an object's members
	members []*value // of an object, or the items of an array
}

// parse reads one JSON text.
func parse(text []byte) (*value, error) {
	v, err := read(jsontext.NewDecoder(bytes.NewReader(text)))
	if err != nil {
		return nil, fmt.Errorf("read a result: %w", err)
	}
	return v, nil
}

func read(d *jsontext.Decoder) (*value, error) {
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	v := &value{kind: token.Kind()}
	switch v.kind {
	case '{':
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			// The next token overwrites a name that is not copied.
			v.names = append(v.names, name.String())
			member, err := read(d)
			if err != nil {
				return nil, err
			}
			v.members = append(v.members, member)
		}
		_, err = d.ReadToken()
	case '[':
		for d.PeekKind() != ']' {
			item, err := read(d)
			if err != nil {
				return nil, err
			}
			v.members = append(v.members, item)
		}
		_, err = d.ReadToken()
	default:
		v.text = token.String()
	}
	return v, err
}

// at returns what a path such as metrics.last_used_at leads to, nil for nothing.
func (v *value) at(path string) *value {
	for name := range strings.SplitSeq(path, ".") {
		if v == nil || v.kind != '{' {
			return nil
		}
		var next *value
		for i, n := range v.names {
			if n == name {
				next = v.members[i]
			}
		}
		v = next
	}
	return v
}

// nothing is the cell of what is not there.
const nothing = "-"

// String returns the value in the words of a table's cell: nothing is -, a list its
// items with commas, an object its members with equals signs.
func (v *value) String() string {
	if v == nil {
		return nothing
	}
	var parts []string
	switch v.kind {
	case 'n':
		return nothing
	case '{':
		for i, name := range v.names {
			parts = append(parts, name+"="+v.members[i].String())
		}
	case '[':
		for _, item := range v.members {
			parts = append(parts, item.String())
		}
	default:
		if v.text == "" {
			return nothing
		}
		return v.text
	}
	if len(parts) == 0 {
		return nothing
	}
	return strings.Join(parts, ",")
}

// plain returns the value as the JSON path knows values. Numbers stay as they are
// written.
func (v *value) plain() any {
	switch v.kind {
	case 'n':
		return nil
	case 't', 'f':
		return v.kind == 't'
	case '0':
		return json.Number(v.text)
	case '{':
		object := make(map[string]any, len(v.names))
		for i, name := range v.names {
			object[name] = v.members[i].plain()
		}
		return object
	case '[':
		list := make([]any, len(v.members))
		for i, item := range v.members {
			list[i] = item.plain()
		}
		return list
	}
	return v.text
}
