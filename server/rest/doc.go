// Package rest is the REST API: every oddity of HTTP, and nothing else.
//
// It is a client of the gRPC API. A request goes through a router that is
// generated from the protos (grpc-gateway) to a client stub, and from there over
// an in-process connection into the same chain of interceptors that a gRPC call
// passes. So there is no check, no scope and no rule here; a new RPC with an
// HTTP annotation needs one line in services, or none.
//
// The router is shown a request that has lost everything but its method and its
// path, because it would otherwise pass on headers that nobody asked for, read
// bodies by rules of its own and flatten our errors into text. At the last step,
// where the stub calls the connection, exactly three headers become metadata, and
// the request itself travels on unread (unreadRequest). The services read it when
// they receive it, which is after they know who calls: so nothing of a query or a
// body is looked at for a bad credential, and the order of the checks is the one
// that gRPC has. A request that is refused before its body was read is answered at
// once, and its connection closed where it is HTTP/1.1.
//
// What a path takes is known before all that (routes). A fixed word counts as
// itself before it counts as an id: GET /developers/api_keys/verify is 405, and
// does not ask for a key of that name.
//
// Every answer is the envelope, with the same eight keys in the same order,
// unknown paths and panics included. Only what net/http itself refuses before a
// handler runs is not: a request line, a header or a path that cannot be read, such
// as /%zz, a missing Host, headers over their bound, an HTTP version or a
// Transfer-Encoding that it does not know, and an Expect that is not 100-continue.
//
// The stream of events (watch, forward) is a handler of its own over the client
// stream, since the router knows neither Server-Sent Events nor clients that
// stop reading. It keeps nothing: a few messages are on their way, the rest is
// in the log.
//
// All answers carry Cache-Control: no-store. A shared cache keeps away from
// answers to Authorization by itself, but it does not know X-API-Key.
package rest
