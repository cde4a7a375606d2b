// Package server is the program: what is made of the packages below, what runs, in
// which order it starts, and in which order it stops. It decides nothing about keys.
//
// A [Config] says everything that can be set. [New] opens the database and both
// listeners, [Server.Run] serves until its context ends, then stops in order. A
// server whose Run has returned has stored its counters and closed its database, and
// nothing that it logs holds a credential. What it wires:
//
//	apikey      what a key is, and what happened to it
//	webhook     what a webhook and a delivery are
//	masked      text that no print shows
//	keyring     the secrets file: peppers, encryption keys, sealing
//	wire        the domain as protobuf; wire/json, its JSON form
//	feed        following the event log
//	meter       what verifications spend and count
//	verify      is this key good?
//	store       the database
//	deliver     sending events to webhooks
//	connection  what one client can make a listener hold
//	authn       who calls, and with which rights
//	api         the services over gRPC
//	rest        the same services over REST, as a client of api
//	gate        what gateways ask about the requests that they pass on
//	measure     what happens often, counted and timed
//	metrics     what is measured, in the form that Prometheus reads
//	outage      an outage of storage, told by two lines of the log
//
// On PostgreSQL several servers may share a database and a secrets file. Each serves all
// calls. The fan-out, and the periodic jobs that change the database, run on one of them
// at a time, under the leases of package store; [Server.Leases] tells which this one has.
// Readiness and the certificate are of each server by itself.
//
// Imports point down only: imports_test.go lists the edges that are allowed.
//
// A program that embeds a server should know that net/http writes a line to the
// standard logger of package log when an endpoint of a webhook sends bytes that
// nobody asked for, with some of those bytes. The command apikeys discards what
// goes to that logger.
package server
