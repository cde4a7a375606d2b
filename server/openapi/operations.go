package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/rest"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// operation adds what an endpoint is described by to the paths.
func (d *document) operation(e *rest.Endpoint) error {
	var made object
	var err error
	if e.RPC == nil {
		made, err = d.builtin(e)
	} else {
		made = d.rpc(e)
	}
	if err != nil {
		return err
	}
	id := made.get("operationId").(string)
	if d.ids[id] {
		return fmt.Errorf("two operations have the id %s", id)
	}
	d.ids[id] = true
	path, _ := d.paths.get(e.Path).(object)
	path.set(strings.ToLower(e.Method), made)
	d.paths.set(e.Path, path)
	return nil
}

// rpc describes a way to call a method of the protos.
func (d *document) rpc(e *rest.Endpoint) object {
	method := e.RPC
	rule, _ := proto.GetExtension(method.Options(), apikeysv1.E_Rule).(*apikeysv1.MethodRule)
	// What update_mask is over gRPC, the body is here.
	summary, more := split(strings.Replace(d.schemas.comments[method.FullName()], "update_mask names", "the body names", 1))
	named := namedCall(e, rule)
	made := obj("operationId", d.operationID(e), "tags", []string{tagOf(method)}, "summary", summary)
	made.setIf("description", strings.Join(append(append(nonEmpty(more), patchText(e)...), terms(rule)...), "\n\n"))
	made.set("x-required-scopes", requiredScopes(rule))
	if parameters := d.parameters(e, rule, named); len(parameters) > 0 {
		made.set("parameters", parameters)
	}
	if e.OAuth {
		d.oauth(e, &made, rule)
		return made
	}
	if e.HasBody {
		made.set("requestBody", d.requestBody(e))
	}
	answers := obj("200", d.answer(e, rule, named))
	statuses := []int{400, 401, 403}
	if strings.Contains(e.Path, "{") {
		statuses = append(statuses, 404)
	}
	statuses = append(statuses, 406)
	if named || e.IfMatch {
		statuses = append(statuses, 409)
	}
	if e.HasBody {
		statuses = append(statuses, 413, 415)
	}
	if named {
		statuses = append(statuses, 422)
	}
	made.set("responses", append(answers, d.statusesOf(append(statuses, 429, 431, 500, 503, 504)...)...))
	return made
}

// namedCall reports whether an idempotency key counts for the calls of an endpoint.
func namedCall(e *rest.Endpoint, rule *apikeysv1.MethodRule) bool {
	switch rule.GetIdempotency() {
	case apikeysv1.Idempotency_IDEMPOTENCY_UNSPECIFIED, apikeysv1.Idempotency_IDEMPOTENCY_IGNORED:
		return false
	default:
		return e.Method == http.MethodPost || e.Method == http.MethodPatch
	}
}

func nonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// patchText says what the body of an update is.
func patchText(e *rest.Endpoint) []string {
	switch {
	case wirejson.Patched(e.RPC.Input()) == nil:
		return nil
	case e.Body.ReadOnly == wirejson.PassReadOnly:
		return []string{"The body is a JSON Merge Patch (RFC 7396), but that it must name `" + strings.Join(e.Body.Required, "`, `") +
			"`: what it does not name stays. A resource can be sent back as it was read: fields that cannot be set are passed over."}
	}
	return []string{"The body is a JSON Merge Patch (RFC 7396): what it names changes, and `null` clears it."}
}

const anyScope = "any"

func requiredScopes(rule *apikeysv1.MethodRule) []string {
	if rule.GetScope() == anyScope {
		return []string{}
	}
	return append([]string{rule.GetScope()}, rule.GetFurtherScopes()...)
}

// terms says what a method asks of its caller.
func terms(rule *apikeysv1.MethodRule) []string {
	scopes := requiredScopes(rule)
	for i, s := range scopes {
		scopes[i] = "`" + s + "`"
	}
	var list []string
	switch len(scopes) {
	case 0:
		list = append(list, "Needs any credential.")
	case 1:
		list = append(list, "Needs the scope "+scopes[0]+".")
	default:
		list = append(list, "Needs the scopes "+strings.Join(scopes, " and ")+".")
	}
	if rule.GetCurrentSecret() {
		list = append(list, "The previous secret of a key is refused, because what the call makes lasts.")
	}
	if rule.GetSecret() {
		list = append(list, "The answer carries a secret, and `Cache-Control: no-store`.")
	}
	return list
}

// operationID is the name of the method in lower camel case. What its further routes
// have in their paths that the first has not, or another method of HTTP, is added.
func (d *document) operationID(e *rest.Endpoint) string {
	name := string(e.RPC.Name())
	id := strings.ToLower(name[:1]) + name[1:]
	first, ok := d.first[e.RPC.FullName()]
	if !ok {
		d.first[e.RPC.FullName()] = *e
		return id
	}
	words := strings.Split(first.Path, "/")
	added := ""
	for word := range strings.SplitSeq(e.Path, "/") {
		if !strings.HasPrefix(word, "{") && !slices.Contains(words, word) {
			added = word
		}
	}
	if added != "" {
		id += "In" + camel(added)
	}
	if e.Method != first.Method {
		id += "By" + camel(strings.ToLower(e.Method))
	}
	return id
}

