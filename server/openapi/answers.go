package openapi

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// envelope is the schema of an answer. data, and what else is not null, is given.
func envelope(status int, members ...any) object {
	given := obj(members...)
	null := obj("type", "null")
	properties := obj("status", obj("const", status))
	for _, name := range []string{"data", "error", "log", "validator", "support_id", "message"} {
		if schema := given.get(name); schema != nil {
			properties.set(name, schema)
		} else {
			properties.set(name, null)
		}
	}
	properties.set("env", ref("Env"))
	required := make([]string, len(properties))
	for i, m := range properties {
		required[i] = m.name
	}
	return obj("type", "object", "required", required, "properties", properties)
}

// success is the schema of an answer that holds data.
func success(status int, data object) object {
	return envelope(status, "data", data, "message", obj("type", "string", "description", "A sentence for people."))
}

// failed is the schema of a failure of a status, which has one of the reasons.
func failed(status int, reasons []string) object {
	validator := obj("type", "null")
	if status == http.StatusBadRequest {
		validator = obj("type", []string{"object", "null"}, "additionalProperties", obj("type", "string"),
			"description", "What is wrong with each faulty field; null where no field is at fault.")
	}
	log := obj("type", "object", "required", []string{"reason", "request_id"},
		"properties", obj(
			"reason", obj("type", "string", "enum", reasons, "description", "A stable name of the failure, for machines."),
			"request_id", obj("type", "string")),
		"additionalProperties", obj("type", "string"))
	return envelope(status,
		"error", obj("type", "string", "description", "A sentence that a person can act on."),
		"log", log,
		"validator", validator,
		"support_id", obj("type", "string", "description", "Names the line about this failure in the server's log."))
}

// failureExample is an answer as a caller sees it.
func failureExample(f failure) object {
	var validator any
	if f.reason == "INVALID_ARGUMENT" {
		f.text = "label is required."
		validator = obj("label", "is required")
	}
	if at, ok := strings.CutPrefix(f.text, "after is "); ok {
		validator = obj("after", "is "+strings.TrimSuffix(at, "."))
	}
	log := obj("reason", f.reason, "request_id", "request_01a1fd04-9fd1-704f-8008-50b3ad37fb3b")
	if f.reason == "CURSOR_EXPIRED" {
		log.set("oldest", "AQh2Zs5L0m1v5jv6cGk")
	}
	return obj("status", f.status, "data", nil, "error", f.text, "log", log, "validator", validator,
		"support_id", "support_01a1fd04-9fd1-7050-988a-1150a833315c", "message", nil, "env", "production")
}

// responseName names the shared response of a status.
func responseName(status int) string {
	return strings.NewReplacer(" ", "", "-", "", "'", "").Replace(http.StatusText(status))
}

// whenFailed says of each status when it is answered.
var whenFailed = map[int]string{
	400: "The request is wrong, or the state of the resource forbids it.",
	401: "There is no credential, two that differ, or one that proves nothing.",
	403: "The credential may not do this.",
	404: "There is nothing of that id for this caller, or nothing at this path.",
	405: "The path does not take this method; `Allow` names those that it takes.",
	406: "The header `Accept` excludes what the answer would be.",
	409: "The resource has changed meanwhile, or something of that name is there already.",
	413: "The body is larger than 1 MiB.",
	415: "The body is not JSON in UTF-8, or is compressed.",
	422: "The idempotency key was used for another request.",
	429: "A limit is reached. `Retry-After` says when to come back, where time helps.",
	431: "The request has too many headers.",
	500: "Something went wrong on the server's side; its log has a line with the `support_id`.",
	503: "Not now: the database does not answer, the server stops, or deliveries are far behind.",
	504: "The call took longer than its deadline.",
}

// failureHeaders are the headers of failures, by status.
var failureHeaders = map[int][]string{
	401: {"WWW-Authenticate"},
	405: {"Allow"},
	429: {"Retry-After"},
	503: {"Retry-After"},
}

// responses returns the shared responses: one for each status of a failure, and that to
// OPTIONS.
func responses(failures []failure) object {
	all := obj("Options", obj(
		"description", "To OPTIONS: the methods that the path takes.",
		"headers", headerRefs("Allow"),
		"content", obj("application/json", obj("schema", success(200, obj("type", "null")))),
	))
	for len(failures) > 0 {
		status := failures[0].status
		var reasons []string
		examples := obj()
		for len(failures) > 0 && failures[0].status == status {
			f := failures[0]
			failures = failures[1:]
			reasons = append(reasons, f.reason)
			examples.set(f.reason, obj("value", failureExample(f)))
		}
		response := obj("description", whenFailed[status])
		if whenFailed[status] == "" {
			response.set("description", http.StatusText(status)+".")
		}
		if names := failureHeaders[status]; len(names) > 0 {
			response.set("headers", headerRefs(names...))
		}
		response.set("content", obj("application/json", obj("schema", failed(status, reasons), "examples", examples)))
		all.set(responseName(status), response)
	}
	return all
}

// headers are the headers of answers that mean something to the caller.
func headers() object {
	text := obj("type", "string")
	return obj(
		"Allow", obj("description", "The methods that the path takes.", "schema", text, "example", "GET, HEAD, POST, OPTIONS"),
		"ETag", obj("description", "The etag of the resource, for `If-Match`, or of a file, for `If-None-Match`.", "schema", text, "example", `"3"`),
		"Idempotency-Replayed", obj("description", "`true` where this is the answer to an earlier request with the same idempotency key.",
			"schema", obj("const", "true")),
		"Link", obj("description", "The next page, a relative reference with `rel=\"next\"`. Not there on the last page.", "schema", text,
			"example", `</developers/api_keys?page_token=AQx>; rel="next"`),
		"X-Incomplete-Before", obj("description", "With CSV, what `incomplete_before` is in JSON. Not there where that is null.", "schema", text),
		"X-Next-Page-Token", obj("description", "`page_token` of the next page. Not there on the last page.", "schema", text),
		"X-Total-Count", obj("description", "How many there were in all, those that are no longer kept included.", "schema", obj("type", "integer", "minimum", 0)),
		"Retry-After", obj("description", "How many seconds to wait.", "schema", obj("type", "integer", "minimum", 1)),
		"WWW-Authenticate", obj("description", "How to authenticate.", "schema", text, "example", `Bearer realm="apikeys"`),
	)
}

func headerRefs(names ...string) object {
	all := obj()
	for _, name := range names {
		all.set(name, obj("$ref", "#/components/headers/"+name))
	}
	return all
}

// statusesOf returns the references to the failures of an operation.
func (d *document) statusesOf(statuses ...int) object {
	all := obj()
	for _, status := range statuses {
		if d.known[status] {
			all.set(strconv.Itoa(status), obj("$ref", fmt.Sprintf("#/components/responses/%s", responseName(status))))
		}
	}
	return all
}
