package json

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ReadQuery fills m from the parameters of a query. They have the names and
// the words that a body has; a list is given by repeating its parameter, by
// commas, or both; an entry of a map of texts by its key: metadata.env=prod. A string that is given without a value is absent. bound are
// the fields that the path has given already: as parameters they are unknown.
//
// Anything wrong is an *apikey.Error that lists all of it, by name.
func ReadQuery(query url.Values, m proto.Message, bound ...string) error {
	if len(query) == 0 {
		return nil
	}
	msg := m.ProtoReflect()
	info := infoOf(msg.Descriptor())
	var p problems
	for _, name := range slices.Sorted(maps.Keys(query)) {
		f := info.byName[name]
		if field, key, isEntry := strings.Cut(name, "."); isEntry {
			if f = info.byName[field]; f == nil || !f.isMap || f.value.kind != protoreflect.StringKind || slices.Contains(bound, field) {
				p.add(name, "is not a known parameter")
			} else if text := f.setEntry(msg, key, query[name]); text != "" {
				p.add(name, text)
			}
			continue
		}
		if f == nil || f.isPresenceFlag || f.isMap || f.isMessage() || slices.Contains(bound, name) {
			p.add(name, "is not a known parameter")
			continue
		}
		if text := f.setText(msg, query[name]); text != "" {
			p.add(name, text)
		}
	}
	return p.err()
}

// setEntry sets an entry of a map to values that came as text. The answer is the
// problem, "" if there is none.
func (f *fieldInfo) setEntry(m protoreflect.Message, key string, values []string) string {
	switch {
	case len(values) > 1:
		return "must be given once"
	case !utf8.ValidString(key), !utf8.ValidString(values[0]):
		return "must be UTF-8"
	}
	m.Mutable(f.desc).Map().Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString(values[0]))
	return ""
}

// setText sets the field to values that came as text. The answer is the
// problem, "" if there is none.
func (f *fieldInfo) setText(m protoreflect.Message, values []string) string {
	if f.isList {
		if f.holdsObjects() {
			return "is not a known parameter"
		}
		values = strings.Split(strings.Join(values, ","), ",")
		if len(values) == 1 && values[0] == "" {
			return ""
		}
	} else if len(values) > 1 {
		return "must be given once"
	}
	for _, s := range values {
		v, text := f.parseText(s)
		switch {
		case text != "":
			return text
		case f.isList && s == "":
			return "must not have an empty element"
		case f.isList:
			m.Mutable(f.desc).List().Append(v)
		default:
			m.Set(f.desc, v)
		}
	}
	return ""
}

// parseText is parse for any field that a parameter can name.
func (f *fieldInfo) parseText(s string) (v protoreflect.Value, text string) {
	switch {
	case !utf8.ValidString(s):
		return v, "must be UTF-8"
	case f.isText():
		return f.parse(s)
	case f.kind == protoreflect.BoolKind:
		return protoreflect.ValueOfBool(s == "true"), problemIf(s != "true" && s != "false", f.want())
	}
	if lit := jsontext.Value(s); lit.Kind() != jsontext.KindNumber || !lit.IsValid() || strings.TrimSpace(s) != s {
		return v, f.want()
	}
	return f.parseNumber(s)
}
