// Package verify answers: is this key good, now, from here, for that?
//
// It has three operations: [Verifier.Verify] (and [Verifier.VerifyBatch]) for a
// secret that somebody else presented, [Verifier.Authenticate] for the key that a
// call is made with, and [Verifier.Recheck] for a call that is still under way. All
// do the same: look the secret up, check the key, charge it. The order of checks is
// [apikey.Check]; limits and counters are kept by package meter; who may ask is
// decided before, by package authn.
//
// # Never late
//
// A secret's HMAC finds an immutable entry in a bounded cache. Everything that time
// or the call decides (expiry, overlap, address, scopes, limits) is checked anew in
// each call. Entries are dropped by the id of their key, by [Verifier.Drop] alone.
// The commit of a change calls Drop before anyone is told that the change was made, so
// whatever starts after a change was answered sees the change. For changes of other
// servers whoever follows the log calls the same function.
//
// With a Config.Clock, which says that there may be other servers, an entry is used only
// while a read of the log has ended that began less than 800 ms ago. Else, and for what
// is not in memory, the row is read; a call joins only a read that began less than 800 ms
// ago, so there is about one for each key, and one that takes more than two seconds is
// answered as unavailable. The reading of the clock is taken before the look into memory
// and compared with the time after it: whatever the reading tells of was dropped before
// the look, however long the process was stopped in between.
//
// A read of a key tells the position of the log that the read saw. Where that is older
// than the newest drop of the key, the read is answered to the calls that had begun
// before the drop. Its entry is not kept, and no later call joins the read. Positions
// of drops are remembered until every read that began before them has ended.
//
// Junk fails at its checksum and never reaches storage. A well-formed secret that
// nobody has costs one indexed read, and few reads run at a time, so that a flood of
// them starves no one. Nothing is remembered of it. Memory is bounded: by
// Config.CacheSize, and by the number of calls under way.
//
// # States
//
// A secret is missed, looked up (one [lookup], which later calls join), and cached
// or not. A lookup is closed to joiners when it ends, when all its callers have gone,
// and at every drop.
//
// # Observations
//
// What verifications come to, and how long they take, can be counted: see
// [Observations]. That costs a verification from memory a random number and one
// addition, no lock and no allocation.
//
// # Locks
//
// They are taken in this order:
//
//  1. cache.mu: lookups, reads and drops. It is held while entries are added and
//     dropped.
//  2. the locks of otter, inside its methods.
//  3. index.mu: the entries of each key. Otter's callback takes it.
//  4. those of package meter; registry.mu alone is taken under cache.mu.
//
// A warm verification takes none of the first and third. Nobody waits for storage
// with any of them.
//
// What breaks when a rule is dropped:
//
//   - without the positions, a read that was slow puts a revoked key back into the
//     cache, where it stays good;
//   - without closing lookups at a drop, a call that starts after a revocation was
//     answered joins a read from before it;
//   - with a reading taken after the look into memory, an entry that was found before it
//     was dropped would be served as if it were new;
//   - with entries for secrets that nobody has, a key would stay unknown after it was
//     made, and a flood of secrets would push out those that are in use.
package verify
