package json

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// messageInfo is what the writer and the reader need to know of one message type. It
// is worked out once, so that a call does not ask the descriptor again.
type messageInfo struct {
	fields []fieldInfo
	byName map[string]*fieldInfo

	// mask is the field update_mask of a request that is read from a merge
	// patch, resource the message that the patch changes, and etag the
	// request's own field of that name. All nil for every other message.
	mask, resource, etag *fieldInfo

	// oneof is set for a message that is nothing but one: it is shown as the
	// member that is set, without a name.
	oneof protoreflect.OneofDescriptor
}

// fieldInfo is one field of a message type, or the value of a map's entries.
type fieldInfo struct {
	desc  protoreflect.FieldDescriptor
	name  string
	key   string // `"name":`, as the writer puts it
	index int
	kind  protoreflect.Kind

	isList, isMap, isTime bool
	day                   bool       // of a time: a date is a value too
	hasPresence           bool       // unset is null, not a zero value
	readOnly              bool       // marked OUTPUT_ONLY
	value                 *fieldInfo // of a map's entries, else nil
	enum                  *enumInfo  // nil for other kinds

	// presenceFlag is the bool field empty_x beside a repeated x, which tells an
	// explicit [] from an absent x. isPresenceFlag is true of empty_x itself: a
	// request does not name it.
	presenceFlag   protoreflect.FieldDescriptor
	isPresenceFlag bool

	// mask is the update_mask beside a field update, which is a merge patch in JSON.
	mask protoreflect.FieldDescriptor
}

// enumInfo is the words of an enum. A word is the name of a value in lower case,
// without the prefix that protobuf wants: API_KEY_STATE_ACTIVE is active.
type enumInfo struct {
	quoted map[protoreflect.EnumNumber]string
	number map[string]protoreflect.EnumNumber // of the words that can be sent
	unsent string                             // the word of the zero that cannot be sent, or ""
	want   string                             // the sentence that lists the words
}

// messageInfos and enumInfos hold what was worked out, by descriptor.
var messageInfos, enumInfos sync.Map

func infoOf(md protoreflect.MessageDescriptor) *messageInfo {
	if info, ok := messageInfos.Load(md); ok {
		return info.(*messageInfo)
	}
	info, _ := messageInfos.LoadOrStore(md, newMessageInfo(md))
	return info.(*messageInfo)
}

func newMessageInfo(md protoreflect.MessageDescriptor) *messageInfo {
	fds := md.Fields()
	info := &messageInfo{fields: make([]fieldInfo, fds.Len()), byName: make(map[string]*fieldInfo, fds.Len())}
	for i := range info.fields {
		info.fields[i] = newFieldInfo(fds.Get(i), i)
		info.byName[info.fields[i].name] = &info.fields[i]
	}
	for i := range info.fields {
		f := &info.fields[i]
		if flag := info.byName["empty_"+f.name]; f.isList && flag != nil && flag.kind == protoreflect.BoolKind {
			f.presenceFlag, flag.isPresenceFlag = flag.desc, true
		}
	}
	if all := md.Oneofs(); all.Len() == 1 && !all.Get(0).IsSynthetic() && all.Get(0).Fields().Len() == fds.Len() {
		info.oneof = all.Get(0)
	}
	mask := info.byName["update_mask"]
	if mask == nil || !mask.isMessage() || mask.desc.Message().FullName() != "google.protobuf.FieldMask" {
		return info
	}
	if f := info.byName["update"]; f != nil && f.isMessage() {
		f.mask, mask.isPresenceFlag = mask.desc, true // The patch names the fields.
		return info
	}
	info.mask = mask
	if f := info.byName["etag"]; f != nil && f.kind == protoreflect.StringKind {
		info.etag = f
	}
	for i := range info.fields {
		if f := &info.fields[i]; f != mask && f.isMessage() {
			info.resource = f
		}
	}
	return info
}

func newFieldInfo(fd protoreflect.FieldDescriptor, index int) fieldInfo {
	f := fieldInfo{
		desc:        fd,
		name:        string(fd.Name()),
		key:         strconv.Quote(string(fd.Name())) + ":",
		index:       index,
		kind:        fd.Kind(),
		isList:      fd.IsList(),
		isMap:       fd.IsMap(),
		hasPresence: fd.HasPresence(),
	}
	if f.isMap {
		v := newFieldInfo(fd.MapValue(), 0)
		f.value = &v
		return f
	}
	if e := fd.Enum(); e != nil {
		f.enum = enumInfoOf(e)
	}
	if m := fd.Message(); m != nil {
		f.isTime = m.FullName() == "google.protobuf.Timestamp"
		f.day = f.isTime && (f.name == "since" || f.name == "until")
	}
	behaviour, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	f.readOnly = slices.Contains(behaviour, annotations.FieldBehavior_OUTPUT_ONLY)
	return f
}

// isMessage reports whether the field holds one message that JSON shows as an
// object.
func (f *fieldInfo) isMessage() bool { return f.holdsObjects() && !f.isList && !f.isMap }

// holdsObjects reports whether a value of the field, or an element of its list, is
// an object in JSON.
func (f *fieldInfo) holdsObjects() bool { return f.desc.Message() != nil && !f.isTime }

func enumInfoOf(ed protoreflect.EnumDescriptor) *enumInfo {
	if info, ok := enumInfos.Load(ed); ok {
		return info.(*enumInfo)
	}
	info, _ := enumInfos.LoadOrStore(ed, newEnumInfo(ed))
	return info.(*enumInfo)
}

func newEnumInfo(ed protoreflect.EnumDescriptor) *enumInfo {
	words := EnumWords(ed)
	info := &enumInfo{
		quoted: make(map[protoreflect.EnumNumber]string, len(words)),
		number: make(map[string]protoreflect.EnumNumber, len(words)),
	}
	for i := range ed.Values().Len() {
		v := ed.Values().Get(i)
		info.quoted[v.Number()] = strconv.Quote(words[v.Number()])
		if mayBeSent(v) {
			info.number[words[v.Number()]] = v.Number()
		} else {
			info.unsent = words[v.Number()]
		}
	}
	info.want = EnumText(ed)
	return info
}

// mayBeSent reports whether the word of a value can be sent: the zero is else sent by
// leaving the field out.
func mayBeSent(v protoreflect.EnumValueDescriptor) bool {
	may, _ := proto.GetExtension(v.Options(), apikeysv1.E_MayBeSent).(bool)
	return may || v.Number() != 0
}

// EnumText says which words a field of an enum takes, as the end of a sentence that
// begins with the field: those of the numbers in, or all where there are none.
func EnumText(ed protoreflect.EnumDescriptor, in ...int32) string {
	words := EnumWords(ed)
	var listed []string
	for i := range ed.Values().Len() {
		v := ed.Values().Get(i)
		if mayBeSent(v) && (len(in) == 0 || slices.Contains(in, int32(v.Number()))) {
			listed = append(listed, words[v.Number()])
		}
	}
	return "must be one of " + strings.Join(listed, ", ")
}

// EnumWords returns the word of each number of an enum, the unspecified zero
// included.
func EnumWords(ed protoreflect.EnumDescriptor) map[protoreflect.EnumNumber]string {
	prefix := upperSnake(string(ed.Name())) + "_"
	words := make(map[protoreflect.EnumNumber]string, ed.Values().Len())
	for i := range ed.Values().Len() {
		v := ed.Values().Get(i)
		words[v.Number()] = strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
	}
	return words
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
