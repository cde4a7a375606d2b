// Package rest is the REST face: every oddity of HTTP, and nothing else.
//
// It is a client of the gRPC face. A request goes through a router that is
// generated from the protos (grpc-gateway) to a client stub, and from there over
// an in-process connection into the same chain of interceptors that a gRPC call
// passes. So there is no check, no scope and no rule here; a new RPC with an
// HTTP annotation needs one line in services, or none.
//
// The router is shown a request that has lost everything but its method and its
// path, because it would otherwise pass on headers that nobody asked for, read
// bodies by rules of its own and flatten our errors into text. What it has not
// seen is added at the last step, where the stub calls the connection (conn):
// there the request message is filled from the query and the body, If-Match
// becomes its etag, and exactly three headers become metadata.
//
// Every answer is the envelope, with the same eight keys in the same order,
// unknown paths and panics included. Only what net/http itself refuses before a
// handler runs, such as a request line that is none, is not.
//
// The stream of events (watch, relay) is a handler of its own over the client
// stream, since the router knows neither Server-Sent Events nor clients that
// stop reading. It keeps nothing: a few messages are on their way, the rest is
// in the log.
//
// All answers carry Cache-Control: no-store. A shared cache keeps away from
// answers to Authorization by itself, but it does not know X-API-Key.
package rest
