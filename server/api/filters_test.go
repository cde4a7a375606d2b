package api_test

import (
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// TestFiltersTakeEveryActor wants each filter by an actor to take the longest id that an
// actor has: that of a person, an issuer and a subject of 255 characters each.
func TestFiltersTakeEveryActor(t *testing.T) {
	t.Parallel()
	const longest = 255 + 1 + 255
	found := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("apikeys.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Messages().Len() {
			fields := file.Messages().Get(i).Fields()
			for _, name := range []protoreflect.Name{"created_by", "actor"} {
				field := fields.ByName(name)
				if field == nil || field.Kind() != protoreflect.StringKind {
					continue
				}
				found++
				rules, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
				if got := rules.GetString().GetMaxLen(); got != longest {
					t.Errorf("%s takes %d characters, not %d", field.FullName(), got, longest)
				}
			}
		}
		return true
	})
	if found < 6 {
		t.Errorf("there are %d filters by an actor", found)
	}
}
