package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
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
			refused = append(refused, v.problem(violation.Proto))
		}
	}
	return pasted, refused, nil
}

// problem returns what a broken rule says, as the end of a sentence that begins
// with the field. Some rules name their subject, which the field stands for, and a
// pattern is nothing that a person can act on.
func (v *validator) problem(broken *validate.Violation) apikey.FieldProblem {
	field, key, isEntry := entry(broken.GetField())
	key = v.secrets.Excerpt(key)
	text := strings.TrimPrefix(strings.TrimPrefix(broken.GetMessage(), "value "), "map ")
	switch broken.GetRuleId() {
	case "string.pattern":
		text = "must not contain control characters" // what all of our patterns refuse, with what acts like one
	case "string.min_len":
		text = "must not be empty" // no bound of ours is above 1
	}
	switch {
	case isEntry && broken.GetForKey():
		text = fmt.Sprintf("has the key %q; a key %s", key, text)
	case isEntry:
		field += "." + key
	}
	return apikey.FieldProblem{Field: field, Problem: text}
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
	return strings.TrimPrefix(strings.TrimPrefix(field, "api_key."), "webhook."), key, isEntry
}

// withinBounds reports whether a request is well inside all bounds of its proto. One
// that is not goes through the rules, which find the words.
func (v *validator) withinBounds(r *apikeysv1.VerifyApiKeyRequest) bool {
	if len(r.GetScopes()) > 100 || len(r.GetIp()) > 128 || v.secrets.In(r.GetIp()) || r.GetCost() < 0 || r.GetCost() > 1_000_000 {
		return false
	}
	for _, s := range r.GetScopes() {
		if len(s) > 128 || v.secrets.In(s) {
			return false
		}
	}
	return true
}
