package openapi

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/apikeys-dev/apikeys/server/rest"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// Version stands in the document for the version of the server, which fills it in.
const Version = "0.0.0-unknown"

// document is a description that is being made.
type document struct {
	schemas schemas
	paths   object
	ids     map[string]bool
	first   map[protoreflect.FullName]rest.Endpoint // of each method, its first route
	known   map[int]bool                            // the statuses of failures
}

// Make returns the document as JSON. image is what buf builds of the protos, with
// their comments, and source the root of the repository. The same input always gives
// the same bytes.
func Make(image []byte, source fs.FS) ([]byte, error) {
	endpoints, err := rest.Endpoints()
	if err != nil {
		return nil, err
	}
	texts, err := readComments(image)
	if err != nil {
		return nil, err
	}
	failures, err := readFailures(source)
	if err != nil {
		return nil, err
	}
	events, err := readEvents(source)
	if err != nil {
		return nil, err
	}
	d := &document{
		schemas: schemas{
			comments: texts, examples: examplesOf(events), required: required(endpoints), byName: make(map[string]object),
			resources: map[string]proto.Message{
				"ApiKey": eventOf(events, "api_key.created").GetApiKey(), "Webhook": eventOf(events, "webhook.updated").GetWebhook(),
			},
		},
		ids:   make(map[string]bool),
		first: make(map[protoreflect.FullName]rest.Endpoint),
		known: make(map[int]bool),
	}
	var reasons []string
	for _, f := range failures {
		d.known[f.status] = true
		if !slices.Contains(reasons, f.reason) {
			reasons = append(reasons, f.reason)
		}
	}
	d.frame(reasons)
	for i := range endpoints {
		if err := d.operation(&endpoints[i]); err != nil {
			return nil, fmt.Errorf("describe %s %s: %w", endpoints[i].Method, endpoints[i].Path, err)
		}
	}
	hooks, err := d.webhooks(events)
	if err != nil {
		return nil, err
	}
	schemas := obj()
	for _, name := range slices.Sorted(maps.Keys(d.schemas.byName)) {
		schemas.set(name, d.schemas.byName[name])
	}
	return encode(obj(
		"openapi", "3.1.0",
		"info", obj("title", "apikeys", "version", Version,
			"summary", "Issues, verifies, rotates and revokes API keys.",
			"description", conventions,
			"license", obj("name", "Apache-2.0", "identifier", "Apache-2.0")),
		"servers", []any{obj("url", "/")},
		"security", []any{obj("bearer", []any{}), obj("apiKey", []any{}), obj("bare", []any{})},
		"tags", d.tags(endpoints),
		"paths", d.paths,
		"webhooks", hooks,
		"components", obj(
			"schemas", schemas,
			"responses", responses(failures),
			"parameters", parameters(),
			"headers", headers(),
			"securitySchemes", obj(
				"bearer", obj("type", "http", "scheme", "bearer",
					"description", "An API key or an access token."),
				"apiKey", obj("type", "apiKey", "in", "header", "name", "X-API-Key", "description", "The same credentials, in a header of their own."),
				"bare", obj("type", "apiKey", "in", "header", "name", "Authorization", "description", "The same credentials, without the word `Bearer`."),
			)),
	))
}

// required returns the fields of each resource that its creation must name, which
// a patch cannot clear either.
func required(endpoints []rest.Endpoint) map[protoreflect.FullName][]string {
	all := make(map[protoreflect.FullName][]string)
	for _, e := range endpoints {
		if e.RPC == nil || !strings.HasPrefix(string(e.RPC.Name()), "Create") || e.Data == nil || e.Data.Message() == nil {
			continue
		}
		resource := e.Data.Message().FullName()
		all[resource] = nil
		for _, field := range wirejson.Fields(e.RPC.Input()) {
			if isRequired(field.Desc) {
				all[resource] = append(all[resource], field.Name)
			}
		}
	}
	return all
}

// frame makes the schemas that everything else refers to.
func (d *document) frame(reasons []string) {
	d.schemas.byName["Env"] = obj("type", "string", "enum", []string{"development", "production"}, "description", "What the server is for.")
	d.schemas.byName["Time"] = obj("type", "string", "pattern", wirejson.TimePattern,
		"description", "A time in UTC: `YYYY-MM-DD HH:MM:SS`.", "examples", []any{"2026-05-30 20:23:16"})
	d.schemas.byName["TimeInput"] = obj("type", "string", "pattern", wirejson.TimeReadPattern,
		"description", "A time: `YYYY-MM-DD HH:MM:SS` in UTC, or RFC 3339.", "examples", []any{"2026-05-30 20:23:16", "2026-05-30T20:23:16Z"})
	failure := failed(0, reasons)
	properties := failure.get("properties").(object)
	properties.set("status", obj("type", "integer", "minimum", 400, "maximum", 599))
	properties.set("validator", obj("type", []string{"object", "null"}, "additionalProperties", obj("type", "string")))
	failure.set("description", "Any failure.")
	d.schemas.byName["Failure"] = failure
}

// tags are the services with their comments.
func (d *document) tags(endpoints []rest.Endpoint) []object {
	var list []object
	named := make(map[string]bool)
	for _, e := range endpoints {
		if e.RPC == nil {
			continue
		}
		if name := tagOf(e.RPC); !named[name] {
			named[name] = true
			list = append(list, obj("name", name, "description", d.schemas.comments[e.RPC.Parent().FullName()]))
		}
	}
	return append(list,
		obj("name", "Server", "description", "Whether the server is there, and this description of it. No credential is needed."),
		obj("name", "Deliveries", "description", "What webhooks are sent."))
}

// conventions says what holds for all operations.
const conventions = `Every answer is the same envelope of eight keys: ` + "`status, data, error, log, validator, support_id, message, env`" + `. A success has its result in ` + "`data`" + `. A failure has a sentence in ` + "`error`" + `, the faulty fields in ` + "`validator`" + `, and a stable name in ` + "`log.reason`" + `.

* Every path takes OPTIONS, which answers 200 with ` + "`Allow`" + ` (the response ` + "`Options`" + `); another method is 405 (` + "`MethodNotAllowed`" + `). HEAD goes with GET. What is at no path is 404 with the reason ` + "`ROUTE_NOT_FOUND`" + `.
* Times are UTC. They are written ` + "`YYYY-MM-DD HH:MM:SS`" + `; RFC 3339 is read too.
* What is unset is ` + "`null`" + `, an empty list ` + "`[]`" + `. In a request ` + "`null`" + ` is the same as an absent field.
* Whole numbers of 64 bits are numbers.
* A list in a query is given by repeating its parameter, by commas, or both.
* All answers but this document and the page at /docs carry ` + "`Cache-Control: no-store`" + `, and all ` + "`X-Content-Type-Options: nosniff`" + `.
* Further fields, reasons and words can be added at any time. An event of an older version of the server shows ` + "`unspecified`" + ` where that version had no such word yet.`
