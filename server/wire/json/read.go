package json

import (
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/apikeys-dev/apikeys/server/apikey"
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
// When m has an update_mask beside a field update, the patch is the value of update.
//
// An empty object of a map names nothing and so changes nothing. id goes into the
// resource and etag into m, without a path.
func ReadRequest(data []byte, m proto.Message, body Body) error {
	if len(data) == 0 {
		data = []byte("{}")
	}
	return read(data, m, &body)
}

// reader turns one JSON object into a message.
type reader struct {
	*decoder
	problems
	body  *Body    // nil for Read
	given []string // names of the top level, where some are required
	mask  []string // of a patch
	// update is the name of the field whose patch is read, with a dot; "" where the
	// body is the patch.
	update string
}

// problems collects the faulty fields of a request, in the order in which they
// stand there, by the names that the caller wrote, with dots and indexes below
// the first level: rate_limit.requests, scopes[2]. Of an overlong name
// an excerpt is told, so that a secret in the place of a name is not repeated.
type problems struct{ list []apikey.FieldProblem }

func (p *problems) add(field, text string) {
	if field == "" || strings.HasSuffix(field, ".") {
		field += `""` // a name can be empty, and no sentence would show it
	}
	if len(p.list) <= apikey.MaxFields { // a body of a megabyte can hold a hundred thousand
		p.list = append(p.list, apikey.FieldProblem{Field: apikey.Excerpt(field), Problem: text})
	}
}

func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	return apikey.InvalidFields(p.list)
}

// scope is the object that is being read.
type scope struct {
	prefix string // of the names within, with the dot: "" at the top
	patch  bool   // the paths of what is there go into the mask
}

func (s scope) isTop() bool { return s.prefix == "" }

// element names an element of the list f.
func (s scope) element(f *fieldInfo, index int) string {
	return s.prefix + f.name + "[" + strconv.Itoa(index) + "]"
}

func read(data []byte, m proto.Message, body *Body) error {
	r := &reader{decoder: newDecoder(data), body: body}
	err := r.read(m.ProtoReflect())
	r.release(err)
	if err != nil {
		return err
	}
	return r.err()
}

// read takes the body into m.
func (r *reader) read(m protoreflect.Message) error {
	if err := r.start(); err != nil {
		return err
	}
	info := infoOf(m.Descriptor())
	var err error
	if r.body != nil && info.mask != nil && info.resource != nil {
		err = r.patch(info, m)
	} else {
		err = r.object(info, m, scope{})
	}
	if err != nil {
		return err
	}
	return r.end()
}

// object takes the object where the reader stands into m.
func (r *reader) object(info *messageInfo, m protoreflect.Message, s scope) error {
	if err := r.token(); err != nil {
		return err
	}
	for r.next() != jsontext.KindEndObject {
		name, err := r.name()
		if err != nil {
			return err
		}
		f := info.byName[string(name)]
		switch {
		case f == nil:
			r.unknownName = true
			r.add(s.prefix+string(name), "is not a known field")
			err = r.skip()
		case r.passes(f, s):
			err = r.skip()
		default:
			err = r.field(f, m, s)
		}
		if err != nil {
			return err
		}
		if f != nil && r.requires(f, s) {
			r.given = append(r.given, f.name)
		}
	}
	if err := r.token(); err != nil || !s.isTop() || r.body == nil {
		return err
	}
	for _, name := range r.body.Required {
		if info.byName[name] != nil && !slices.Contains(r.given, name) {
			r.add(name, "is required")
		}
	}
	return nil
}

// requires reports whether the body must have f, with a value.
func (r *reader) requires(f *fieldInfo, s scope) bool {
	return s.isTop() && r.body != nil && slices.Contains(r.body.Required, f.name)
}

// refusal says why a caller cannot name f, or "".
func (r *reader) refusal(f *fieldInfo, s scope) string {
	switch {
	case r.body == nil, s.patch && s.isTop() && f.name == "id":
		return ""
	case f.readOnly, s.patch && r.update != "" && s.prefix == r.update && identifies(f.name):
		return "is read-only"
	case f.isPresenceFlag, s.isTop() && !s.patch && slices.Contains(r.body.Bound, f.name):
		return "is not a known field"
	}
	return ""
}

