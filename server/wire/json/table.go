package json

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A table is what the writer and the reader need to know of one message type,
// worked out once so that a call does not ask the descriptor again.
type table struct {
	fields []field
	byName map[string]*field

	// mask is the field update_mask of a request that is read from a merge
	// patch, resource the message that the patch changes, and etag the
	// request's own field of that name. All nil for every other message.
	mask, resource, etag *field

	// oneof is set for a message that is nothing but one: it is shown as the
	// member that is set, without a name.
	oneof protoreflect.OneofDescriptor
}

// A field is one line of a table.
type field struct {
	desc  protoreflect.FieldDescriptor
	name  string
	key   string // `"name":`, as the writer puts it
	index int
	kind  protoreflect.Kind

	list, dict, time bool
	presence         bool   // unset is null, not a zero value
	readOnly         bool   // marked OUTPUT_ONLY
	value            *field // of a map's entries, else nil
	words            *words // of an enum, else nil

	// marker is the bool field empty_x beside a repeated x, which tells an
	// explicit [] from an absent x. marks is true of empty_x itself: a request
	// does not name it.
	marker protoreflect.FieldDescriptor
	marks  bool
}

// words are the values of an enum as JSON has them: lower case, and without
// the prefix that protobuf wants.
type words struct {
	quoted map[protoreflect.EnumNumber]string
	number map[string]protoreflect.EnumNumber
	want   string // the sentence that lists them
}

// tables holds the table of each message type that was used, by its
// descriptor, and each enum's words.
var tables, enums sync.Map

func tableOf(md protoreflect.MessageDescriptor) *table {
	if t, ok := tables.Load(md); ok {
		return t.(*table)
	}
	t, _ := tables.LoadOrStore(md, newTable(md))
	return t.(*table)
}

func newTable(md protoreflect.MessageDescriptor) *table {
	fds := md.Fields()
	t := &table{fields: make([]field, fds.Len()), byName: make(map[string]*field, fds.Len())}
	for i := range t.fields {
		t.fields[i] = newField(fds.Get(i), i)
		t.byName[t.fields[i].name] = &t.fields[i]
	}
	for i := range t.fields {
		f := &t.fields[i]
		if m := t.byName["empty_"+f.name]; f.list && m != nil && m.kind == protoreflect.BoolKind {
			f.marker, m.marks = m.desc, true
		}
	}
	if all := md.Oneofs(); all.Len() == 1 && !all.Get(0).IsSynthetic() && all.Get(0).Fields().Len() == fds.Len() {
		t.oneof = all.Get(0)
	}
	mask := t.byName["update_mask"]
	if mask == nil || !mask.message() || mask.desc.Message().FullName() != "google.protobuf.FieldMask" {
		return t
	}
	t.mask = mask
	if f := t.byName["etag"]; f != nil && f.kind == protoreflect.StringKind {
		t.etag = f
	}
	for i := range t.fields {
		if f := &t.fields[i]; f != mask && f.message() {
			t.resource = f
		}
	}
	return t
}

func newField(fd protoreflect.FieldDescriptor, index int) field {
	f := field{
		desc:     fd,
		name:     string(fd.Name()),
		key:      strconv.Quote(string(fd.Name())) + ":",
		index:    index,
		kind:     fd.Kind(),
		list:     fd.IsList(),
		dict:     fd.IsMap(),
		presence: fd.HasPresence(),
	}
	if f.dict {
		v := newField(fd.MapValue(), 0)
		f.value = &v
		return f
	}
	if e := fd.Enum(); e != nil {
		f.words = wordsOf(e)
	}
	if m := fd.Message(); m != nil {
		f.time = m.FullName() == "google.protobuf.Timestamp"
	}
	behaviour, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	f.readOnly = slices.Contains(behaviour, annotations.FieldBehavior_OUTPUT_ONLY)
	return f
}

// message reports whether the field holds one message that JSON shows as an
// object.
func (f *field) message() bool {
	return f.desc.Message() != nil && !f.list && !f.dict && !f.time
}

func wordsOf(ed protoreflect.EnumDescriptor) *words {
	if w, ok := enums.Load(ed); ok {
		return w.(*words)
	}
	w, _ := enums.LoadOrStore(ed, newWords(ed))
	return w.(*words)
}

func newWords(ed protoreflect.EnumDescriptor) *words {
	values := ed.Values()
	w := &words{
		quoted: make(map[protoreflect.EnumNumber]string, values.Len()),
		number: make(map[string]protoreflect.EnumNumber, values.Len()),
	}
	prefix := upperSnake(string(ed.Name())) + "_"
	var listed []string
	for i := range values.Len() {
		v := values.Get(i)
		word := strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
		w.quoted[v.Number()] = strconv.Quote(word)
		w.number[word] = v.Number()
		if v.Number() != 0 {
			listed = append(listed, word)
		}
	}
	w.want = "must be one of " + strings.Join(listed, ", ")
	return w
}

// upperSnake turns ApiKeyState into API_KEY_STATE.
func upperSnake(name string) string {
	var b strings.Builder
	for i, c := range name {
		if i > 0 && 'A' <= c && c <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(c)
	}
	return strings.ToUpper(b.String())
}
