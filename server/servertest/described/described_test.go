package described

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/gen"
)

const (
	head, tail = `{"status":200,"data":`, `,"error":null,"log":null,"validator":null,"support_id":null,"message":"API key found","env":"development"}`
	notFound   = `{"status":404,"data":null,"error":"No.","log":{"reason":"API_KEY_NOT_FOUND","request_id":"request_1"},"validator":null,"support_id":"support_1","message":null,"env":"development"}`
)

// key is the document's own example of a key, so that it has the fields of today.
var key = func() string {
	var document struct {
		Components struct {
			Schemas struct {
				Key struct{ Examples []map[string]any } `json:"ApiKey"`
			}
		}
	}
	if err := json.Unmarshal(gen.OpenAPI, &document); err != nil {
		panic(err)
	}
	example := document.Components.Schemas.Key.Examples[0]
	example["label"], example["created_at"], example["revoked_at"] = "A", "2025-06-30 15:05:47", nil
	example["metrics"].(map[string]any)["total_requests"] = 0
	text, err := json.Marshal(example)
	if err != nil {
		panic(err)
	}
	return string(text)
}()

// exchange is a request, with a body where sent is not empty, and its answer.
func exchange(method, target, sent string, status int, body string, header ...string) *Exchange {
	x := &Exchange{
		Method: method, Target: target, Request: http.Header{}, Sent: []byte(sent), Status: status,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body),
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		if name, ok := strings.CutPrefix(name, ">"); ok {
			x.Request.Set(name, value)
		} else {
			x.Header.Set(name, value)
		}
	}
	return x
}

// TestCheck holds exchanges to the document of the server.
func TestCheck(t *testing.T) {
	t.Parallel()
	const path = "/developers/api_keys"
	good := head + key + tail
	d, err := Served()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		x     *Exchange
		fault string // "" for none
	}{
		"good":                     {exchange("GET", path+"/api_key_1", "", 200, good, `ETag: "1"`), ""},
		"HEAD":                     {exchange("HEAD", path+"/api_key_1", "", 200, ""), ""},
		"OPTIONS":                  {exchange("OPTIONS", path, "", 200, head+"null"+tail, "Allow: GET, HEAD, POST, OPTIONS"), ""},
		"a failure":                {exchange("GET", path+"/x", "", 404, notFound), ""},
		"no path":                  {exchange("GET", "/nowhere", "", 404, notFound), ""},
		"no method":                {exchange("PUT", path, "", 405, strings.NewReplacer("404", "405", "API_KEY_NOT_FOUND", "METHOD_NOT_ALLOWED").Replace(notFound), "Allow: POST"), ""},
		"a query":                  {exchange("GET", path+"?page_size=10&q=&state=active&expires_before=2026-05-30T20:23:16Z", "", 200, head+"["+key+"]"+tail, "Link: <x>"), ""},
		"lines":                    {exchange("GET", "/developers/events/watch?types=a,b&types=c", "", 200, "{\"cursor\":\"a\"}\n{\"cursor\":\"b\"}\n{\"cur", "Content-Type: application/x-ndjson"), ""},
		"events":                   {exchange("GET", "/developers/events/watch", "", 200, ": heartbeat\nid: a\n\nevent: error\ndata: "+notFound+"\n\nid: b", "Content-Type: text/event-stream"), ""},
		"a creation":               {exchange("POST", path, `{"label":"A","scopes":null}`, 200, good, "Idempotency-Replayed: true", ">Idempotency-Key: a"), ""},
		"no envelope":              {exchange("GET", path+"/api_key_1", "", 200, key), "missing properties"},
		"another status":           {exchange("GET", path+"/api_key_1", "", 404, good), "status"},
		"a status that is not":     {exchange("GET", path+"/api_key_1", "", 418, good), "has no answer 418"},
		"a member more":            {exchange("GET", path+"/api_key_1", "", 200, strings.Replace(good, `"label"`, `"more":1,"label"`, 1)), "additional properties 'more'"},
		"a member less":            {exchange("GET", path+"/api_key_1", "", 200, strings.Replace(good, `"label":"A",`, ``, 1)), "missing property 'label'"},
		"a null":                   {exchange("GET", path+"/api_key_1", "", 200, strings.Replace(good, `"label":"A"`, `"label":null`, 1)), "got null, want string"},
		"a form of time":           {exchange("GET", path+"/api_key_1", "", 200, strings.Replace(good, `2025-06-30 15:05:47`, `2025-06-30T15:05:47Z`, 1)), "does not match pattern"},
		"a word":                   {exchange("GET", path+"/api_key_1", "", 200, strings.Replace(good, `"active"`, `"ACTIVE"`, 1)), "must be one of"},
		"a number as text":         {exchange("GET", path+"/api_key_1", "", 200, strings.Replace(good, `"total_requests":0`, `"total_requests":"0"`, 1)), "got string, want integer"},
		"a bound":                  {exchange("GET", path+"/api_key_1", "", 200, strings.Replace(good, `"label":"A"`, `"label":"`+strings.Repeat("A", 256)+`"`, 1)), "maxLength"},
		"a reason":                 {exchange("GET", path+"/x", "", 404, strings.Replace(notFound, "API_KEY_NOT_FOUND", "GONE_FISHING", 1)), "must be one of"},
		"a header":                 {exchange("GET", path+"/api_key_1", "", 200, good, "X-New: 1"), "X-New is not described"},
		"a header's value":         {exchange("GET", path, "", 429, strings.NewReplacer("404", "429", "API_KEY_NOT_FOUND", "RATE_LIMITED").Replace(notFound), "Retry-After: soon"), "Retry-After"},
		"a type":                   {exchange("GET", path, "", 200, good, "Content-Type: text/html"), "type \"text/html\" is not described"},
		"a parameter":              {exchange("GET", path+"?sort=label", "", 200, head+"[]"+tail), `"sort" is not described`},
		"a parameter's value":      {exchange("GET", path+"?page_size=1001", "", 200, head+"[]"+tail), "maximum"},
		"a body's name":            {exchange("POST", path, `{"label":"A","owner":"x"}`, 200, good), "additional properties 'owner'"},
		"a body's null":            {exchange("POST", path, `{"label":null}`, 200, good), "got null, want string"},
		"no body":                  {exchange("POST", path, ``, 200, good), "wants a body"},
		"a body's type":            {exchange("POST", path, `{"label":"A"}`, 200, good, ">Content-Type: application/merge-patch+json"), "is not described"},
		"a line":                   {exchange("GET", "/developers/events/watch", "", 200, "{\"cursor\":1}\n", "Content-Type: application/x-ndjson"), "got number, want string"},
		"an event":                 {exchange("GET", "/developers/events/watch", "", 200, "event: x\ndata: {}\n\n", "Content-Type: text/event-stream"), "missing properties"},
		"a success without a path": {exchange("GET", "/nowhere", "", 200, good), "has no answer 200"},
	} {
		t.Run(name, func(t *testing.T) {
			err := d.Check(c.x)
			if c.fault == "" && err != nil {
				t.Errorf("got %v", err)
			}
			if c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("got %v, want %s", err, c.fault)
			}
		})
	}
}

