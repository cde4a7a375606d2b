package openapi

import (
	"strconv"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/rest"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// oauth describes what goes and comes at an endpoint that speaks as OAuth 2.0 does: a
// form, and JSON without an envelope.
func (d *document) oauth(e *rest.Endpoint, made *object, rule *apikeysv1.MethodRule) {
	made.set("requestBody", obj("required", true, "content", obj("application/x-www-form-urlencoded", obj("schema", d.form(e)))))
	answer := obj("type", "object")
	properties, required := obj(), []string{}
	for _, field := range wirejson.Fields(e.RPC.Output()) {
		kind := "string"
		switch field.Desc.Kind().String() {
		case "bool":
			kind = "boolean"
		case "int64":
			kind = "integer"
		}
		property := obj("type", kind)
		property.setIf("description", d.schemas.comments[field.Desc.FullName()])
		properties.set(field.Name, property)
		if !field.Desc.HasPresence() {
			required = append(required, field.Name)
		}
	}
	answer.set("required", required)
	answer.set("properties", properties)
	d.schemas.byName[string(e.RPC.Output().Name())] = answer
	d.schemas.byName["OAuthFailure"] = obj("type", "object", "required", []string{"error", "error_description", "support_id"},
		"properties", obj(
			"error", obj("type", "string", "enum", []string{"invalid_request", "invalid_client", "insufficient_scope", "temporarily_unavailable", "server_error"}),
			"error_description", obj("type", "string", "description", "A sentence that a person can act on."),
			"support_id", obj("type", "string", "description", "Names the line about this failure in the server's log.")))
	answers := obj("200", obj("description", rule.GetMessage()+".", "content", obj("application/json", obj("schema", ref(string(e.RPC.Output().Name()))))))
	for _, status := range []int{400, 401, 403, 406, 413, 415, 429, 431, 500, 503, 504} {
		failure := obj("description", whenFailed[status])
		if names := failureHeaders[status]; len(names) > 0 {
			failure.set("headers", headerRefs(names...))
		}
		failure.set("content", obj("application/json", obj("schema", ref("OAuthFailure"))))
		answers.set(strconv.Itoa(status), failure)
	}
	made.set("responses", answers)
}

// form is the schema of a form. Parameters that it does not name are passed over.
func (d *document) form(e *rest.Endpoint) object {
	properties, required := obj(), []string{}
	for _, field := range wirejson.Fields(e.RPC.Input()) {
		property := d.schemas.value(&field, sent, rulesOf(field.Desc))
		property.setIf("description", d.schemas.comments[field.Desc.FullName()])
		properties.set(field.Name, property)
		if isRequired(field.Desc) {
			required = append(required, field.Name)
		}
	}
	schema := obj("type", "object", "properties", properties)
	if len(required) > 0 {
		schema.set("required", required)
	}
	schema.set("additionalProperties", obj("type", "string"))
	return schema
}
