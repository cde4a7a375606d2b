package json

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// patch takes a merge patch of t's resource into m. See ReadRequest.
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
	r.mask = append(r.mask, s.prefix+name)
}

// quotePath puts a map's key into the form that a field mask has for it.
func quotePath(key string) string {
	return "`" + strings.ReplaceAll(key, "`", "``") + "`"
}