func camel(word string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(word, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

func tagOf(method protoreflect.MethodDescriptor) string {
	return strings.TrimSuffix(string(method.Parent().Name()), "Service")
}

// parameters are what stands in the path, the query and the headers of a request.
func (d *document) parameters(e *rest.Endpoint, rule *apikeysv1.MethodRule, named bool) []object {
	var list []object
	in := e.RPC.Input().Fields()
	for segment := range strings.SplitSeq(e.Path, "/") {
		name := strings.Trim(segment, "{}")
		if name == segment {
			continue
		}
		p := obj("name", name, "in", "path", "required", true, "schema", obj("type", "string"))
		if fd := in.ByName(protoreflect.Name(name)); fd != nil {
			p.setIf("description", d.schemas.comments[fd.FullName()])
		}
		list = append(list, p)
	}
	if !e.HasBody {
		for _, field := range wirejson.Fields(e.RPC.Input()) {
			if !field.Sent || field.Object() || slices.Contains(e.Body.Bound, field.Name) {
				continue
			}
			p := obj("name", field.Name, "in", "query")
			p.setIf("description", d.schemas.comments[field.Desc.FullName()])
			if isRequired(field.Desc) {
				p.set("required", true)
			}
			if field.List || field.Map {
				p.set("style", "form")
				p.set("explode", true)
			}
			schema := d.schemas.value(&field, sent, rulesOf(field.Desc))
			if field.Map { // each entry is a parameter of its own: metadata.team=billing
				schema = obj("type", "object", "patternProperties", obj("^"+field.Name+`\.`, d.schemas.value(field.Value, sent, rulesOf(field.Desc).GetMap().GetValues())))
			}
			list = append(list, append(p, obj("schema", schema)...))
		}
	}
	organization := "OrganizationId"
	if rule.GetAnyOrganization() {
		organization = "OrganizationIdOrAll"
	}
	for _, header := range []struct {
		name string
		is   bool
	}{
		{organization, true}, {"IdempotencyKey", named}, {"IfMatch", e.IfMatch}, {"LastEventId", e.RPC.IsStreamingServer()},
	} {
		if header.is {
			list = append(list, obj("$ref", "#/components/parameters/"+header.name))
		}
	}
	return list
}

// parameters are the headers of requests that mean something to the server.
func parameters() object {
	header := func(name, text string, schema object) object {
		return obj("name", name, "in", "header", "description", text, "schema", schema)
	}
	return obj(
		"OrganizationId", header("X-Organization-Id", "The organization to act in. An API key acts in its own, and need not say so.",
			obj("type", "string", "maxLength", 128, "pattern", `^[A-Za-z0-9_.:-]*$`)),
		"OrganizationIdOrAll", header("X-Organization-Id",
			"The organization to act in, or `*` for all. An API key acts in its own, and need not say so.",
			obj("type", "string", "maxLength", 128, "pattern", `^([A-Za-z0-9_.:-]*|\*)$`)),
		"IdempotencyKey", header("Idempotency-Key",
			"A name for this request, such as a random UUID, with or without quotes. When the request is made again under the same name, "+
				"its first answer is given again, and nothing is changed.",
			obj("type", "string", "minLength", 1, "maxLength", 257, "pattern", `^[!-~]+$`)),
		"IfMatch", header("If-Match", "The etag that the resource must have, in double quotes, or `*`. It can stand in the body as `etag` too.",
			obj("type", "string")),
		"IfNoneMatch", header("If-None-Match", "Etags of what the client has already.", obj("type", "string")),
		"LastEventId", header("Last-Event-ID", "The cursor to go on after; it goes before `after`.", obj("type", "string", "maxLength", 256)),
	)
}

// requestBody is the body of a request.
func (d *document) requestBody(e *rest.Endpoint) object {
	content := obj("schema", d.schemas.body(e.RPC.Input(), e.Body))
	media := obj("application/json", content)
	if e.Method == http.MethodPatch {
		media.set("application/merge-patch+json", content)
	}
	schema := d.schemas.byName[strings.TrimPrefix(content.get("schema").(object).get("$ref").(string), "#/components/schemas/")]
	return obj("required", schema.get("required") != nil, "content", media)
}

// answer is the success of a method.
func (d *document) answer(e *rest.Endpoint, rule *apikeysv1.MethodRule, named bool) object {
	message := rule.GetMessage()
	if e.RPC.IsStreamingServer() {
		return d.stream(e)
	}
	var names []string
	if e.ETag {
		names = append(names, "ETag")
	}
	if e.Pages {
		names = append(names, "Link", "X-Next-Page-Token")
	}
	if e.Total {
		names = append(names, "X-Total-Count")
	}
	if named {
		names = append(names, "Idempotency-Replayed")
	}
	if rule.GetCsv() != "" {
		names = append(names, "X-Incomplete-Before")
	}
	made := obj("description", message+".")
	if len(names) > 0 {
		made.set("headers", headerRefs(names...))
	}
	content := obj("application/json", obj("schema", d.answerSchema(e)))
	if rule.GetCsv() != "" {
		content.set("text/csv", obj("schema", obj("type", "string", "description", "The list `"+rule.GetCsv()+"`: a line each below their names.")))
	}
	made.set("content", content)
	return made
}

// answerSchema returns a reference to the schema of the envelope with the data of e.
func (d *document) answerSchema(e *rest.Endpoint) object {
	var data object
	name := string(e.RPC.Output().Name())
	if e.Data == nil {
		data = d.schemas.message(e.RPC.Output(), shown)
		name = strings.TrimSuffix(name, "Response")
	} else {
		for _, field := range wirejson.Fields(e.RPC.Output()) {
			if field.Desc.FullName() == e.Data.FullName() {
				data = d.schemas.value(&field, shown, rulesOf(field.Desc)) // never null, whatever its presence
			}
		}
		if m := e.Data.Message(); m != nil {
			name = string(m.Name())
		}
		if e.Data.IsList() {
			name += "List"
		}
	}
	name += "Answer"
	if _, ok := d.schemas.byName[name]; !ok {
		d.schemas.byName[name] = success(http.StatusOK, data)
	}
	return ref(name)
}

// stream is the success of the stream of events, in its two formats.
func (d *document) stream(e *rest.Endpoint) object {
	fields := wirejson.Fields(e.RPC.Output())
	line := obj("type", "object", "required", []string{"cursor"}, "properties", obj())
	properties := obj()
	for _, field := range fields {
		properties.set(field.Name, append(d.schemas.value(&field, shown, nil), obj("description", d.schemas.comments[field.Desc.FullName()])...))
	}
	line.set("properties", properties)
	line.set("description", "A line of the stream: an event with its cursor, or a heartbeat, which is a cursor alone.")
	d.schemas.byName["WatchLine"] = line
	example := `{"cursor":"AQh2Zs5L0m1v5jv6cGk"}` + "\n"
	const sse = ": heartbeat\nid: AQh2Zs5L0m1v5jv6cGk\n\nid: AQh3Bt6M1n2w6kw7dHl\nevent: api_key.created\ndata: {\"id\":\"event_...\", ...}\n\n"
	return obj(
		"description", "Events follow, until one side ends the stream. A stream that fails once begun ends with the envelope of the failure as its last line.",
		"content", obj(
			"application/x-ndjson", obj(
				"schema", obj("anyOf", []any{ref("WatchLine"), ref("Failure")},
					"description", "One line; the stream is a sequence of them."),
				"example", json.RawMessage(strings.TrimSpace(example))),
			"text/event-stream", obj(
				"schema", obj("type", "string", "description",
					"Server-Sent Events: `id` is the cursor, `event` the type, `data` the event as JSON. A heartbeat is a comment with an `id`. "+
						"A failure is an event `error`, whose data is the envelope."),
				"example", sse),
		))
}

// builtin describes a path whose handler is written by hand.
func (d *document) builtin(e *rest.Endpoint) (object, error) {
	a := e.About
	if a.ID == "" { // nothing is said of it
		a.ID = strings.ToLower(e.Method) + camel(strings.NewReplacer("/", "_", ".", "_", "{", "", "}", "", "-", "_").Replace(strings.Trim(e.Path, "/")))
	}
	status := max(a.Status, http.StatusOK)
	made := obj("operationId", a.ID, "tags", []string{"Server"})
	made.setIf("summary", a.Summary)
	made.setIf("description", a.Text)
	made.set("security", []any{})
	var parameters []object
	for segment := range strings.SplitSeq(e.Path, "/") {
		if name := strings.Trim(segment, "{}"); name != segment {
			parameters = append(parameters, obj("name", name, "in", "path", "required", true, "schema", obj("type", "string")))
		}
	}
	if a.Cached {
		parameters = append(parameters, obj("$ref", "#/components/parameters/IfNoneMatch"))
		a.Headers = append(slices.Clip(a.Headers), "ETag")
	}
	if len(parameters) > 0 {
		made.set("parameters", parameters)
	}
	answer := obj("description", "Success.")
	if len(a.Headers) > 0 {
		answer.set("headers", headerRefs(a.Headers...))
	}
	switch {
	case a.MediaType != "":
		answer.set("content", obj(a.MediaType, obj()))
	case a.Data != "":
		if !json.Valid([]byte(a.Data)) {
			return nil, fmt.Errorf("the schema of %s is no JSON", e.Path)
		}
		answer.set("content", obj("application/json", obj("schema", envelope(status,
			"data", json.RawMessage(a.Data), "message", obj("type", "string")))))
	}
	answers := obj(strconv.Itoa(status), answer)
	if a.Cached {
		answers.set("304", obj("description", "The client has it already.", "headers", headerRefs("ETag")))
	}
	statuses := []int{431, 500}
	if a.Fails != nil {
		statuses = append(statuses, a.Fails...)
		slices.Sort(statuses)
	}
	made.set("responses", append(answers, d.statusesOf(statuses...)...))
	return made, nil
}
