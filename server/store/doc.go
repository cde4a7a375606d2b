// Package store keeps keys, webhooks, their events, counters and deliveries. It is
// the only package that knows ent and SQL.
//
// # One method, one transaction
//
// An exported method is one transaction; an unexported function is a query that
// takes the transaction. A method that changes a resource takes the rule to apply
// as a function, runs it on the resource as it is inside the transaction, and
// appends the event that tells of it in the same transaction: no change without
// its event, no event without its change. Rules must be pure and quick, because
// they run while the one writer is held.
//
// There are two ways to write:
//
//   - A change appends an event, or makes a delivery due at a caller's wish. Changes
//     that wait at the same time are committed together, each in a savepoint of its
//     own. commitChange waits where the organization's fan-out is far behind;
//     commitAtOnce does not, and is for changes that end something and for the
//     server's own; commitMany has a transaction alone, for a change of many rows.
//   - transact is for the rest: counters, leases, the fan-out, retention, settings.
//
// # Rights
//
// Each of the three takes the caller of the change, and checks in the transaction that
// this caller may write. A caller that is a key is checked by its own row: once for each
// caller of a group, and again after a sibling has changed that row. The caller's
// rights are then in tx.rights. By them appendKey and appendWebhook check what the
// change grants, and append checks in which organization the change is.
// So after the event that ends or narrows a key, the log holds nothing that the key
// may no longer do, and a new resource inherits the rule. The zero caller may change
// nothing; apikey.System makes the changes that time brings.
//
// # Turns
//
// A group takes its members in turn by the organization in which their callers act, so
// that one that makes many changes waits for itself. The changes of one organization
// keep their order.
//
// # Layers
//
// The payload of an event is the message of its resource, which package wire
// makes. Wire lies below the store, so the store calls it; an encoder handed in
// by Config would be one more name with one implementation.
//
// What the dialects do not have in common is in a backend, which sqlite.go and
// postgres.go return. Other code asks for the dialect for three things only: whether
// rows must be locked, how a statement is written, and whether a short read watches its
// context.
//
// All that reads keys reads keyRows: one list of columns, and one decoder. Times
// are cut to microseconds once, by truncateTimes and timestamp, before a rule's
// result is compared, told or stored.
//
// # Locks
//
//   - group.mu guards the queue of changes. It is held for a few instructions, never
//     during a statement.
//   - The writer's one connection is the lock of all writes. Whoever leads a group
//     has it from its first statement to the commit; transact waits for it in
//     database/sql.
//   - faults.mu guards the fault of the storage that stands.
//   - postgresLock.mu guards the connection that keeps a second server off a PostgreSQL
//     database. It is held during a statement on that connection. No other lock is
//     taken under it.
//
// The first three are taken in that order. None is held when a function of
// [Store.OnCommit] is called, which happens on the goroutine that leads, after the
// commit and before the members of the group are answered.
//
// # What breaks if a rule is dropped
//
//   - A group runs under the writer's own context. A statement that a caller's
//     context cancels inside a savepoint makes the driver roll the whole
//     transaction back and commit what follows statement by statement.
//   - A position is taken from the revision's row in the transaction of its event.
//     Taken before, a reader would pass a position that commits late, for ever.
//   - A member's refusal is answered after the commit too: it may rest on a change
//     of a sibling, which only the commit makes true.
//   - transact changes no key: it drops nothing from the cache.
//   - A caller is admitted inside the transaction. Checked before, a key would go on
//     for as long as its changes wait, behind the event that ended it.
//   - A term of a webhook ends and begins in the transaction of the event that changes
//     the webhook, at the event's position. Written later, the fan-out would go by what
//     was subscribed to before.
//   - The rows of a fan-out and its position are one transaction. Two would lose a
//     delivery, or make one again that was deleted.
//   - A commit over a network whose connection is lost may have been made. Answered
//     as not made, its caller would do it twice; see outcome.
//   - OnCommit comes before the answer. After it, a caller could still be served
//     from a cache what it has just revoked.
package store
