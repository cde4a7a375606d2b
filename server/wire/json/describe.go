package json

import (
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A Field is a field of a message as JSON has it. The writer and the reader go by the
// same facts, so a description of the API that is made of Fields says what they do.
type Field struct {
	Desc protoreflect.FieldDescriptor
	Name string
	// List, Map and Time are what the value is; of a Map, Value is what its entries
	// hold.
	List, Map, Time bool
	Value           *Field
	// Nullable reports that the field is null where it is unset, and not a zero value.
	Nullable bool
	// ReadOnly reports that a caller cannot set the field.
	ReadOnly bool
	// Sent reports that a request can name the field: it does not only tell an
	// empty list from an absent one.
	Sent bool
	// Day reports that a date alone is taken for a Time too.
	Day bool
	// Patch reports that the value is a merge patch in a request.
	Patch bool
}

// Object reports whether a value of the field, or an element of its list, is an object.
func (f *Field) Object() bool { return f.Desc.Message() != nil && !f.Time && !f.Map }

// Fields lists the fields of a message, in their order.
func Fields(md protoreflect.MessageDescriptor) []Field {
	info := infoOf(md)
	list := make([]Field, len(info.fields))
	for i := range info.fields {
		list[i] = describe(&info.fields[i])
	}
	return list
}

func describe(f *fieldInfo) Field {
	d := Field{
		Desc: f.desc, Name: f.name, List: f.isList, Map: f.isMap, Time: f.isTime,
		Nullable: f.hasPresence, ReadOnly: f.readOnly, Sent: !f.isPresenceFlag, Day: f.day, Patch: f.mask != nil,
	}
	if f.value != nil {
		v := describe(f.value)
		d.Value = &v
	}
	return d
}

// Bare returns the one-of that is all there is of a message, which JSON shows as the
// member that is set; nil for any other message.
func Bare(md protoreflect.MessageDescriptor) protoreflect.OneofDescriptor { return infoOf(md).oneof }

// Patched returns the resource that a request changes whose body is a merge patch, nil
// for any other request.
func Patched(md protoreflect.MessageDescriptor) protoreflect.MessageDescriptor {
	if info := infoOf(md); info.mask != nil && info.resource != nil {
		return info.resource.desc.Message()
	}
	return nil
}

// Identifies reports whether a field of a resource only says which version of which
// resource a patch means.
func Identifies(name string) bool { return identifies(name) }

// SentWords lists the words of an enum that a request can send, in their order.
func SentWords(ed protoreflect.EnumDescriptor) []string {
	words := EnumWords(ed)
	var list []string
	for i := range ed.Values().Len() {
		if v := ed.Values().Get(i); mayBeSent(v) {
			list = append(list, words[v.Number()])
		}
	}
	return list
}

// The forms of times, as patterns of ECMA-262 and of Go alike: what is written, and
// what is read. That a day is one of its month, a pattern does not say.
const (
	DayPattern      = `^\d{4}-\d{2}-\d{2}$`
	TimePattern     = `^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}$`
	TimeReadPattern = `^\d{4}-\d{2}-\d{2}( \d{2}:\d{2}:\d{2}|T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))$`
)
