// Package openapi makes the OpenAPI 3.1 description of the REST API.
//
// It is made of what the REST API itself goes by: the routes (server/rest), the facts
// by which JSON is written and read (server/wire/json), the rules of the methods and
// the bounds of the fields in the protos, and the failures as the source of the server
// has them. So it cannot say something else than the server does, and a new method, field or
// failure is described without a change here. What it adds are the sentences on headers, and
// the frame.
//
// The comments of the protos become descriptions. They are not in the compiled
// protos, so the document is made when code is generated, from an image of buf.
//
// A schema comes in two forms. What the server writes has every property, null where it is
// unset. What the server reads has those that it needs, takes null for what is
// absent, and refuses other names.
package openapi
