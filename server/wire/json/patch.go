package json

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// patch takes a merge patch of t's resource into m. See ReadRequest.
func (r *reader) patch(info *messageInfo, m protoreflect.Message) error {
	resource := m.NewField(info.resource.desc).Message()
	if err := r.object(infoOf(resource.Descriptor()), resource, "", true); err != nil {
		return err
	}
	if fd := resource.Descriptor().Fields().ByName("etag"); fd != nil && info.etag != nil {
		m.Set(info.etag.desc, resource.Get(fd))
		resource.Clear(fd)
	}
	m.Set(info.resource.desc, protoreflect.ValueOfMessage(resource))
	m.Set(info.mask.desc, protoreflect.ValueOfMessage((&fieldmaskpb.FieldMask{Paths: r.mask}).ProtoReflect()))
	return nil
}

// identifies reports whether a field of a resource only says which version of
// which resource is meant, and so changes nothing.
func identifies(name string) bool { return name == "id" || name == "etag" }

// path puts a path into the mask.
func (r *reader) path(at, name string) {
	if at == "" && identifies(name) {
		return
	}
	r.mask = append(r.mask, at+name)
}

// quotePath puts a map's key into the form that a field mask has for it.
func quotePath(key string) string {
	return "`" + strings.ReplaceAll(key, "`", "``") + "`"
}

// readMap takes an object into a map. Its keys are strings: no message of ours
// has others.
func (r *reader) readMap(f *fieldInfo, m protoreflect.Message, at string, patch bool) error {
	if r.next() != '{' {
		r.add(at+f.name, "must be an object")
		return r.skip()
	}
	if err := r.open(); err != nil {
		return err
	}
	var seen names
	for first := true; ; first = false {
		more, err := r.more('}', first)
		if !more || err != nil {
			return err
		}
		name, err := r.name()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return r.fail("a name that was there before")
		}
		key := string(name)
		if patch {
			r.path(at+f.name+".", quotePath(key))
		}
		if r.next() == 'n' {
			if err := r.word("null"); err != nil {
				return err
			}
			continue
		}
		entries := m.Mutable(f.desc).Map()
		var v protoreflect.Value
		var text string
		if !f.value.holdsObjects() {
			v, text, err = r.value(f.value)
		} else {
			v = entries.NewValue()
			text, err = r.nested(f.value, v.Message(), at+f.name+"."+key, false)
		}
		if err != nil {
			return err
		}
		if text != "" {
			r.add(at+f.name+"."+key, text)
			continue
		}
		entries.Set(protoreflect.ValueOfString(key).MapKey(), v)
	}
}
