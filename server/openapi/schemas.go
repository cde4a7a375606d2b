package openapi

import (
	"encoding/json"
	"slices"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// A form is a way in which a message is shown or read.
type form int

const (
	shown   form = iota // by the server: every field is there
	sent                // in a request, or inside one
	patch               // the resource in a merge patch
	replace             // the resource in a PUT, which may hold read-only fields
	changes             // a merge patch in a field, of no resource in particular
)

// suffixes tell the schemas of a message apart.
var suffixes = [...]string{shown: "", sent: "Input", patch: "Patch", replace: "Replacement", changes: "Changes"}

// schemas are the schemas of the document, each made when it is first asked for.
type schemas struct {
	comments comments
	examples map[protoreflect.FullName][]any
	// resources are the golden ones, by the names of their messages.
	resources map[string]proto.Message
	required  map[protoreflect.FullName][]string // of resources, what a creation must name

	byName map[string]object
}

func ref(name string) object { return obj("$ref", "#/components/schemas/"+name) }

// nullable is a schema that takes null besides.
func nullable(schema object) object {
	if kind, ok := schema.get("type").(string); ok && schema.get("$ref") == nil {
		schema = slices.Clone(schema)
		schema.set("type", []string{kind, "null"})
		if words, ok := schema.get("enum").([]string); ok {
			list := make([]any, 0, len(words)+1)
			for _, w := range words {
				list = append(list, w)
			}
			schema.set("enum", append(list, nil))
		}
		return schema
	}
	return obj("anyOf", []any{schema, obj("type", "null")})
}

// message returns a reference to the schema of a message, and makes it.
func (s *schemas) message(md protoreflect.MessageDescriptor, f form) object {
	return ref(s.define(md, f, nil))
}

// body returns a reference to the schema of the body of a request: its fields but those
// that its path gives.
func (s *schemas) body(md protoreflect.MessageDescriptor, rules wirejson.Body) object {
	resource := wirejson.Patched(md)
	switch {
	case resource == nil:
		return ref(s.define(md, sent, rules.Bound))
	case rules.ReadOnly == wirejson.PassReadOnly:
		name := s.define(resource, replace, nil)
		schema := s.byName[name]
		schema.set("required", rules.Required)
		s.byName[name] = schema
		return ref(name)
	}
	return ref(s.define(resource, patch, nil))
}

// define makes the schema of a message, unless it is there, and returns its name.
func (s *schemas) define(md protoreflect.MessageDescriptor, f form, bound []string) string {
	name := string(md.Name())
	if f != sent || !isRequest(name) {
		name += suffixes[f]
	}
	if _, ok := s.byName[name]; ok {
		return name
	}
	s.byName[name] = nil // it may hold itself
	schema := obj()
	if all := wirejson.Bare(md); all != nil {
		var members []any
		for i := range all.Fields().Len() {
			members = append(members, s.message(all.Fields().Get(i).Message(), f))
		}
		schema.set("anyOf", members)
	} else {
		schema = s.object(md, f, bound)
	}
	schema.setIf("description", s.comments[md.FullName()])
	if examples := s.examples[md.FullName()]; f == shown && len(examples) > 0 {
		schema.set("examples", examples)
	} else if example := s.requestExample(md, schema); example != nil {
		schema.set("examples", []any{example})
	}
	s.byName[name] = schema
	return name
}

func isRequest(name string) bool {
	const suffix = "Request"
	return len(name) > len(suffix) && name[len(name)-len(suffix):] == suffix
}

// object is the schema of a message that is an object.
func (s *schemas) object(md protoreflect.MessageDescriptor, f form, bound []string) object {
	properties, required := obj(), []string{}
	for _, field := range wirejson.Fields(md) {
		switch {
		case f == shown:
			required = append(required, field.Name)
		case !field.Sent, slices.Contains(bound, field.Name):
			continue
		case f == changes && wirejson.Identifies(field.Name):
			continue
		case (f == patch || f == replace) && wirejson.Identifies(field.Name): // may be sent, to say what is meant
		case field.ReadOnly && f == replace:
			properties.set(field.Name, obj("description", "Passed over. "+s.comments[field.Desc.FullName()], "readOnly", true))
			continue
		case field.ReadOnly:
			continue
		case f == sent && isRequired(field.Desc):
			required = append(required, field.Name)
		}
		properties.set(field.Name, s.field(md, &field, f))
	}
	schema := obj("type", "object")
	if len(required) > 0 {
		schema.set("required", required)
	}
	schema.set("properties", properties)
	if f != shown {
		schema.set("additionalProperties", false)
	}
	return schema
}

// field is the schema of a field, with null where that can stand for it.
func (s *schemas) field(md protoreflect.MessageDescriptor, field *wirejson.Field, f form) object {
	inner := f
	switch {
	case f == replace && !field.Map, f == changes:
		inner = patch // below the first level they are the same
	case f == sent && field.Patch:
		inner = changes
	}
	schema := s.value(field, inner, rulesOf(field.Desc))
	isBool := field.Desc.Kind() == protoreflect.BoolKind && !field.List && !field.Nullable
	switch {
	case f == shown && field.Nullable,
		f == sent && !isRequired(field.Desc),
		(f == patch || f == replace || f == changes) && !wirejson.Identifies(field.Name) && !isBool && !slices.Contains(s.required[md.FullName()], field.Name):
		schema = nullable(schema)
	}
	schema.setIf("description", s.comments[field.Desc.FullName()])
	return schema
}

// value is the schema of a field that is there.
func (s *schemas) value(field *wirejson.Field, f form, rules *validate.FieldRules) object {
	switch {
	case field.Map:
		return s.mapping(field, f, rules.GetMap())
	case field.List:
		element := *field
		element.List = false
		schema := obj("type", "array", "items", s.value(&element, f, rules.GetRepeated().GetItems()))
		if list := rules.GetRepeated(); list != nil {
			if list.MinItems != nil {
				schema.set("minItems", int64(list.GetMinItems()))
			}
			if list.MaxItems != nil {
				schema.set("maxItems", int64(list.GetMaxItems()))
			}
			if list.GetUnique() {
				schema.set("uniqueItems", true)
			}
		}
		return schema
	case field.Time && f == shown:
		return ref("Time")
	case field.Time && field.Day:
		s.byName["TimeOrDateInput"] = obj("anyOf", []any{ref("TimeInput"), obj("type", "string", "pattern", wirejson.DayPattern)},
			"description", "A time, or a date: its first moment, and as the end of a span its last.")
		return ref("TimeOrDateInput")
	case field.Time:
		return ref("TimeInput")
	case field.Desc.Message() != nil:
		return s.message(field.Desc.Message(), f)
	}
	return s.scalar(field.Desc, rules)
}

// mapping is the schema of a map, whose keys are strings.
func (s *schemas) mapping(field *wirejson.Field, f form, rules *validate.MapRules) object {
	schema := obj("type", "object")
	names := obj()
	if bound(&names, rules.GetKeys()); len(names) > 0 {
		schema.set("propertyNames", names)
	}
	value := s.value(field.Value, f, rules.GetValues())
	if f == patch || f == replace {
		value = nullable(value) // which takes the entry away
	}
	schema.set("additionalProperties", value)
	if rules != nil && rules.MinPairs != nil {
		schema.set("minProperties", int64(rules.GetMinPairs()))
	}
	if rules != nil && rules.MaxPairs != nil {
		schema.set("maxProperties", int64(rules.GetMaxPairs()))
	}
	return schema
}

// scalar is the schema of a value that is neither object nor list.
func (s *schemas) scalar(fd protoreflect.FieldDescriptor, rules *validate.FieldRules) object {
	schema := obj()
	switch fd.Kind() {
	case protoreflect.BoolKind:
		schema.set("type", "boolean")
	case protoreflect.EnumKind:
		return s.enum(fd.Enum(), rules.GetEnum().GetIn())
	case protoreflect.BytesKind:
		schema = obj("type", "string", "contentEncoding", "base64")
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		schema = obj("type", "number", "format", "double")
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		schema = obj("type", "integer", "format", "int32")
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		schema = obj("type", "integer", "format", "int64")
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		schema = obj("type", "integer", "format", "int64", "minimum", 0)
	default:
		schema.set("type", "string")
	}
	bound(&schema, rules)
	return schema
}

// enum is the schema of an enum: a reference to all of its words, or those of the
// numbers in.
func (s *schemas) enum(ed protoreflect.EnumDescriptor, in []int32) object {
	words := wirejson.EnumWords(ed)
	if len(in) > 0 {
		list := make([]string, len(in))
		for i, n := range in {
			list[i] = words[protoreflect.EnumNumber(n)]
		}
		return obj("type", "string", "enum", list)
	}
	name := string(ed.Name())
	if _, ok := s.byName[name]; !ok {
		text := s.comments[ed.FullName()]
		for i := range ed.Values().Len() {
			v := ed.Values().Get(i)
			if c := s.comments[v.FullName()]; c != "" {
				text += "\n* `" + words[v.Number()] + "`: " + c
			}
		}
		schema := obj("type", "string", "enum", wirejson.SentWords(ed))
		schema.setIf("description", text)
		s.byName[name] = schema
	}
	return ref(name)
}

// requestExample returns an example of a body: of a creation or a change, what the golden
// resource has in the fields that the body can have. It is nil where there is no such
// resource.
func (s *schemas) requestExample(md protoreflect.MessageDescriptor, schema object) any {
	name := strings.TrimSuffix(strings.TrimPrefix(string(md.Name()), "Create"), "Request")
	resource := s.resources[name]
	properties, _ := schema.get("properties").(object)
	if resource == nil || properties == nil {
		return nil
	}
	example := obj()
	for _, field := range wirejson.Fields(resource.ProtoReflect().Descriptor()) {
		property, _ := properties.get(field.Name).(object)
		if property == nil || property.get("readOnly") != nil || wirejson.Identifies(field.Name) {
			continue
		}
		example.set(field.Name, json.RawMessage(wirejson.AppendField(nil, resource.ProtoReflect(), field.Desc)))
	}
	return example
}
