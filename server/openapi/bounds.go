package openapi

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// rulesOf returns the bounds of a field in its proto; without any, an empty message.
func rulesOf(fd protoreflect.FieldDescriptor) *validate.FieldRules {
	rules, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	return rules
}

// isRequired reports whether a request must have the field.
func isRequired(fd protoreflect.FieldDescriptor) bool {
	behaviour, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	for _, b := range behaviour {
		if b == annotations.FieldBehavior_REQUIRED {
			return true
		}
	}
	return rulesOf(fd).GetRequired()
}

// bound adds what rules say of one value to its schema.
func bound(schema *object, rules *validate.FieldRules) {
	switch {
	case rules.GetString() != nil:
		boundString(schema, rules.GetString())
	case rules.GetInt32() != nil:
		boundNumber(schema, rules.GetInt32().ProtoReflect())
	case rules.GetInt64() != nil:
		boundNumber(schema, rules.GetInt64().ProtoReflect())
	case rules.GetUint32() != nil:
		boundNumber(schema, rules.GetUint32().ProtoReflect())
	case rules.GetUint64() != nil:
		boundNumber(schema, rules.GetUint64().ProtoReflect())
	case rules.GetDouble() != nil:
		boundNumber(schema, rules.GetDouble().ProtoReflect())
	}
}

func boundString(schema *object, rules *validate.StringRules) {
	for _, b := range []struct {
		keyword string
		value   *uint64
	}{
		{"minLength", rules.MinLen}, {"maxLength", rules.MaxLen}, {"minLength", rules.Len}, {"maxLength", rules.Len},
		{"maxLength", rules.MaxBytes}, // a character has a byte at least
	} {
		if b.value != nil {
			schema.set(b.keyword, int64(*b.value))
		}
	}
	if rules.Pattern != nil {
		if pattern, ok := portable(rules.GetPattern()); ok {
			schema.set("pattern", pattern)
		}
	}
	if len(rules.GetIn()) > 0 {
		schema.set("enum", rules.GetIn())
	}
	if rules.Const != nil {
		schema.set("const", rules.GetConst())
	}
}

// boundNumber reads the bounds of a number by their names, which all kinds of numbers
// share.
func boundNumber(schema *object, rules protoreflect.Message) {
	fields := rules.Descriptor().Fields()
	for _, b := range []struct{ rule, keyword string }{
		{"gte", "minimum"}, {"gt", "exclusiveMinimum"}, {"lte", "maximum"}, {"lt", "exclusiveMaximum"}, {"const", "const"},
	} {
		fd := fields.ByName(protoreflect.Name(b.rule))
		if fd == nil || !rules.Has(fd) {
			continue
		}
		switch v := rules.Get(fd).Interface().(type) {
		case int32:
			schema.set(b.keyword, int64(v))
		case int64:
			schema.set(b.keyword, v)
		case uint32:
			schema.set(b.keyword, int64(v))
		case uint64:
			schema.set(b.keyword, int64(v)) // no bound of ours is beyond what JSON can hold
		}
	}
}

// codePoint is a character of a pattern in a form that ECMA-262 does not have.
var codePoint = regexp.MustCompile(`\\x\{([0-9a-fA-F]+)\}`)

// portable writes a pattern of RE2 so that ECMA-262 reads the same in it: the
// characters that are written as \x{...} stand for themselves there. It reports
// whether that can be done; else the schema does without.
func portable(pattern string) (string, bool) {
	for _, only := range []string{"(?i", "(?s", "(?m", "(?P", "(?U", `\A`, `\z`, `\Q`, `[[:`} {
		if strings.Contains(pattern, only) {
			return "", false
		}
	}
	known := true
	written := codePoint.ReplaceAllStringFunc(pattern, func(escape string) string {
		n, err := strconv.ParseUint(codePoint.FindStringSubmatch(escape)[1], 16, 21)
		known = known && err == nil
		if n < 0x100 {
			return fmt.Sprintf(`\x%02x`, n)
		}
		return string(rune(n))
	})
	return written, known
}
