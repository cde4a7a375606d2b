// Package feed follows the event log in its order.
//
// # A position, not a buffer
//
// A [Follower] is a position in the log. It reads what comes after its position,
// and where nothing does, it waits for a wakeup, then reads on. A slow follower
// keeps its position and nothing else, so it loses nothing and holds nobody up.
//
// # One tail, many followers
//
// A [Feed] reads the log once for everybody: [Feed.Run] keeps the newest events
// in one bounded tail, from which all followers read the same entries, so that an
// event is encoded once however many followers there are ([Entry.Form]). A
// follower that is behind the tail reads the log itself, a page at a time and few
// at a time, until it has caught up.
//
// There is a notifier for each organization that somebody follows, one for all
// organizations, and one for each resource that somebody subscribed to
// ([Subscription]). A change wakes those that it concerns and nobody else: ten
// thousand idle followers of other organizations cost memory only. A follower that
// was not woken knows that there was nothing for it, and moves on to the newest
// position without having read.
//
// # A log that several servers write
//
// On PostgreSQL other servers append to the same log. Their notices ([Feed.Hear]) wake
// Run, and its poll finds what no notice told of. Each batch that Run reads goes to
// Config.Apply before a follower is told of it: there the caches of this server drop
// what has changed, and work that others have made is woken.
//
// A [Clock] is set by each read. It has the database's time, by which all servers of a
// database go, and the moment when the newest read began. What is remembered of the log
// is good while that is less than [MaxAge] ago; after that whoever remembers must ask
// the database, and [Feed.Broken] is true until a read has ended. The clock of that
// counts while the process is stopped, and while the machine is suspended, since the time
// of day then parts from the monotonic clock. Nothing on a machine tells of a pause in
// which all its clocks stand still, as when a hypervisor stops a guest: then what is
// remembered is up to MaxAge older than the pause.
//
// A database that has lost the newest part of its log, as a standby that was behind has
// when it takes over, is noticed by the id of the event at the feed's position. Everything
// remembered is dropped then, and followers end with [ErrReplaced].
//
// # Cursors
//
// What the outside holds is a position sealed by [Cursors].
//
// # The states of a follower
//
//   - behind: its position lies before the tail; it reads pages of the log.
//   - in the tail: it reads entries that others read too.
//   - waiting: it has read all; it holds the wakeup of its notifier.
//
// # Locks
//
// One lock, [Feed]'s mu, guards the tail, newest and every notifier. It is never
// held during a read of the log, an encoding or a send. Followers read under its
// read lock; publish, notifyAgain, acquire and release take it alone. Entry.Form has a
// sync.Once for each view, outside mu. Each follower is for one goroutine. The clock is
// one atomic pointer to an immutable [Reading]. Run calls Config.Apply without a lock.
//
// # What breaks if a rule is dropped
//
//   - The tail has no gaps and ends at newest. Without that a follower would pass
//     an event by: publish empties a tail that it cannot continue.
//   - A follower takes the wakeup under the same lock under which it saw that
//     there is nothing new. Between two locks a commit would be missed until the
//     next one.
//   - A wakeup keeps how far the feed had read before it. Without that a follower
//     that waited long would have to read everything in between, which was not
//     for it.
//   - Notify comes after the commit. Before it, Run would find nothing and sleep.
//   - Notify comes after caches have dropped what was changed, and wakes the
//     subscriptions once more where Run, by its poll, was faster. Without that a stream
//     would be checked against its key of before the change, and against nothing after it.
//   - A batch is applied before it is published, and both before the clock is set. Else a
//     stream would be checked against a key of before the change, or an entry be served
//     that was to be dropped.
//   - A reading of the clock begins when its read begins. From its end on, what was
//     committed during a slow read would count as seen.
//   - A reading is taken only of a read that came to the end of the log.
//
// The package leaves to others which events a caller may see, how events are
// stored, and how they are sent.
package feed
