// Package api is the gRPC API. A service's method reads its request, runs one
// rule of package apikey in one method of package store, and answers; what a method
// asks of its caller stands in the rule option of its proto.
//
// What all calls have in common is the chain, which stands around each handler
// from the moment when its service is registered ([API.Guard]). It promises one
// order of checks: who calls, and whether the method's rule lets them, is known
// before a byte of the message is looked at, over the network and on the connection
// inside the process that REST comes by. Then the message is received, checked against the
// rules of its proto, and handed to the method.
//
// Every failure is one of apikey.Error, becomes a status with google.rpc.ErrorInfo
// by one table, and has a line of the log under its support id; calls that are
// refused before anyone has proved anything share a line a second for each address
// and reason (authn.Refusals). That holds for what cannot be decoded too: messages
// are read here and not by the library, which would answer in its own words. What
// the library refuses before it calls a handler is left to it: headers that are no
// gRPC request, and a grpc-encoding that nobody knows.
package api
