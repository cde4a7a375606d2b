package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// validator checks requests against the rules in their protos, and finds secrets where
// none belongs.
type validator struct {
	rules   protovalidate.Validator
	secrets *apikey.SecretFinder
}

func newValidator(secrets *apikey.SecretFinder) (*validator, error) {
	v, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("compile the rules of the protos: %w", err)
	}
	return &validator{v, secrets}, nil
}

// faults returns the faulty fields of a request: those whose texts hold a secret, and
// those that the rules of its proto refuse.
func (v *validator) faults(req any) (pasted, refused faults, err error) {
	m, ok := req.(proto.Message)
	if !ok {
		return nil, nil, nil
	}
	// The messages of the hot path are checked by hand, in a tenth of the time.
	switch r := req.(type) {
	case *apikeysv1.VerifyApiKeyRequest:
		if v.withinBounds(r) {
			return nil, nil, nil
		}
	case *apikeysv1.BatchVerifyApiKeysRequest:
		if len(r.GetKeys()) <= 1000 && !slices.ContainsFunc(r.GetKeys(), func(k *apikeysv1.VerifyApiKeyRequest) bool { return !v.withinBounds(k) }) {
			return nil, nil, nil
		}
	}
	pasted = pastedSecrets(v.secrets, m)
	if err := v.rules.Validate(m); err != nil {
		var invalid *protovalidate.ValidationError
		if !errors.As(err, &invalid) {
			return nil, nil, fmt.Errorf("validate request: %w", err)
		}
		for _, violation := range invalid.Violations {
			refused = append(refused, v.problem(m.ProtoReflect().Descriptor(), violation.Proto))
		}
	}
	return pasted, refused, nil
}

// problem returns what a broken rule says, as the end of a sentence that begins
// with the field. Some rules name their subject, which the field stands for, and a
// pattern is nothing that a person can act on.
func (v *validator) problem(request protoreflect.MessageDescriptor, broken *validate.Violation) apikey.FieldProblem {
	field, key, isEntry := entry(broken.GetField())
	key = v.secrets.Excerpt(key)
	text := strings.TrimPrefix(strings.TrimPrefix(broken.GetMessage(), "value "), "map ")
	switch broken.GetRuleId() {
	case "string.pattern":
		text = "must not contain control characters" // what all of our patterns refuse, with what acts like one
	case "string.min_len":
		text = "must not be empty" // no bound of ours is above 1
	case "repeated.min_items", "repeated.max_items", "map.max_pairs":
		text = entriesText(rulesOf(fieldOf(request, broken.GetField())))
	case "enum.defined_only", "enum.in":
		text = wordsText(fieldOf(request, broken.GetField()))
	}
	switch {
	case isEntry && broken.GetForKey():
		text = fmt.Sprintf("has the key %q; a key %s", key, text)
	case isEntry:
		field += "." + key
	}
	return apikey.FieldProblem{Field: field, Problem: text}
}

// fieldOf returns the field of a message that a path leads to, or to whose entry.
func fieldOf(md protoreflect.MessageDescriptor, path *validate.FieldPath) (fd protoreflect.FieldDescriptor) {
	for _, element := range path.GetElements() {
		fd = md.Fields().ByNumber(protoreflect.FieldNumber(element.GetFieldNumber()))
		md = fd.Message()
	}
	return fd
}

// rulesOf returns the rules of a field.
func rulesOf(fd protoreflect.FieldDescriptor) *validate.FieldRules {
	rules, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	return rules
}

// entriesText says how many entries a list or a map must have.
func entriesText(rules *validate.FieldRules) string {
	list := rules.GetRepeated()
	most := max(list.GetMaxItems(), rules.GetMap().GetMaxPairs())
	if least := list.GetMinItems(); least > 0 {
		return fmt.Sprintf("must have %d to %d entries", least, most)
	}
	return fmt.Sprintf("must have at most %d entries", most)
}

// wordsText says which words an enum field takes: those of its rule, or all.
func wordsText(fd protoreflect.FieldDescriptor) string {
	rules := rulesOf(fd)
	in := rules.GetEnum().GetIn()
	if fd.IsList() {
		in = rules.GetRepeated().GetItems().GetEnum().GetIn()
	}
	return wirejson.EnumText(fd.Enum(), in...)
}

// entry returns the field of a path as the caller knows it, and the key of the
// entry of a map that the path leads to. An update carries the resource in a field
// of its own, which is of no interest to whoever sent it.
func entry(path *validate.FieldPath) (field, key string, isEntry bool) {
	elements := path.GetElements()
	if n := len(elements); n > 0 {
		if last, ok := elements[n-1].GetSubscript().(*validate.FieldPathElement_StringKey); ok {
			key, isEntry = last.StringKey, true
			field, _, _ = strings.Cut(protovalidate.FieldPathString(path), `["`)
		}
	}
	if !isEntry {
		field = protovalidate.FieldPathString(path)
	}
	return withoutResource(field), key, isEntry
}

// withinBounds reports whether a request is well inside all bounds of its proto. One
// that is not goes through the rules, which find the words.
func (v *validator) withinBounds(r *apikeysv1.VerifyApiKeyRequest) bool {
	if len(r.GetScopes()) > 100 || len(r.GetIp()) > 128 || len(r.GetUserAgent()) > 8192 || v.secrets.In(r.GetIp()) || r.GetCost() < 0 || r.GetCost() > 1_000_000 {
		return false
	}
	for _, s := range r.GetScopes() {
		if len(s) > 128 || v.secrets.In(s) {
			return false
		}
	}
	return true
}

// withoutResource returns the name of a field of a request without the level of the
// resource that it is of, which callers over REST do not see.
func withoutResource(name string) string {
	for _, resource := range []string{"api_key.", "webhook.", "operator_token."} {
		if below, ok := strings.CutPrefix(name, resource); ok {
			return below
		}
	}
	return name
}
