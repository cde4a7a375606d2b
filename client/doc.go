// Package client asks an apikeys server about keys, protects services written in Go with
// the answers, and follows the events of the server.
//
// A [Client] is made once and shared. [Client.Verify] returns an error unless the key is
// good, so that a caller who looks at the error alone lets nobody in by mistake:
//
//   - a [*RefusedError] says that the key may not do this, and what its holder is told:
//     a status, a reason and a sentence;
//   - every other error says that there was no answer. No answer is no permission.
//
// [Middleware] is that for net/http and every router that takes a
// func(http.Handler) http.Handler, and [Interceptors] for gRPC. Both put the key into the
// context, from which [FromContext] returns it.
//
// A [Watcher] follows events over as many connections as that takes, without a gap.
//
// Nothing is cached: a revocation that the server has answered is in force for the next
// request. No error and no log line of this package holds a key or a token.
package client
