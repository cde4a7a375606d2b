// Package deliver sends deliveries: it takes those that are due from the queue,
// makes their bodies, posts them, and tells the queue what came of it.
//
// A [Worker] asks the queue for a few deliveries of each webhook that has some
// due. A [Client] makes one attempt. Its endpoints are picked by strangers, so it
// trusts nothing: [webhook.Guard] judges each address after its name was resolved,
// when the connection is made, and everything that an endpoint can send is
// bounded in size and time.
//
// The row of a delivery has no body: [Body] is a pure function of the row and its
// event, so every attempt sends the same bytes.
//
// What a webhook and a delivery are, and when a delivery is tried again, is
// decided by package webhook; how they are stored, by package store.
package deliver
