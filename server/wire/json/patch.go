package json

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// patch takes a merge patch of the resource into m. See ReadRequest.
func (r *reader) patch(info *messageInfo, m protoreflect.Message) error {
	resource := m.NewField(info.resource.desc).Message()
	if err := r.object(infoOf(resource.Descriptor()), resource, scope{patch: true}); err != nil {
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
func (r *reader) path(s scope, name string) {
	if s.isTop() && identifies(name) {
		return
	}
	r.mask = append(r.mask, r.pathOf(s)+name)
}

// pathOf returns the beginning of the paths of what is in s.
func (r *reader) pathOf(s scope) string { return strings.TrimPrefix(s.prefix, r.update) }

// readUpdate takes the merge patch that is the field update of a request for many
// resources into m.
func (r *reader) readUpdate(f *fieldInfo, m protoreflect.Message) error {
	resource := m.NewField(f.desc).Message()
	r.update = f.name + "."
	text, err := r.nested(f, resource, scope{prefix: r.update, patch: true})
	if err != nil {
		return err
	}
	if text != "" {
		r.add(f.name, text)
	}
	m.Set(f.desc, protoreflect.ValueOfMessage(resource))
	m.Set(f.mask, protoreflect.ValueOfMessage((&fieldmaskpb.FieldMask{Paths: r.mask}).ProtoReflect()))
	return nil
}

// null notes that f is null: absent, or cleared by a patch.
func (r *reader) null(f *fieldInfo, m protoreflect.Message, s scope) {
	if s.patch && s.isTop() && identifies(f.name) {
		r.add(f.name, "must not be null: leave it out, or send the one of the resource")
		return
	}
	if f.presenceFlag != nil && r.body != nil {
		m.Set(f.presenceFlag, protoreflect.ValueOfBool(true)) // null is an empty list
	}
	if s.patch && f.kind == protoreflect.BoolKind && !f.hasPresence && !f.isList {
		r.add(s.prefix+f.name, "must be true or false") // neither is what null would clear
	} else if s.patch {
		r.path(s, f.name)
	}
	if r.requires(f, s) {
		r.add(f.name, "is required")
	}
}

// passes reports whether f is passed over.
func (r *reader) passes(f *fieldInfo, s scope) bool {
	return s.patch && f.readOnly && r.body.ReadOnly == PassReadOnly && !(s.isTop() && f.name == "id")
}