// TestMutatedDocument changes a fact of the document, and finds that good exchanges are
// not as it says.
func TestMutatedDocument(t *testing.T) {
	t.Parallel()
	get := exchange("GET", "/developers/api_keys/api_key_1", "", 200, head+key+tail, `ETag: "1"`)
	create := exchange("POST", "/developers/api_keys", `{"label":"A name","scopes":null}`, 200, head+key+tail)
	for name, c := range map[string]struct {
		x     *Exchange
		place []string
		value any
	}{
		"a status":             {get, []string{"components", "schemas", "ApiKeyAnswer", "properties", "status", "const"}, 201},
		"another status":       {get, []string{"paths", "/developers/api_keys/{id}", "get", "responses", "200"}, nil},
		"a null":               {get, []string{"components", "schemas", "ApiKey", "properties", "revoked_at"}, map[string]any{"$ref": "#/components/schemas/Time"}},
		"a null of an answer":  {get, []string{"components", "schemas", "ApiKeyAnswer", "properties", "error", "type"}, "string"},
		"a bound":              {get, []string{"components", "schemas", "ApiKey", "properties", "secret", "maxLength"}, 5},
		"a word":               {get, []string{"components", "schemas", "ApiKeyState", "enum"}, []string{"API_KEY_STATE_ACTIVE"}},
		"a form of time":       {get, []string{"components", "schemas", "Time", "pattern"}, `^\d{4}-\d{2}-\d{2}T`},
		"a type":               {get, []string{"components", "schemas", "ApiKeyMetrics", "properties", "total_requests", "type"}, "string"},
		"a member":             {get, []string{"components", "schemas", "ApiKey", "properties", "etag"}, nil},
		"a header":             {get, []string{"paths", "/developers/api_keys/{id}", "get", "responses", "200", "headers"}, nil},
		"a path":               {get, []string{"paths", "/developers/api_keys/{id}"}, nil},
		"a bound of a request": {create, []string{"components", "schemas", "CreateApiKeyRequest", "properties", "label", "maxLength"}, 3},
		"a null of a request":  {create, []string{"components", "schemas", "CreateApiKeyRequest", "properties", "scopes", "type"}, "array"},
		"what is required":     {create, []string{"components", "schemas", "CreateApiKeyRequest", "required"}, []string{"label", "mode"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mutated, err := Load(mutate(t, c.place, c.value))
			if err != nil {
				t.Fatal(err)
			}
			if err := mutated.Check(c.x); err == nil {
				t.Error("nothing was found")
			}
		})
	}
	same, err := Load(mutate(t, []string{"info", "title"}, "other"))
	if err != nil {
		t.Fatal(err)
	}
	if err := same.Check(get); err != nil {
		t.Errorf("a good exchange: %v", err)
	}
	if err := same.Check(create); err != nil {
		t.Errorf("a good creation: %v", err)
	}
}

// mutate returns the document with another value at place; nil takes it away.
func mutate(t *testing.T, place []string, value any) []byte {
	t.Helper()
	var document map[string]any
	if err := json.Unmarshal(gen.OpenAPI, &document); err != nil {
		t.Fatal(err)
	}
	here := document
	for _, name := range place[:len(place)-1] {
		next, ok := here[name].(map[string]any)
		if !ok {
			t.Fatalf("%s is not in the document", name)
		}
		here = next
	}
	last := place[len(place)-1]
	if value == nil {
		delete(here, last)
	} else {
		here[last] = value
	}
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestLoad(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "[]", "{"} {
		if _, err := Load([]byte(text)); err == nil {
			t.Errorf("%q is a document", text)
		}
	}
	d, err := Served()
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		"/developers/webhooks/events": "/developers/webhooks/events", "/developers/webhooks/x": "/developers/webhooks/{id}",
		"/developers/webhooks/": "", "/": "", "/healthz": "/healthz",
	} {
		if got := d.find(target); got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
}
