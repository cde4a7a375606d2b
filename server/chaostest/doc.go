// Package chaostest runs several replicas on one PostgreSQL database, breaks what
// can break, and holds what clients saw against what the contract promises. It has
// tests alone.
//
// A run has three replicas, each a process of its own, with a TCP proxy between each
// of them and the database; a primary and, where it is wanted, a streaming standby;
// receivers of webhooks; and a load that creates, changes, verifies and revokes keys,
// spends quotas and follows the log through all replicas at once. Meanwhile replicas
// are killed (SIGKILL), paused (SIGSTOP) and cut off, and the database is restarted,
// slowed down or replaced.
//
// The tests take minutes and the whole machine, so they are run by themselves:
//
//	go test -count=1 ./server/chaostest -chaos=75s             # faults, then a random run
//	go test -count=1 -run Random ./server/chaostest -chaos=10m # the long random run
//	go test -tags broken -run Broken ./server/chaostest -chaos=2m
//
// Without -chaos only the checkers are tested. The last line is about builds that are
// broken on purpose: the package broken names them.
//
// # What is checked
//
// Every call is recorded with the times of its call and its return by one monotonic
// clock. A call without an answer has an open end: it may have been made, at any time
// after its call, or never. After the run:
//
//   - keys: each key is a register with revoke as final. For each replica the changes
//     answered by it are in force at once, those answered by another within a second,
//     and what is read from storage shows all of them (porcupine).
//   - quotas: a counter with a floor: never more is granted than the limit (porcupine);
//     exact rate limits: no more in any time than the burst and what that time refills.
//   - the log: gap-free, each answered change has one event, in an order that respects
//     who was answered before whom (porcupine).
//   - watchers: ordered, unique, complete, resumable by cursor on another replica, exact
//     to their filter, and their heartbeats are true ([servertest.History]).
//   - deliveries: for each event one for every webhook that was subscribed at its place,
//     none else; sent again after an acknowledgement only around a fault.
//   - answers: a replica that runs answers within a bound, with a code that the contract
//     names; UNAVAILABLE says when to try again.
//   - recovery: without a hand every replica serves again, within a bound.
//
// # How to read a failure
//
// A run keeps its files in a folder, which it prints, and removes the folder if it
// passes: the log of each replica and of PostgreSQL, faults.txt with what was broken
// when, violations.txt, and history.jsonl with every operation, a JSON object a line, its times in
// microseconds from the start of the run. A violation names the key, or the event,
// and the replica. Look for its id in history.jsonl and for the times in faults.txt.
// For what porcupine found, the path of a page is printed that shows the partition: the
// operations on a line for each client, and how far they can be put in an order; the
// first that fits nowhere is marked.
//
// -chaos.seed repeats the choices of a run, though not its timing.
package chaostest
