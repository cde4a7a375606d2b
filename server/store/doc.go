// Package store keeps keys, their events and their counters, and is the only
// room that knows ent and SQL.
//
// Each change is one transaction. A method that changes a key takes the
// rule to apply as a function, runs it on the key as it is inside the
// transaction, and appends the event that tells of it in the same transaction:
// no change without its event, no event without its change. Rules must be pure
// and quick, because they run while the one writer is held.
//
// Changes that wait at the same time are committed together ([Store.write]).
package store