// field takes the value of f.
func (r *reader) field(f *fieldInfo, m protoreflect.Message, s scope) error {
	if text := r.refusal(f, s); text != "" {
		r.add(s.prefix+f.name, text)
		return r.skip()
	}
	switch {
	case r.next() == jsontext.KindNull:
		r.null(f, m, s)
		return r.token()
	case f.isMap:
		return r.readMap(f, m, s)
	case f.mask != nil && r.body != nil:
		return r.readUpdate(f, m)
	case f.isMessage():
		return r.message(f, m, s)
	}
	if s.patch {
		r.path(s, f.name)
	}
	if f.isList {
		return r.readList(f, m, s)
	}
	v, text, err := r.value(f)
	switch {
	case err != nil:
		return err
	case text == "" && s.patch && s.isTop() && identifies(f.name) && v.String() == "":
		text = "must not be empty"
	}
	if text != "" {
		r.add(s.prefix+f.name, text)
		return nil
	}
	m.Set(f.desc, v)
	return nil
}

// message takes the object of a nested message.
func (r *reader) message(f *fieldInfo, m protoreflect.Message, s scope) error {
	v, named := m.NewField(f.desc), len(r.mask)
	text, err := r.nested(f, v.Message(), scope{prefix: s.prefix + f.name + ".", patch: s.patch})
	switch {
	case err != nil:
		return err
	case text != "":
		r.add(s.prefix+f.name, text)
	case !s.patch || !isEmpty(v.Message()):
		m.Set(f.desc, v)
	}
	if s.patch && text == "" && len(r.mask) == named {
		r.path(s, f.name+".*")
	}
	return nil
}

// nested takes an object into m, a value of f. text is the problem if it is none.
func (r *reader) nested(f *fieldInfo, m protoreflect.Message, s scope) (text string, err error) {
	if r.next() != jsontext.KindBeginObject {
		return "must be an object", r.skip()
	}
	return "", r.object(infoOf(f.desc.Message()), m, s)
}

func isEmpty(m protoreflect.Message) bool {
	for range m.Range {
		return false
	}
	return true
}

func (r *reader) readList(f *fieldInfo, m protoreflect.Message, s scope) error {
	if r.next() != jsontext.KindBeginArray {
		r.add(s.prefix+f.name, "must be a list")
		return r.skip()
	}
	if err := r.token(); err != nil {
		return err
	}
	list := m.Mutable(f.desc).List()
	for r.next() != jsontext.KindEndArray {
		var v protoreflect.Value
		var text string
		var err error
		if f.holdsObjects() {
			v = list.NewElement()
			text, err = r.nested(f, v.Message(), scope{prefix: s.element(f, list.Len()) + "."})
		} else {
			v, text, err = r.value(f)
		}
		if err != nil {
			return err
		}
		if text != "" {
			r.add(s.element(f, list.Len()), text)
			v = list.NewElement() // the others keep their places
		}
		list.Append(v)
	}
	if list.Len() == 0 && f.presenceFlag != nil && r.body != nil {
		m.Set(f.presenceFlag, protoreflect.ValueOfBool(true))
	}
	return r.token()
}

// readMap takes an object into a map. Its keys are strings: no message of ours
// has others.
func (r *reader) readMap(f *fieldInfo, m protoreflect.Message, s scope) error {
	if r.next() != jsontext.KindBeginObject {
		r.add(s.prefix+f.name, "must be an object")
		return r.skip()
	}
	if err := r.token(); err != nil {
		return err
	}
	for r.next() != jsontext.KindEndObject {
		r.unknownName = true
		name, err := r.name()
		if err != nil {
			return err
		}
		key := string(name)
		if s.patch {
			r.mask = append(r.mask, apikey.EntryPath(r.pathOf(s)+f.name, key))
		}
		if r.next() == jsontext.KindNull {
			if err := r.token(); err != nil {
				return err
			}
			continue
		}
		entries := m.Mutable(f.desc).Map()
		var v protoreflect.Value
		var text string
		if f.value.holdsObjects() {
			v = entries.NewValue()
			text, err = r.nested(f.value, v.Message(), scope{prefix: s.prefix + f.name + "." + key + "."})
		} else {
			v, text, err = r.value(f.value)
		}
		if err != nil {
			return err
		}
		if text != "" {
			r.add(s.prefix+f.name+"."+key, text)
			continue
		}
		entries.Set(protoreflect.ValueOfString(key).MapKey(), v)
	}
	return r.token()
}
