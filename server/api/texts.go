package api

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// pasted finds the secrets in the texts of one request. It looks at every text
// that there is: fields, elements of lists, keys and values of maps, paths of
// masks. A field that is meant to hold a secret says so in its proto
// (apikeys.v1.may_hold_secret).
type pasted struct {
	secrets *apikey.SecretFinder
	found   faults
}

// pastedSecrets returns the fields of a request whose texts hold a secret. What they
// hold is not repeated.
func pastedSecrets(secrets *apikey.SecretFinder, m proto.Message) faults {
	p := pasted{secrets: secrets}
	p.message(m.ProtoReflect(), "")
	return p.found
}

// text notes that field holds a secret, where text is one. A field is noted once.
func (p *pasted) text(field, text string) {
	if !p.secrets.In(text) {
		return
	}
	for _, f := range p.found {
		if f.Field == field {
			return
		}
	}
	p.found.add(field, apikey.Pasted)
}

// message looks at the fields of m, whose names stand under at.
func (p *pasted) message(m protoreflect.Message, at string) {
	isUpdate := m.Descriptor().Fields().ByName("update_mask") != nil
	for fd, v := range m.Range {
		name := at + string(fd.Name())
		switch {
		case fd.IsMap():
			p.entries(fd, v.Map(), name)
		case fd.IsList():
			for i := range v.List().Len() {
				p.value(fd, v.List().Get(i), name+"["+strconv.Itoa(i)+"]")
			}
		case isUpdate && fd.Name() == "update_mask":
			p.mask(m.Descriptor(), v.Message(), name)
		case isUpdate && fd.Message() != nil:
			// The resource: callers know its fields without the level around it.
			p.message(v.Message(), at)
		default:
			p.value(fd, v, name)
		}
	}
}

// entries looks at a map. Its keys are texts that anything can stand in, so an
// entry is not named.
func (p *pasted) entries(fd protoreflect.FieldDescriptor, m protoreflect.Map, name string) {
	for key, v := range m.Range {
		p.text(name, key.String())
		p.value(fd.MapValue(), v, name)
	}
}

// mask looks at the paths of an update of one of the messages of m. A path that
// names an entry of a map is the map's.
func (p *pasted) mask(m protoreflect.MessageDescriptor, mask protoreflect.Message, name string) {
	paths := mask.Get(mask.Descriptor().Fields().ByName("paths")).List()
	for i := range paths.Len() {
		path := paths.Get(i).String()
		if !p.secrets.In(path) {
			continue
		}
		field := name
		if first, _, ok := strings.Cut(path, "."); ok && isMap(m, protoreflect.Name(first)) {
			field = first
		}
		p.text(field, path)
	}
}

// isMap reports whether name is a map of one of the messages of m.
func isMap(m protoreflect.MessageDescriptor, name protoreflect.Name) bool {
	for i := range m.Fields().Len() {
		if resource := m.Fields().Get(i).Message(); resource != nil {
			if fd := resource.Fields().ByName(name); fd != nil && fd.IsMap() {
				return true
			}
		}
	}
	return false
}

// value looks at one value of fd: a field's, or one of its list or map.
func (p *pasted) value(fd protoreflect.FieldDescriptor, v protoreflect.Value, name string) {
	switch {
	case fd.Message() != nil:
		p.message(v.Message(), name+".")
	case mayHoldSecret(fd):
	case fd.Kind() == protoreflect.StringKind:
		p.text(name, v.String())
	case fd.Kind() == protoreflect.BytesKind:
		p.text(name, string(v.Bytes()))
	}
}

func mayHoldSecret(fd protoreflect.FieldDescriptor) bool {
	may, _ := proto.GetExtension(fd.Options(), apikeysv1.E_MayHoldSecret).(bool)
	return may
}
