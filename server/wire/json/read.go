package json

import (
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Read fills m, which is empty, from what Append wrote. It is as
// strict as ReadRequest, but takes read-only fields and knows no patches.
func Read(data []byte, m proto.Message) error {
	return read(data, m, nil)
}

// A Body says about a request body what the message type does not.
type Body struct {
	// Bound are the fields of the message that the path has given already. In
	// the body they are unknown.
	Bound []string
	// Required are names that the body must have, with a value.
	Required []string
	// ReadOnly is what becomes of the fields that a caller cannot set.
	ReadOnly ReadOnly
}

// ReadOnly is what becomes of the read-only fields of a body.
type ReadOnly int

const (
	// RefuseReadOnly makes them faults: a body that names what is to change must
	// not name what cannot.
	RefuseReadOnly ReadOnly = iota
	// PassReadOnly passes them over, whatever they hold: a resource can be sent
	// back as it was read.
	PassReadOnly
)

// ReadRequest fills m from the body of a request. An empty body is the empty
// object. Names are the ones of the proto, null is an absent field, and what a
// caller cannot set is refused.
//
// A body that is not one JSON object is a *SyntaxError; anything wrong with
// its fields is an *apikey.Error that lists all of it. After an error m is of no
// use.
//
// When m has an update_mask, the body is a merge patch (RFC 7396) of the
// resource that m carries. What it names goes into the resource, and its path
// into the mask, in the order of the body; null leaves the field unset. Paths:
//
//	label                 the field, its list or its time
//	rate_limit.requests   a field of a nested message, as deep as it goes
//	rate_limit            a nested message that is null
//	rate_limit.*          a nested message of which the body names no field
//	metadata.`key`        one entry of a map; a backtick in the key is doubled
//	metadata              a map that is null
//
// An empty object of a map names nothing and so changes nothing. id goes into the
// resource and etag into m, without a path.
func ReadRequest(data []byte, m proto.Message, body Body) error {
	if len(data) == 0 {
		data = []byte("{}")
	}
	return read(data, m, &body)
}

// A reader turns one JSON object into a message.
type reader struct {
	scanner
	problems
	body *Body    // nil for Read
	mask []string // of a patch
}

func read(data []byte, m proto.Message, body *Body) error {
	r := &reader{scanner: scanner{data: data}, body: body}
	if !utf8.Valid(data) {
		r.pos = invalidAt(data)
		return r.fail("a byte that is not UTF-8")
	}
	msg := m.ProtoReflect()
	info := infoOf(msg.Descriptor())
	if r.next() != '{' {
		return r.fail("expected an object")
	}
	var err error
	if body != nil && info.mask != nil && info.resource != nil {
		err = r.patch(info, msg)
	} else {
		err = r.object(info, msg, "", false)
	}
	if err != nil {
		return err
	}
	if r.next(); r.pos < len(data) {
		return r.fail("something after the object")
	}
	return r.err()
}

// invalidAt is the place of the first byte that is not UTF-8.
func invalidAt(data []byte) int {
	for i := 0; ; {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size <= 1 {
			return i
		}
		i += size
	}
}

// object takes the object where the reader stands into m. at is what its
// names stand under, with the dot, "" at the top. In a patch the paths of what
// is there go into the mask.
func (r *reader) object(info *messageInfo, m protoreflect.Message, at string, patch bool) error {
	if err := r.open(); err != nil {
		return err
	}
	var few [32]bool
	seen := few[:]
	if len(info.fields) > len(few) {
		seen = make([]bool, len(info.fields))
	}
	var unknown names
	for first := true; ; first = false {
		more, err := r.more('}', first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		name, err := r.name()
		if err != nil {
			return err
		}
		f := info.byName[string(name)]
		if f == nil || seen[f.index] {
			if f != nil || !unknown.add(name) {
				return r.fail("a name that was there before")
			}
			r.add(at+string(name), "is not a known field")
			if err := r.skip(); err != nil {
				return err
			}
			continue
		}
		seen[f.index] = true
		if r.passes(f, at, patch) {
			if err := r.skip(); err != nil {
				return err
			}
			continue
		}
		if text := r.refusal(f, at, patch); text != "" {
			r.add(at+f.name, text)
			if err := r.skip(); err != nil {
				return err
			}
			continue
		}
		if err := r.field(f, m, at, patch); err != nil {
			return err
		}
	}
	if at == "" && r.body != nil {
		for _, name := range r.body.Required {
			if f := info.byName[name]; f != nil && !seen[f.index] {
				r.add(name, "is required")
			}
		}
	}
	return nil
}

// passes reports whether f is passed over.
func (r *reader) passes(f *fieldInfo, at string, patch bool) bool {
	return patch && f.readOnly && r.body.ReadOnly == PassReadOnly && !(at == "" && f.name == "id")
}

// refusal says why a caller cannot name f, or "".
func (r *reader) refusal(f *fieldInfo, at string, patch bool) string {
	switch {
	case r.body == nil, patch && at == "" && f.name == "id":
		return ""
	case f.readOnly:
		return "is read-only"
	case f.isPresenceFlag, at == "" && !patch && slices.Contains(r.body.Bound, f.name):
		return "is not a known field"
	}
	return ""
}

// field takes the value of f.
func (r *reader) field(f *fieldInfo, m protoreflect.Message, at string, patch bool) error {
	c := r.next()
	if c == 'n' {
		if patch && at == "" && identifies(f.name) {
			r.add(f.name, "must not be null: leave it out, or send the one of the resource")
			return r.word("null")
		}
		if f.presenceFlag != nil && r.body != nil {
			m.Set(f.presenceFlag, protoreflect.ValueOfBool(true)) // null is an empty list
		}
		if patch && f.kind == protoreflect.BoolKind && !f.hasPresence && !f.isList {
			r.add(at+f.name, "must be true or false") // neither is what null would clear
		} else if patch {
			r.path(at, f.name)
		}
		if at == "" && r.body != nil && slices.Contains(r.body.Required, f.name) {
			r.add(f.name, "is required")
		}
		return r.word("null")
	}
	if f.isMap {
		return r.readMap(f, m, at, patch)
	}
	if f.isMessage() {
		sub, named := m.NewField(f.desc), len(r.mask)
		text, err := r.nested(f, sub.Message(), at+f.name, patch)
		if text != "" {
			r.add(at+f.name, text)
		} else if !patch || !empty(sub.Message()) {
			m.Set(f.desc, sub)
		}
		if patch && text == "" && len(r.mask) == named {
			r.path(at, f.name+".*")
		}
		return err
	}
	if patch {
		r.path(at, f.name)
	}
	if f.isList {
		return r.readList(f, m, at)
	}
	v, text, err := r.value(f)
	if err != nil {
		return err
	}
	if patch && at == "" && identifies(f.name) && text == "" && v.String() == "" {
		text = "must not be empty"
	}
	if text != "" {
		r.add(at+f.name, text)
		return nil
	}
	m.Set(f.desc, v)
	return nil
}

// nested takes an object into m, a value of f that is called name.
func (r *reader) nested(f *fieldInfo, m protoreflect.Message, name string, patch bool) (text string, err error) {
	if r.next() != '{' {
		return "must be an object", r.skip()
	}
	return "", r.object(infoOf(f.desc.Message()), m, name+".", patch)
}

// empty reports whether no field of m is set.
func empty(m protoreflect.Message) bool {
	for range m.Range {
		return false
	}
	return true
}

func (r *reader) readList(f *fieldInfo, m protoreflect.Message, at string) error {
	if r.next() != '[' {
		r.add(at+f.name, "must be a list")
		return r.skip()
	}
	if err := r.open(); err != nil {
		return err
	}
	list := m.Mutable(f.desc).List()
	for i := 0; ; i++ {
		more, err := r.more(']', i == 0)
		if err != nil {
			return err
		}
		if !more {
			if i == 0 && f.presenceFlag != nil && r.body != nil {
				m.Set(f.presenceFlag, protoreflect.ValueOfBool(true))
			}
			return nil
		}
		var v protoreflect.Value
		var text string
		if !f.holdsObjects() {
			v, text, err = r.value(f)
		} else {
			v = list.NewElement()
			text, err = r.nested(f, v.Message(), at+f.name+"["+strconv.Itoa(i)+"]", false)
		}
		if err != nil {
			return err
		}
		if text != "" {
			r.add(at+f.name+"["+strconv.Itoa(i)+"]", text)
			v = list.NewElement() // the others keep their places
		}
		list.Append(v)
	}
}
