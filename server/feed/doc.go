// Package feed follows the event log in its order.
//
// # A position, not a buffer
//
// A [Follower] is a position in the log and a bell. It reads what comes after its
// position, and where nothing does, it waits for the bell, then reads on. Whoever
// is slow keeps its position and nothing else, so it loses nothing and holds
// nobody up.
//
// # One tail, many followers
//
// A [Feed] reads the log once for everybody: [Feed.Run] keeps the newest events
// in one bounded tail, from which all followers read the same entries, so that an
// event is encoded once however many want it ([Entry.Form]). A follower that is
// behind the tail reads the log itself, a page at a time and few at a time, until
// it has caught up.
//
// There is a bell for each organization that somebody follows, one for all
// organizations, and one for each resource that somebody listens to. A change
// rings those that it concerns and wakes nobody else: ten thousand idle followers
// of other organizations cost memory only. One that was not rung knows that there
// was nothing for it, and moves on to the newest position without having read.
//
// # Cursors
//
// What the outside holds is a position sealed by [Cursors].
package feed
