package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// validator judges requests by the rules in their protos.
type validator struct{ rules protovalidate.Validator }

func newValidator() (*validator, error) {
	v, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("compile the rules of the protos: %w", err)
	}
	return &validator{v}, nil
}

// check returns an error that names every faulty field of a request, or nil.
func (v *validator) check(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	// The messages of the hot path are judged by hand, in a tenth of the time.
	switch r := req.(type) {
	case *apikeysv1.VerifyApiKeyRequest:
		if plain(r) {
			return nil
		}
	case *apikeysv1.BatchVerifyApiKeysRequest:
		if len(r.GetKeys()) <= 1000 && !slices.ContainsFunc(r.GetKeys(), func(k *apikeysv1.VerifyApiKeyRequest) bool { return !plain(k) }) {
			return nil
		}
	}
	err := v.rules.Validate(m)
	if err == nil {
		return nil
	}
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		return fmt.Errorf("validate request: %w", err)
	}
	problems := make([]apikey.FieldProblem, len(invalid.Violations))
	for i, violation := range invalid.Violations {
		problems[i] = apikey.FieldProblem{
			Field:   resourceField(protovalidate.FieldPathString(violation.Proto.GetField())),
			Problem: problem(violation.Proto.GetRuleId(), violation.Proto.GetMessage()),
		}
	}
	return apikey.InvalidFields(problems)
}

// problem returns what a broken rule says as the end of a sentence that begins
// with the field. Some rules name what they judge, which the field stands for, and
// a pattern is nothing that a person can act on.
func problem(rule, message string) string {
	switch rule {
	case "string.pattern":
		return "must not contain control characters" // what all of our patterns refuse
	case "string.min_len":
		return "must not be empty" // no bound of ours is above 1
	}
	return strings.TrimPrefix(strings.TrimPrefix(message, "value "), "map ")
}

// resourceField returns path as a field of the resource: an update carries the
// resource in a field of its own, which is of no interest to whoever sent it. An
// entry of a map is not named, since its key is text that anything can stand in, a
// secret too.
func resourceField(path string) string {
	path, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "api_key."), "webhook."), `["`)
	return path
}

// plain reports whether a request is well inside all bounds of its proto. One
// that is not goes through the rules, which find the words.
func plain(r *apikeysv1.VerifyApiKeyRequest) bool {
	if len(r.GetScopes()) > 100 || len(r.GetIp()) > 128 || r.GetCost() < 0 || r.GetCost() > 1_000_000 {
		return false
	}
	for _, s := range r.GetScopes() {
		if len(s) > 128 {
			return false
		}
	}
	return true
}
