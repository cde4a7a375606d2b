package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// An object is a JSON object whose members stay in the order in which they were set.
type object []member

type member struct {
	name  string
	value any
}

// obj returns the object of alternating names and values.
func obj(pairs ...any) object {
	var o object
	for i := 0; i+1 < len(pairs); i += 2 {
		o = append(o, member{pairs[i].(string), pairs[i+1]})
	}
	return o
}

// set adds a member, or replaces its value.
func (o *object) set(name string, value any) {
	for i := range *o {
		if (*o)[i].name == name {
			(*o)[i].value = value
			return
		}
	}
	*o = append(*o, member{name, value})
}

// setIf is set where value is not empty.
func (o *object) setIf(name, value string) {
	if value != "" {
		o.set(name, value)
	}
}

// get returns the value of a member, nil if there is none.
func (o object) get(name string) any {
	for _, m := range o {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// encode returns v as indented JSON in ASCII, so that no editor and no diff shows
// something else than what is there.
func encode(v any) ([]byte, error) {
	plain, err := appendValue(nil, v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, plain, "", " "); err != nil {
		return nil, fmt.Errorf("indent the document: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}

func appendValue(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case string:
		return appendASCII(dst, v), nil
	case json.RawMessage:
		return appendRaw(dst, v)
	case []string:
		list := make([]any, len(v))
		for i, s := range v {
			list[i] = s
		}
		return appendValue(dst, list)
	case []object:
		list := make([]any, len(v))
		for i, o := range v {
			list[i] = o
		}
		return appendValue(dst, list)
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = appendValue(dst, e); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case object:
		dst = append(dst, '{')
		for i, m := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendASCII(dst, m.name), ':')
			var err error
			if dst, err = appendValue(dst, m.value); err != nil {
				return nil, err
			}
		}
		return append(dst, '}'), nil
	}
	return nil, fmt.Errorf("encode a %T", v)
}

// appendRaw appends JSON that is there already, its strings in ASCII.
func appendRaw(dst []byte, raw json.RawMessage) ([]byte, error) {
	if !json.Valid(raw) {
		return nil, fmt.Errorf("this is not JSON: %s", raw)
	}
	for len(raw) > 0 {
		r, size := utf8.DecodeRune(raw)
		if r < utf8.RuneSelf {
			dst = append(dst, raw[0])
		} else {
			dst = appendEscaped(dst, r)
		}
		raw = raw[size:]
	}
	return dst, nil
}

func appendASCII(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r < ' ' || r >= 0x7f:
			dst = appendEscaped(dst, r)
		default:
			dst = append(dst, byte(r))
		}
	}
	return append(dst, '"')
}

// appendEscaped appends a rune as one escape, or as two of a surrogate pair.
func appendEscaped(dst []byte, r rune) []byte {
	if r >= 0x10000 {
		r -= 0x10000
		return fmt.Appendf(dst, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
	}
	return fmt.Appendf(dst, `\u%04x`, r)
}
