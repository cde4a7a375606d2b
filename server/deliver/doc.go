// Package deliver sends deliveries: it claims those that are due from the queue, makes
// their bodies, posts them, and settles what came of it.
//
// The row of a delivery has no body: [Body] is a pure function of the row and its event,
// so every attempt sends the same bytes. A [Client] makes one attempt, which is one
// request. Its endpoints are picked by strangers, so it trusts nothing:
// [webhook.Guard] judges each address when the connection is made, and everything that
// an endpoint can send is bounded in size and time. The transport tells package log what
// an endpoint sends unasked; a program gives that logger an output that nobody keeps.
//
// # States
//
// A delivery is pending, under way (pending, with a lease), or at its end (delivered,
// failed, cancelled); package webhook has the rules. An endpoint, in the scheduler, is
// unknown, healthy or failing by its latest outcome. It is waiting in the heap until
// something is due, then ready, then picked; with as many attempts under way as its
// window allows it is in neither.
//
// # Goroutines and locks
//
// [Worker.Run] has one goroutine that claims, one that settles, and one for each
// attempt. They meet in the scheduler, under its one mutex, which is held for no call;
// methods whose names end in Locked need it. Results go over a channel that has room
// for every attempt, so an attempt never waits for the database.
//
// # What breaks if a rule is dropped
//
//   - An attempt settles only under the lease that it was claimed with: else two
//     attempts of one delivery count as one.
//   - Nobody takes a delivery whose lease runs, whatever callers do to it: else two
//     attempts go out at once.
//   - Deliveries are picked by endpoint, never the oldest of all, and failing endpoints
//     have half of the room: else one that hangs delays everybody.
//   - A window begins small and is halved by a failure: else an endpoint that comes back
//     is buried under what has piled up.
//   - Attempts, deliveries and health are settled in one transaction: else a crash
//     leaves an attempt that no health knows of.
//
// What a webhook and a delivery are, and when a delivery is tried again, is decided by
// package webhook; how they are stored, by package store.
package deliver
