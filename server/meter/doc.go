// Package meter keeps what verifications spend and count: the rate limiter of each
// key, what this server holds of its quota and of its exact rate limit, and its
// counters. Several servers on one database have a meter each.
//
// # What it promises
//
//   - A rate limit and a quota belong to the key, not to one of its secrets: both
//     secrets of a rotation share one [Counters], and so do all cached copies of a
//     key.
//   - A refusal spends nothing. All limits are looked at before one is spent.
//   - A quota is never granted twice. Units are taken off storage before they can be
//     spent; a crash loses those that were held, at most a block ([apikey.Block]).
//     That holds for all servers together: each reserves from the same row.
//   - An exact rate limit holds for all servers together: in any time of d seconds
//     they spend at most requests + d * requests / window_seconds, however their calls
//     interleave, and whatever crashes. The proof is [apikey.SharedLimiter]. Times are
//     those of [Config].Now: where the clocks of two servers differ by e seconds, e
//     counts to d.
//   - What is reserved and not used goes back: of an exact rate limit after two seconds,
//     of a quota after ten ([Meter.ReturnIdle]). So what a server refuses while another
//     holds it can be spent soon after.
//   - Counts are exact after a clean stop. [Meter.Run] stores them once a second; a
//     crash loses at most the last second.
//   - A cost of zero spends and counts nothing.
//   - Refused uses are counted exactly, and the newest are on record: those of the last
//     second are in memory, at most maxHeld of them, shared between organizations.
//
// Local rate limits are kept in memory alone and are full after a restart. Whether a key
// may be used at all is decided by package verify; meter only charges.
//
// # States of counters
//
//	held ──Release──▶ unused ──Sweep──▶ retired
//	  ▲                  │
//	  └─────Acquire──────┘
//
// Counters are held while a cached key points to them. Unused ones stay while they
// have something that new ones would not have: counts that are not stored, a burst
// that is not whole, units of a quota, a block of an exact rate limit that is not
// settled, or calls that wait. Sweep retires the others.
// A call that still has retired counters asks the registry for those that took their
// place ([Meter.Charge] does so), or a key would have two budgets.
//
// # States of a reservation
//
//	waiting ──nextBatch──▶ in flight ──complete──▶ done
//
// A call that needs more units of a quota, or more requests of an exact rate limit, than
// are held joins the key's reservation, or makes
// one, and gets a [Ticket]. One goroutine asks storage for all that are waiting in
// one transaction. A call that comes while its key's reservation is in flight waits
// for the end of it and asks again. While a quota is being set, its reservations stay
// waiting ([Meter.PauseQuota]).
//
// # Life of a block
//
// What is reserved of an exact rate limit is one block, and is not refilled while it is
// held. It is given back, with how much of it was spent and when, by the next ask, by
// ReturnIdle or at the stop; what was spent is refilled from then. How large the next one
// may be follows from how fast the last one was spent, so a key that is seldom used
// never has any more reserved than its calls cost. A block of which storage hears no
// more counts as spent when it ends, which is some seconds after its server has
// stopped to spend of it. An ask whose answer is lost is such a block, and so is the
// one that it gave back: giving it back twice would take it off what others hold.
//
// # Locks
//
// They are taken in this order, each at most once:
//
//  1. reservations.returns: held from taking units out of a budget until they are
//     stored, and from asking for units until they are in their budgets; of blocks
//     likewise.
//  2. Counters.mu: everything of one key.
//  3. registry.mu: which keys have counters, and which of them are to be stored.
//  4. reservations.mu: which reservations are waiting, in flight and paused.
//  5. refusals.mu: the refused uses that are not stored yet.
//
// Nobody holds two Counters. Nobody waits for storage with any lock but
// reservations.returns. Sweep goes from registry.mu to Counters.mu, and therefore
// only tries the latter.
//
// What breaks when a rule is dropped:
//
//   - without returns, whoever sets a quota finds less stored than is left, and a call
//     is refused for units that are on their way back;
//   - storing units before they are taken out of the budget grants them twice;
//   - refilling what is reserved, as if it were spent, lets a server save it up, and all
//     of them together spend more than a burst;
//   - retiring counters that a flush is sending puts the same key into two flushes,
//     and a failure of the first loses its counts.
package meter
