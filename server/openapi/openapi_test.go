package openapi

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/rest"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

const root = "../.."

// committed is the document that is served.
func committed(t *testing.T) map[string]any {
	t.Helper()
	text, err := os.ReadFile(root + "/gen/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if i := bytes.IndexFunc(text, func(r rune) bool { return r > 0x7e || r < ' ' && r != '\n' }); i >= 0 {
		t.Errorf("the document is not in ASCII: %q", text[i:min(i+20, len(text))])
	}
	var document map[string]any
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	return document
}

// at follows the names into a document.
func at(t *testing.T, v any, names ...string) any {
	t.Helper()
	for i, name := range names {
		m, ok := v.(map[string]any)
		if !ok || m[name] == nil {
			t.Fatalf("there is no %s in %s", name, strings.Join(names[:i], " > "))
		}
		v = m[name]
	}
	return v
}

// TestEveryEndpoint finds each way to call the API in the document.
func TestEveryEndpoint(t *testing.T) {
	t.Parallel()
	document := committed(t)
	endpoints, err := rest.Endpoints()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range endpoints {
		operation := at(t, document, "paths", e.Path, strings.ToLower(e.Method))
		at(t, operation, "operationId")
		at(t, operation, "responses", "500")
		if e.RPC != nil {
			at(t, operation, "summary")
			at(t, operation, "x-required-scopes")
		}
		if strings.ContainsAny(e.Path, "=*:") {
			t.Errorf("%s is no path of OpenAPI", e.Path)
		}
	}
}

// TestReferences follows every reference of the document.
func TestReferences(t *testing.T) {
	t.Parallel()
	document := committed(t)
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if target, ok := v["$ref"].(string); ok {
				at(t, document, strings.Split(strings.TrimPrefix(target, "#/"), "/")...)
			}
			if pattern, ok := v["pattern"].(string); ok {
				if _, err := regexp.Compile(pattern); err != nil {
					t.Errorf("a pattern that Go cannot read: %v", err)
				}
			}
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(document)
}

// TestFacts looks at what generators of others get wrong.
func TestFacts(t *testing.T) {
	t.Parallel()
	document := committed(t)
	schema := func(names ...string) any {
		return at(t, document, append([]string{"components", "schemas"}, names...)...)
	}
	for _, c := range []struct {
		what string
		got  any
		want any
	}{
		{"a word of an enum", schema("ApiKeyState", "enum").([]any)[0], "active"},
		{"int64", schema("ApiKeyMetrics", "properties", "total_requests", "type"), "integer"},
		{"null of a time", schema("ApiKey", "properties", "expires_at", "anyOf").([]any)[1], map[string]any{"type": "null"}},
		{"null of a number", schema("Delivery", "properties", "response_status", "type"), []any{"integer", "null"}},
		{"no null of a list", schema("ApiKey", "properties", "scopes", "type"), "array"},
		{"null in a request", schema("CreateApiKeyRequest", "properties", "scopes", "type"), []any{"array", "null"}},
		{"no null where a field is required", schema("CreateApiKeyRequest", "properties", "label", "type"), "string"},
		{"no null of what cannot be cleared", schema("ApiKeyPatch", "properties", "label", "type"), "string"},
		{"null of an entry in a patch", schema("ApiKeyPatch", "properties", "metadata", "additionalProperties", "type"), []any{"string", "null"}},
		{"a bound", schema("CreateApiKeyRequest", "properties", "label", "maxLength"), 255.0},
		{"a bound of elements", schema("CreateApiKeyRequest", "properties", "scopes", "items", "maxLength"), 128.0},
		{"unknown names", schema("CreateApiKeyRequest", "additionalProperties"), false},
		{"required of a PUT", schema("ApiKeyReplacement", "required"), []any{"label"}},
		{"read-only in a PUT", schema("ApiKeyReplacement", "properties", "created_at", "readOnly"), true},
		{"the envelope", schema("ApiKeyAnswer", "required"), []any{"status", "data", "error", "log", "validator", "support_id", "message", "env"}},
		{"data of an answer", schema("ApiKeyAnswer", "properties", "data", "$ref"), "#/components/schemas/ApiKey"},
		{"an error's null", schema("ApiKeyAnswer", "properties", "error", "type"), "null"},
		{"an optional body", at(t, document, "paths", "/developers/webhooks/{id}/test", "post", "requestBody", "required"), false},
		{"a required body", at(t, document, "paths", "/developers/api_keys", "post", "requestBody", "required"), true},
		{"a scope", at(t, document, "paths", "/developers/api_keys", "post", "x-required-scopes"), []any{"api_keys.create"}},
		{"no credential", at(t, document, "paths", "/healthz", "get", "security"), []any{}},
		{"an id of a second path", at(t, document, "paths", "/api/v1/webhooks/subscriptions/{id}", "put", "operationId"), "updateWebhookInSubscriptionsByPut"},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.what, diff)
		}
	}
	if properties := schema("CreateApiKeyRequest", "properties").(map[string]any); properties["empty_scopes"] != nil || schema("CreateWebhookRequest", "properties").(map[string]any)["collection"] != nil {
		t.Error("a request shows a field that it cannot name")
	}
	for _, format := range []string{"classic", "resource", "standard", "cloudevents"} {
		at(t, document, "webhooks", format, "post", "requestBody", "content")
	}
	at(t, document, "components", "responses", "NotFound", "content", "application/json", "examples", "API_KEY_NOT_FOUND", "value", "error")
}

