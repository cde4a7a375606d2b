// Package hooks verifies webhook deliveries, for receivers written in Go, and
// signs them. It needs the standard library alone.
//
// A receiver calls [Verify] with the webhook's secret, the headers, and the body
// byte for byte as it was received. A delivery carries two signatures:
//
//   - webhook-signature, of Standard Webhooks: it covers the delivery's id, the
//     time of the attempt and the body. [Verify] checks this one, and refuses an
//     attempt that is older than [Tolerance].
//   - X-Webhook-Signature, which covers the body alone: [SignClassic] makes it.
//
// A delivery can come more than once, always with the same webhook-id. A receiver
// for which that matters remembers those ids.
//
// [Sign] and [NewSecret] are for the sender, and for tests of a receiver.
package hooks
