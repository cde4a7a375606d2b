// Package deliver makes deliveries of events and sends them: it claims those that are due
// from the queue, makes their bodies, posts them, and settles what came of it.
//
// A change's transaction knows nothing of webhooks. A [FanOut] follows the log and makes
// the deliveries: for each organization, in the order of its events, one for each webhook
// that was enabled and subscribed at the event's place in the log. What was subscribed to
// at a place stands in terms ([webhook.Term]). Rows and position are written in one
// transaction, so that it goes on after a crash from where it stood: nothing is missing,
// nothing is there twice. Organizations take turns. A turn has the writer for about 5
// ms; after it comes a pause of three times as long as the turn had the writer.
//
// Where servers share a database, [FanOut.Run] is called on one of them at a time. It is
// told of the events of all servers, begins with a look at every organization that has
// webhooks, and forgets everything when it returns. How far it is behind is then read
// from the database ([Backlog]), on every server that holds changes back.
//
// The row of a delivery has no body: [Body] is a pure function of the row and its event,
// so every attempt sends the same bytes. The event is rendered once for all deliveries
// that are claimed of it. A [Client] makes one attempt, which is one
// request. Its endpoints are chosen by whoever may make webhooks, so it trusts nothing:
// [webhook.Guard] checks each address when the connection is made, and everything that
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
// A claim is begun at once, or prefetched: claimed for an endpoint that does well and
// answers quickly while there is no room for its attempt yet. The room that an attempt
// leaves has the next at once then, while the queue is asked for more and what is over is
// settled. What is prefetched is bounded, in all and for each endpoint, host and
// organization. It is given back, uncounted, where it has waited for a second, its
// endpoint fails, or the worker stops.
//
// An organization, in the fan-out, is idle (it has no new events), queued, has its
// turn, or is paused after a turn that failed; one that is told of during its turn is
// queued again after it. Where the turns of several fail one after the other, the
// database is away, and all of them wait. What it knows is in
// memory only to save reads: the position in the database is what counts.
//
// # Goroutines and locks
//
// [FanOut.Run] is one goroutine. Its mutex guards who is queued, and is held for no
// call.
//
// [Worker.Run] has one goroutine that claims, one that settles, and one for each
// attempt, which goes on with what is prefetched. They meet in the scheduler, under its one mutex, which is held for no call;
// methods whose names end in Locked need it. Results go over a channel that has room
// for every attempt, so an attempt never waits for the database.
//
// # Several servers
//
// Servers that share a database share its queue: a claim passes over what another server
// is just taking, and a lease is by the database's clock. The worker looks through the
// queue every [WorkerConfig.Rescan], and when [Worker.Look] tells it to, so that it finds
// what another server has made, or had when it died. A server that stood still for longer
// than its leases settles nothing that another holds by then, and begins no attempt that
// its lease could end in.
//
// # What breaks if a rule is dropped
//
//   - An attempt settles only under the lease that it was claimed with: else two
//     attempts of one delivery count as one.
//   - An attempt begins only while the first half of its lease runs: else a server that
//     stood still sends what another is sending.
//   - Nobody takes a delivery whose lease runs, whatever callers do to it: else two
//     attempts go out at once.
//   - The fan-out reads events before terms: else an event could be in the log whose
//     terms it has not seen.
//   - Deliveries are picked by endpoint, never the oldest of all, and failing endpoints
//     have half of the room: else one that hangs delays everybody.
//   - Nothing is prefetched for the shares that an endpoint waits for which is new, slow
//     or failing: else the room never comes free that it waits for.
//   - Prefetched claims begin beside what the queue is being asked for: else both take
//     the same room, and more attempts are under way than a host may have.
//   - Organizations take turns, and each organization and each host has a bound: else
//     an organization with a hundred webhooks takes the room of those with one.
//   - A window begins small and is halved by a failure: else an endpoint that comes back
//     is buried under what has piled up.
//   - Attempts, deliveries and health are settled in one transaction: else a crash
//     leaves an attempt that no health knows of.
//
// What a webhook and a delivery are, and when a delivery is tried again, is decided by
// package webhook; how they are stored, by package store.
package deliver
