// Package webhook delivers events over HTTP: it knows what a webhook and a
// delivery are, which events go where, what a delivery's body and signatures
// look like, when it is tried again, and where a server may call at all.
//
// A [Webhook], a [Delivery] and an [Attempt] are plain values. Their methods
// and those of [Rules] are the rules of the product; whoever stores them calls
// a rule inside its transaction. The row of a delivery has no body: [Body] is a
// pure function of the row and its event, so every attempt sends the same bytes.
//
// A [Client] makes one attempt. Its endpoints are picked by strangers, so it
// trusts nothing: the [Guard] judges each address after its name was resolved,
// when the connection is made, and everything that an endpoint can send is
// bounded in size and time.
//
// [Verify] is for the other end: a Go program that receives deliveries.
package webhook
