package json

import (
	"encoding/base64"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// value takes one value that is neither list nor object. When it does not fit
// the field, text is the problem and the value has been taken all the same.
func (r *reader) value(f *fieldInfo) (v protoreflect.Value, text string, err error) {
	kind := r.next()
	switch {
	case kind == jsontext.KindString && f.isText(), kind == jsontext.KindNumber && f.isNumber(),
		(kind == jsontext.KindTrue || kind == jsontext.KindFalse) && f.kind == protoreflect.BoolKind:
	default:
		return v, f.want(), r.skip()
	}
	literal, err := r.literal()
	if err != nil {
		return v, "", err
	}
	switch kind {
	case jsontext.KindString:
		word := string(r.unquote(literal))
		if v, text = f.parse(word); r.body == nil && f.enum != nil && word == f.enum.unsent {
			v, text = protoreflect.ValueOfEnum(0), "" // Append writes it
		}
	case jsontext.KindNumber:
		v, text = f.parseNumber(string(literal))
	default:
		v = protoreflect.ValueOfBool(kind == jsontext.KindTrue)
	}
	return v, text, nil
}

// isText reports whether the field's values are strings in JSON.
func (f *fieldInfo) isText() bool {
	return f.kind == protoreflect.StringKind || f.kind == protoreflect.BytesKind || f.enum != nil || f.isTime
}

func (f *fieldInfo) isNumber() bool {
	return !f.isText() && f.kind != protoreflect.BoolKind && f.desc.Message() == nil
}

// want says what a value must be.
func (f *fieldInfo) want() string {
	switch {
	case f.enum != nil:
		return f.enum.want
	case f.day:
		return "must be a time such as 2026-05-30 20:23:16 or 2026-05-30T20:23:16Z, or a date such as 2026-05-30"
	case f.isTime:
		return "must be a time such as 2026-05-30 20:23:16 or 2026-05-30T20:23:16Z"
	case f.kind == protoreflect.StringKind:
		return "must be a string"
	case f.kind == protoreflect.BytesKind:
		return "must be a string of base64"
	case f.kind == protoreflect.BoolKind:
		return "must be true or false"
	case f.kind == protoreflect.FloatKind || f.kind == protoreflect.DoubleKind:
		return "must be a number"
	}
	return "must be a whole number"
}

// parse turns the text of a textual field into its value. text is the problem
// if there is one.
func (f *fieldInfo) parse(s string) (v protoreflect.Value, text string) {
	switch {
	case f.enum != nil:
		if n, ok := f.enum.number[s]; ok {
			return protoreflect.ValueOfEnum(n), ""
		}
	case f.isTime:
		t, ok := parseTime(s)
		if !ok && f.day {
			t, ok = parseDay(s, f.name == "until")
		}
		if ok {
			return protoreflect.ValueOfMessage(timestamppb.New(t).ProtoReflect()), ""
		}
	case f.kind == protoreflect.StringKind:
		return protoreflect.ValueOfString(s), ""
	default:
		if b, err := base64.StdEncoding.DecodeString(s); err == nil {
			return protoreflect.ValueOfBytes(b), ""
		}
	}
	return v, f.want()
}

// rfc3339 is the form of RFC 3339, which time.Parse takes wider than it says:
// hours of one digit, offsets of a day and more, a comma before the fraction.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// parseTime takes "YYYY-MM-DD HH:MM:SS", which is UTC, and RFC 3339 of any
// zone, within the years that a Timestamp can hold.
func parseTime(s string) (time.Time, bool) {
	if len(s) == len(time.DateTime) && s[10] == ' ' {
		s = s[:10] + "T" + s[11:] + "Z"
	}
	if !rfc3339.MatchString(s) {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, s) // checks the date, and refuses the second 60
	return t, err == nil && timestamppb.New(t).CheckValid() == nil
}

// parseDay takes "YYYY-MM-DD", a day in UTC: its first moment or, where it ends a span,
// its last, which is the first of the next day.
func parseDay(s string, ends bool) (time.Time, bool) {
	t, err := time.Parse(time.DateOnly, s)
	if ends {
		t = t.AddDate(0, 0, 1)
	}
	return t, err == nil && timestamppb.New(t).CheckValid() == nil
}

// parseNumber turns a JSON number into the field's value.
func (f *fieldInfo) parseNumber(lit string) (v protoreflect.Value, text string) {
	switch f.kind {
	case protoreflect.FloatKind:
		x, err := strconv.ParseFloat(lit, 32)
		return protoreflect.ValueOfFloat32(float32(x)), problemIf(err != nil, "is out of range")
	case protoreflect.DoubleKind:
		x, err := strconv.ParseFloat(lit, 64)
		return protoreflect.ValueOfFloat64(x), problemIf(err != nil, "is out of range")
	}
	digits, ok := integer(lit)
	if !ok {
		return v, f.want()
	}
	switch f.kind {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n, err := strconv.ParseUint(digits, 10, 32)
		return protoreflect.ValueOfUint32(uint32(n)), problemIf(err != nil, "must be from 0 to 4294967295")
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		n, err := strconv.ParseUint(digits, 10, 64)
		return protoreflect.ValueOfUint64(n), problemIf(err != nil, "must be from 0 to 18446744073709551615")
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		n, err := strconv.ParseInt(digits, 10, 64)
		return protoreflect.ValueOfInt64(n), problemIf(err != nil, "must be from -9223372036854775808 to 9223372036854775807")
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	return protoreflect.ValueOfInt32(int32(n)), problemIf(err != nil, "must be from -2147483648 to 2147483647")
}

func problemIf(bad bool, text string) string {
	if bad {
		return text
	}
	return ""
}

// integer writes a JSON number out without point and exponent, and reports
// whether it is whole. One too large for any field comes back as digits that
// are too large too, so that a huge exponent costs nothing.
func integer(lit string) (string, bool) {
	if !strings.ContainsAny(lit, ".eE") {
		if lit == "-0" {
			return "0", true
		}
		return lit, true
	}
	sign := ""
	if lit[0] == '-' {
		sign, lit = "-", lit[1:]
	}
	exp := 0
	if i := strings.IndexAny(lit, "eE"); i >= 0 {
		var err error
		if exp, err = strconv.Atoi(lit[i+1:]); err != nil || exp > math.MaxInt32 || exp < math.MinInt32 {
			exp = math.MaxInt32
			if lit[i+1] == '-' {
				exp = math.MinInt32
			}
		}
		lit = lit[:i]
	}
	whole, fraction, _ := strings.Cut(lit, ".")
	exp -= len(fraction)
	digits := strings.TrimLeft(whole+fraction, "0")
	trimmed := strings.TrimRight(digits, "0")
	exp += len(digits) - len(trimmed)
	switch {
	case trimmed == "":
		return "0", true
	case exp < 0:
		return "", false
	}
	return sign + trimmed + strings.Repeat("0", min(exp, 20)), true
}
