package json

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// Append appends m to dst in the one JSON form and returns the longer
// slice. The same message always gives the same bytes. A nil message is null.
func Append(dst []byte, m proto.Message) []byte {
	return appendMessage(dst, m.ProtoReflect())
}

// AppendField appends the value that the field fd has in m, without its
// name: the part of an answer that a route selects.
func AppendField(dst []byte, m protoreflect.Message, fd protoreflect.FieldDescriptor) []byte {
	info := infoOf(m.Descriptor())
	return appendField(dst, m, &info.fields[fd.Index()])
}

// AppendWatch appends a message of WatchEvents as a line of a stream has
// it, without the line's end: {"cursor":"...","event":{...}}. Unlike everywhere
// else the event that is unset is left out, since that is how a reader knows a
// heartbeat: {"cursor":"..."}.
func AppendWatch(dst []byte, m *apikeysv1.WatchEventsResponse) []byte {
	dst = AppendString(append(dst, `{"cursor":`...), m.GetCursor())
	if m.GetEvent() != nil {
		dst = Append(append(dst, `,"event":`...), m.GetEvent())
	}
	return append(dst, '}')
}

func appendMessage(dst []byte, m protoreflect.Message) []byte {
	if !m.IsValid() {
		return append(dst, "null"...)
	}
	info := infoOf(m.Descriptor())
	if info.oneof != nil {
		member := m.WhichOneof(info.oneof)
		if member == nil {
			return append(dst, "null"...)
		}
		return appendField(dst, m, &info.fields[member.Index()])
	}
	dst = append(dst, '{')
	for i := range info.fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		f := &info.fields[i]
		dst = append(dst, f.key...)
		dst = appendField(dst, m, f)
	}
	return append(dst, '}')
}

func appendField(dst []byte, m protoreflect.Message, f *fieldInfo) []byte {
	switch {
	case f.isList:
		return appendList(dst, m.Get(f.desc).List(), f)
	case f.isMap:
		return appendMap(dst, m.Get(f.desc).Map(), f.value)
	case f.hasPresence && !m.Has(f.desc):
		return append(dst, "null"...)
	}
	return appendValue(dst, m.Get(f.desc), f)
}

func appendList(dst []byte, l protoreflect.List, f *fieldInfo) []byte {
	dst = append(dst, '[')
	for i := range l.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendValue(dst, l.Get(i), f)
	}
	return append(dst, ']')
}

func appendMap(dst []byte, m protoreflect.Map, value *fieldInfo) []byte {
	if m.Len() == 0 {
		return append(dst, "{}"...)
	}
	type entry struct {
		key   string
		value protoreflect.Value
	}
	var few [8]entry
	entries := few[:0]
	for k, v := range m.Range {
		entries = append(entries, entry{k.String(), v})
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	dst = append(dst, '{')
	for i, e := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, e.key), ':')
		dst = appendValue(dst, e.value, value)
	}
	return append(dst, '}')
}

// appendValue appends one value: a field's, or an element of its list or map.
func appendValue(dst []byte, v protoreflect.Value, f *fieldInfo) []byte {
	switch f.kind {
	case protoreflect.BoolKind:
		return strconv.AppendBool(dst, v.Bool())
	case protoreflect.StringKind:
		return AppendString(dst, v.String())
	case protoreflect.EnumKind:
		if q, ok := f.enum.quoted[v.Enum()]; ok {
			return append(dst, q...)
		}
		return strconv.AppendInt(dst, int64(v.Enum()), 10)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind,
		protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return strconv.AppendInt(dst, v.Int(), 10)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return strconv.AppendUint(dst, v.Uint(), 10)
	case protoreflect.FloatKind:
		return appendFloat(dst, v.Float(), 32)
	case protoreflect.DoubleKind:
		return appendFloat(dst, v.Float(), 64)
	case protoreflect.BytesKind:
		dst = base64.StdEncoding.AppendEncode(append(dst, '"'), v.Bytes())
		return append(dst, '"')
	}
	if f.isTime {
		return appendTimestamp(dst, v.Message())
	}
	return appendMessage(dst, v.Message())
}

// appendFloat appends a number; JSON has none for infinities and NaN, which
// are null.
func appendFloat(dst []byte, x float64, bits int) []byte {
	if math.IsInf(x, 0) || math.IsNaN(x) {
		return append(dst, "null"...)
	}
	return strconv.AppendFloat(dst, x, 'g', -1, bits)
}

func appendTimestamp(dst []byte, m protoreflect.Message) []byte {
	if ts, ok := m.Interface().(*timestamppb.Timestamp); ok {
		return appendTime(dst, ts.AsTime())
	}
	// A dynamic message has the same fields, but not the Go type.
	fds := m.Descriptor().Fields()
	return appendTime(dst, time.Unix(m.Get(fds.ByNumber(1)).Int(), 0).UTC())
}

// appendTime appends t, which is in UTC, as "YYYY-MM-DD HH:MM:SS". Parts of a
// second are cut off.
func appendTime(dst []byte, t time.Time) []byte {
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return append(t.AppendFormat(append(dst, '"'), time.DateTime), '"')
	}
	hour, minute, second := t.Clock()
	return append(dst, '"',
		digit(year/1000), digit(year/100), digit(year/10), digit(year), '-',
		digit(int(month)/10), digit(int(month)), '-', digit(day/10), digit(day), ' ',
		digit(hour/10), digit(hour), ':', digit(minute/10), digit(minute), ':', digit(second/10), digit(second), '"')
}

func digit(n int) byte { return byte('0' + n%10) }

// AppendString appends s as a JSON string. Nothing is escaped that JSON does
// not ask for; a byte that is not UTF-8 becomes U+FFFD.
func AppendString(dst []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, s[start:]...), '"')
}

const hex = "0123456789abcdef"
