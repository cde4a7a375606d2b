// Package apikey knows what an API key is and what happened to it. It is pure:
// nothing here reads a clock, a file, a database or a network.
//
// A [Key] is a value. Its methods are the rules of the product: what a [Patch]
// may change, what a state forbids, and when a notice of expiry is due. Whoever
// stores a key calls a rule inside its transaction, and keeps what the rule left
// behind together with the [Event] that tells of it.
//
// A [Caller] is whoever asks for a change. Its [Rights] say what it may do, and
// nobody grants more than they hold ([Rights.CheckChange]). Both are checked inside
// the transaction of the change, against the row of the caller's key as it is there
// ([Caller.Admit]): after the event that ends or narrows a key, the log holds nothing
// that the key may no longer do. A call with a previous secret has rights that end
// with its overlap, and may not touch its own key ([Rights.CheckSecret]).
//
// A [Secret] is what a holder presents. It is shown once and kept only as an
// HMAC under a pepper that is not in the database (package keyring).
package apikey