// TestTimePatterns holds the patterns of times to what is written and read.
func TestTimePatterns(t *testing.T) {
	t.Parallel()
	written := wirejson.AppendField(nil, (&apikeysv1.ApiKey{CreatedAt: timestamppb.New(time.Unix(1e9, 5))}).ProtoReflect(),
		(*apikeysv1.ApiKey)(nil).ProtoReflect().Descriptor().Fields().ByName("created_at"))
	if text := strings.Trim(string(written), `"`); !regexp.MustCompile(wirejson.TimePattern).MatchString(text) {
		t.Errorf("the pattern does not take %s", text)
	}
	pattern := regexp.MustCompile(wirejson.TimeReadPattern)
	for _, text := range []string{
		"2026-05-30 20:23:16", "2026-05-30T20:23:16Z", "2026-05-30T20:23:16.5+02:00", "2026-05-30T20:23:16.123456789-23:59",
		"2026-05-30", "2026-05-30T20:23", "2026-05-30T20:23:16", "2026-05-30 20:23:16Z", "2026-05-30T20:23:16,5Z", "2026-05-30T2:23:16Z",
		"2026-05-30T20:23:16+24:00", "2026-05-30t20:23:16z", "now", "", "-2h",
	} {
		body, _ := json.Marshal(map[string]string{"expires_at": text, "label": "a"})
		err := wirejson.ReadRequest(body, new(apikeysv1.CreateApiKeyRequest), wirejson.Body{})
		if got := pattern.MatchString(text); got != (err == nil) {
			t.Errorf("%q: the pattern says %v, the server %v", text, got, err)
		}
	}
}

func TestPortable(t *testing.T) {
	t.Parallel()
	for give, want := range map[string]string{
		`^[^\p{Cc}\x{202a}-\x{202e}]*$`: "^[^\\p{Cc}\u202a-\u202e]*$",
		`^[\x00-\x1f\x{9f}]$`:           `^[\x00-\x1f\x9f]$`,
		`(?i)a`:                         "",
		`^(?:a|b)$`:                     `^(?:a|b)$`,
	} {
		if got, ok := portable(give); got != want || ok != (want != "") {
			t.Errorf("%s: got %s, want %s", give, got, want)
		}
	}
}

func TestParagraphs(t *testing.T) {
	t.Parallel()
	const give = " One line\n goes on.\n\n   kept as\n   it is\n\n The end.\n"
	if diff := cmp.Diff("One line goes on.\n\n  kept as\n  it is\n\nThe end.", paragraphs(give)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if first, rest := split("Does 1.5 things. And more."); first != "Does 1.5 things." || rest != "And more." {
		t.Errorf("%q, %q", first, rest)
	}
}

// TestReadFailures finds failures in each of their forms.
func TestReadFailures(t *testing.T) {
	t.Parallel()
	source := fstest.MapFS{
		"server/api/errors.go": {Data: []byte("package api\nvar codeOf = map[apikey.Kind]codes.Code{apikey.KindNotFound: codes.NotFound, kindOwn: codes.Aborted}\n")},
		"server/some/some.go": {Data: []byte(`package some
const Reason apikey.Reason = "NOT_THERE"
func f() error {
	_ = apikey.Errorf(apikey.KindNotFound, Reason, "There is no %s" + " here.", x)
	_ = &apikey.Error{Kind: kindOwn, Reason: "TAKEN", Message: "It is " + name + " now."}
	return rowError(place, "WRONG_ROW", "is a wrong one")
}
var rows = []row{{err, "OTHER_ROW", "is another"}}
`)},
		"server/some/some_test.go": {Data: []byte(`package some
var _ = apikey.Errorf(apikey.KindNotFound, "OF_A_TEST", "It is none.")
`)},
		"server/rest/failure.go": {Data: []byte("package rest\nvar e = &failure{status: http.StatusGone, reason: \"TEA\", text: \"It is a teapot.\"}\n")},
	}
	all, err := readFailures(source)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[failureKey]string)
	for _, f := range all {
		got[failureKey{f.status, f.reason}] = f.text
	}
	for key, want := range map[failureKey]string{
		{404, "NOT_THERE"}: "There is no … here.", {409, "TAKEN"}: "It is … now.", {400, "WRONG_ROW"}: "after is a wrong one.",
		{400, "OTHER_ROW"}: "after is another.", {410, "TEA"}: "It is a teapot.", {503, "UNAVAILABLE"}: "The server cannot answer now. Try again in a moment.",
		{404, "OF_A_TEST"}: "",
	} {
		if got[key] != want {
			t.Errorf("%v: got %q, want %q", key, got[key], want)
		}
	}
	delete(source, "server/api/errors.go")
	if _, err := readFailures(source); err == nil {
		t.Error("failures are found without the table of codes")
	}
}

// TestMake makes the document twice, without comments that buf would have.
func TestMake(t *testing.T) {
	t.Parallel()
	set := &descriptorpb.FileDescriptorSet{}
	if _, err := Make(nil, os.DirFS(root)); err == nil {
		t.Error("the document is made without an image")
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("apikeys/v1/x.proto"), Syntax: proto.String("proto3"), Package: proto.String("apikeys.v1"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("ApiKey")}},
		SourceCodeInfo: &descriptorpb.SourceCodeInfo{Location: []*descriptorpb.SourceCodeInfo_Location{
			{Path: []int32{4, 0}, Span: []int32{1, 2, 3}, LeadingComments: proto.String(" A key.\n")},
		}},
	}
	if _, err := protodesc.NewFile(file, nil); err != nil {
		t.Fatal(err)
	}
	set.File = append(set.File, file)
	image, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	first, err := Make(image, os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	second, err := Make(image, os.DirFS(root))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("the document is not the same twice: %v", err)
	}
	if !bytes.Contains(first, []byte(`"description": "A key."`)) {
		t.Error("a comment is no description")
	}
	if _, err := Make(image, fstest.MapFS{}); err == nil {
		t.Error("the document is made without a source")
	}
}
