package output

import (
	"encoding"
	"fmt"
	"strings"

	"github.com/theory/jsonpath"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// A Format is the form of results. The zero value is a table.
type Format struct {
	kind string
	path *jsonpath.Path
}

var _ encoding.TextUnmarshaler = (*Format)(nil)

// The forms, but for jsonpath=PATH.
const (
	table  = "table"
	asJSON = "json"
	jsonl  = "jsonl"
	asYAML = "yaml"
	ids    = "id"
	secret = "secret"
)

// Formats are the words of all forms.
var Formats = []string{table, asJSON, jsonl, asYAML, ids, secret, "jsonpath="}

// UnmarshalText takes a form's word, or jsonpath= and a path.
func (f *Format) UnmarshalText(text []byte) error {
	*f = Format{kind: string(text)}
	switch f.kind {
	case table, asJSON, jsonl, asYAML, ids, secret:
		return nil
	}
	path, ok := strings.CutPrefix(f.kind, "jsonpath=")
	if !ok {
		return fmt.Errorf("must be table, json, jsonl, yaml, id, secret or jsonpath=PATH, not %q", apikey.Excerpt(f.kind))
	}
	if path = strings.Trim(path, "{}"); path != "" && path[0] != '$' {
		path = "$" + path
	}
	f.kind = "jsonpath"
	var err error
	if f.path, err = jsonpath.Parse(path); err != nil {
		return fmt.Errorf("jsonpath=%s: %w; a path is such as $[*].id or $.rate_limit.requests (RFC 9535)", apikey.Excerpt(path), err)
	}
	return nil
}

// IsSecret reports whether secrets alone are asked for.
func (f Format) IsSecret() bool { return f.kind == secret }

// IsTable reports whether a table is asked for.
func (f Format) IsTable() bool { return f.kind == table || f.kind == "" }

// IsJSON reports whether JSON is asked for, on lines or as one text.
func (f Format) IsJSON() bool { return f.kind == asJSON || f.kind == jsonl }

// IsWhole reports whether a result of several parts is shown as one, not part by part.
func (f Format) IsWhole() bool { return f.kind == asJSON || f.kind == asYAML || f.path != nil }

// IsYAML reports whether YAML is asked for.
func (f Format) IsYAML() bool { return f.kind == asYAML }
