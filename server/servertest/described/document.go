// Package described holds what a server answers to its OpenAPI document. Tests send
// their requests through a [Transport], and fail where an answer is not as the document
// says: an undescribed path, status, header or member, a null where none is told of, a
// value out of its bounds. A request that succeeds must be described as well.
//
// The schemas are checked by a JSON Schema validator alone, which is light enough for every
// test. The checks of the repository have two validators of OpenAPI check the same exchanges
// again: see Record.
package described

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/apikeys-dev/apikeys/gen"
)

// A Document is an OpenAPI document that exchanges are held to. Its methods are safe
// for concurrent use.
type Document struct {
	root  map[string]any
	paths []path

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema
}

// path is a path of the document, in the order in which paths are tried: a word
// before an id.
type path struct {
	template string
	segments []string
}

// Served returns the document that servers serve.
var Served = sync.OnceValues(func() (*Document, error) { return Load(gen.OpenAPI) })

const location = "mem:///openapi.json"

// Load reads a document. Its objects take further members, since later servers may
// send them; this server must not, so here they do not.
func Load(text []byte) (*Document, error) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	root, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the OpenAPI document is no object")
	}
	closeObjects(root)
	d := &Document{root: root, compiler: jsonschema.NewCompiler(), compiled: make(map[string]*jsonschema.Schema)}
	if err := d.compiler.AddResource(location, root); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	paths, _ := root["paths"].(map[string]any)
	for template := range paths {
		d.paths = append(d.paths, path{template, strings.Split(template, "/")})
	}
	slices.SortFunc(d.paths, func(a, b path) int {
		return strings.Compare(strings.ReplaceAll(a.template, "{", "~"), strings.ReplaceAll(b.template, "{", "~"))
	})
	return d, nil
}

// closeObjects makes every schema that lists properties refuse others.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["properties"].(map[string]any); ok && v["type"] == "object" && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
		for _, e := range v {
			closeObjects(e)
		}
	case []any:
		for _, e := range v {
			closeObjects(e)
		}
	}
}

// find returns the template that a path fits, "" if none does.
func (d *Document) find(target string) string {
	given := strings.Split(target, "/")
	for _, p := range d.paths {
		if slices.EqualFunc(p.segments, given, func(want, got string) bool {
			return want == got || strings.HasPrefix(want, "{") && got != ""
		}) {
			return p.template
		}
	}
	return ""
}

// at returns the object at names, following references, and where it really is. It is
// nil where there is none.
func (d *Document) at(names ...string) (map[string]any, []string) {
	here, place := any(d.root), []string(nil)
	for _, name := range names {
		m, ok := here.(map[string]any)
		if !ok {
			return nil, nil
		}
		here, place = m[name], append(slices.Clip(place), name)
		if m, ok := here.(map[string]any); ok {
			if target, ok := m["$ref"].(string); ok {
				return d.at(append(unescape(target), names[len(place):]...)...)
			}
		}
	}
	m, _ := here.(map[string]any)
	return m, place
}

var pointers = strings.NewReplacer("~1", "/", "~0", "~")

// unescape is the names of a reference.
func unescape(target string) []string {
	names := strings.Split(strings.TrimPrefix(target, "#/"), "/")
	for i, n := range names {
		names[i] = pointers.Replace(n)
	}
	return names
}

var escapes = strings.NewReplacer("~", "~0", "/", "~1", "%", "%25", "{", "%7B", "}", "%7D", " ", "%20", "+", "%2B")

// validate holds a value to the schema at place.
func (d *Document) validate(value any, place []string) error {
	var pointer strings.Builder
	pointer.WriteString("#")
	for _, name := range place {
		pointer.WriteString("/" + escapes.Replace(name))
	}
	schema, err := d.schema(pointer.String())
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func (d *Document) schema(pointer string) (*jsonschema.Schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.compiled[pointer]; known != nil {
		return known, nil
	}
	made, err := d.compiler.Compile(location + pointer)
	if err != nil {
		return nil, fmt.Errorf("the schema at %s: %w", pointer, err)
	}
	d.compiled[pointer] = made
	return made, nil
}

// validateJSON holds a JSON text to the schema at place.
func (d *Document) validateJSON(text []byte, place []string) error {
	if !json.Valid(text) {
		return fmt.Errorf("this is no JSON: %.200s", text)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	return d.validate(value, place)
}
