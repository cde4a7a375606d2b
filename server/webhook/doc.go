// Package webhook knows what a webhook and a delivery are: which events go where,
// which headers and signatures a delivery has, when it is tried again, how the
// health of an endpoint is decided, and where a server may call at all.
//
// A [Webhook], a [Delivery] and an [Attempt] are plain values. Their methods and
// those of [Rules] are the rules of the product; whoever stores them calls a rule
// inside its transaction. Nothing here waits, or reaches for a network: the one
// thing that meets it is [Guard.Control], which a dialer calls with an address.
//
// Package deliver sends deliveries, package wire shows them, and client/hooks
// makes and verifies their signatures.
package webhook
