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
//     commitAtOnce does not, and is for changes that end or disable something, for
//     those of one delivery, and for the server's own; commitMany has a transaction alone, for a change of many rows.
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
// # Leases
//
// Servers that share a PostgreSQL database do the work of the background on one of them
// at a time, under a [Lease]. There are two: one for the fan-out and one for all jobs
// that change the database. The fan-out is what callers wait for, so jobs that are slow
// must not be in its way, and the two can be on two servers. A lease for each job would
// be more rows to renew each second, for work that takes milliseconds a minute.
//
// A lease ends 5 seconds after its last renewal, by the clock of the database. Its token
// grows at each taking. The context of the work has the token: transact and the groups
// check it inside their transaction and lock the row FOR KEY SHARE until the end. A
// renewal passes by that lock. A taking asks for the row FOR UPDATE and so waits for the
// transaction. So a server that was paused past its lease writes nothing under it when it
// wakes, and nothing of it commits after another's first transaction has begun.
//
// Leases have a connection of their own: they are renewed whatever the other pools wait
// for. On SQLite, which one server has open, none of this costs a statement.
//
// # Faults of PostgreSQL
//
// A transaction ends within statementsTimeout, whatever the network does. PostgreSQL
// itself ends it sooner (postgresTimeouts): where it waits for a lock that another
// client holds, and where its server is paused or cut off in the middle. What a paused server has
// locked is free again before those give up who wait for it. Direct connections are begun
// with these bounds; behind PgBouncer each transaction sets them.
//
// A connection that is lost, or leads to a primary that has become a standby, is given
// up. The next one is made to whichever host of the URL fits.
//
// # The queue of deliveries
//
// Deliveries are taken under leases, each with a token that settling asks for. When a
// delivery is due, and when a lease ends, is in due_at, by the clock of the queue: the
// store's on SQLite, the database's on PostgreSQL, where several servers take from one
// queue. There a claim is one statement over a connection for reads: it passes locked
// rows over and so waits for nobody. On SQLite a claim looks for rows without the writer
// and takes those that have not changed since. Opened webhooks, by their version, and
// events, which do not change, are kept from claim to claim.
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
// # Other servers
//
// Several servers can share a PostgreSQL database. [Store.NextEvents] reads the log for
// the one who follows it, over a connection of its own past any pooler, and brings the
// database's time. After a commit the others are told by NOTIFY, over another connection
// and outside the transaction, one notice at a time; [Store.ExchangeNotices] hears theirs
// by LISTEN. Notices are hints: nothing is wrong without them, only later.
//
// # Locks
//
//   - group.mu guards the queue of changes. It is held for a few instructions, never
//     during a statement.
//   - The writer's one connection is the lock of all writes. Whoever leads a group
//     has it from its first statement to the commit; transact waits for it in
//     database/sql.
//   - faults.mu guards the fault of the storage that stands.
//   - opened.mu and recentEvents.mu guard what claims keep. No other lock is taken under
//     them, and no statement runs.
//   - notices.mu guards what other servers are to be told. It is held for a few
//     instructions, and no other lock is taken under it.
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
//   - Work under a lease uses the context that it was given. With another one, a server
//     that was paused would go on beside the new holder.
//   - The rows of a fan-out and its position are one transaction. Two would lose a
//     delivery, or make one again that was deleted.
//   - A lease is never by a server's own clock where servers share a database: one whose
//     clock is fast would take what others are sending.
//   - A commit over a network whose connection is lost may have been made. Answered
//     as not made, its caller would do it twice; see outcome.
//   - OnCommit comes before the answer. After it, a caller could still be served
//     from a cache what it has just revoked.
package store
