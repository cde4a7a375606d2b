// Package server puts the rooms together into one program: what runs, in which
// order it starts, and in which order it drains. It decides nothing about keys.
//
//	apikey    what a key is, and what happened to it
//	wire      what the outside sees
//	feed      following the event log
//	verify    is this key good?
//	store     the database
//	authn     who is calling
//	api       the gRPC face
//	rest      the REST face, a client of the gRPC face
//
// Imports point down only; floors_test.go lists the edges that are allowed.
package server
