// Package meter keeps what verifications spend and count: the rate limiter of each
// key, what this server holds of its quota, and its counters.
//
// # What it promises
//
//   - A rate limit and a quota belong to the key, not to one of its secrets: both
//     secrets of a rotation share one [Counters], and so do all cached copies of a
//     key.
//   - A refusal spends nothing. All limits are looked at before one is spent.
//   - A quota is never granted twice. Units are taken off storage before they can be
//     spent; a crash loses those that were held, at most a block ([apikey.Block]).
//   - Counts are exact after a clean stop. [Meter.Run] stores them once a second; a
//     crash loses at most the last second.
//   - A cost of zero spends and counts nothing.
//
// Rate limits are kept in memory alone and are full after a restart. Whether a key
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
// that is not whole, units of a quota, or calls that wait. Sweep retires the others.
// A call that still has retired counters asks the registry for those that took their
// place ([Meter.Charge] does so), or a key would have two budgets.
//
// # States of a reservation
//
//	waiting ──nextBatch──▶ in flight ──complete──▶ done
//
// A call that needs more units than are held joins the key's reservation, or makes
// one, and gets a [Ticket]. One goroutine asks storage for all that are waiting in
// one transaction. A call that comes while its key's reservation is in flight waits
// for the end of it and asks again. While a quota is being set, its reservations stay
// waiting ([Meter.PauseQuota]).
//
// # Locks
//
// They are taken in this order, each at most once:
//
//  1. reservations.returns: held from taking units out of a budget until they are
//     stored, and from asking for units until they are in their budgets.
//  2. Counters.mu: everything of one key.
//  3. registry.mu: which keys have counters, and which of them are to be stored.
//  4. reservations.mu: which reservations are waiting, in flight and paused.
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
//   - retiring counters that a flush is sending puts the same key into two flushes,
//     and a failure of the first loses its counts.
package meter
