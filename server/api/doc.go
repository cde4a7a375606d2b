// Package api is the gRPC face. A service's method reads its request, runs one
// rule of package apikey in one method of package store, and answers; what all
// calls have in common stands in the chain of interceptors ([API.Unary], [API.Stream]), and
// what a method asks of its caller in the rule option of its proto.
package api
