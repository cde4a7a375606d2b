// Package apikey knows what an API key is and what happened to it. It is pure:
// nothing here reads a clock, a file, a database or a network.
//
// A [Key] is a value. Its methods are the rules of the product: what a [Patch]
// may change, what a state forbids, when a notice of expiry is due, and what a
// caller that is itself a key may grant ([Key.Within]). Whoever stores a key
// calls a rule inside its transaction, and keeps what the rule left behind
// together with the [Event] that tells of it.
//
// A [Secret] is what a holder presents. It is shown once and kept only as an
// HMAC under a pepper that is not in the database (package keyring).
package apikey
