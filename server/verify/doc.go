// Package verify judges secrets: is this key good, now, from here, for that?
//
// # Never late
//
// A secret's HMAC finds an immutable entry in a bounded cache, and everything
// that time or the call decides (expiry, overlap, address, scopes, limits) is
// judged anew in each call. A change of a key ends its entries through
// [Verifier.Evict] before anyone is told that the change was made, and a load
// that was on its way at that moment can neither be kept nor joined.
// So whatever starts after a change was answered sees the change.
//
// Junk fails at its checksum and never reaches storage. A well-formed secret that nobody
// has costs one indexed read, and few reads run at a time, so that a flood of
// them starves no one. Nothing is remembered of it.
//
// # Counting
//
// Limits and counters belong to the key, not to the secret: both secrets of a
// rotation share one state. Counters are added up in memory and written in one
// batch a second by [Verifier.Run].
package verify
