// Package wire is the domain as protobuf: keys, verifications, usage, events, webhooks
// and deliveries become the messages that the outside sees, and requests become values
// of the domain.
//
// It promises that a secret, a header's value or a stored hash is in no message, that a
// message is a function of its arguments alone, and that the payload of an event is one
// form: equal resources have equal bytes.
//
// It leaves out the JSON of a message, which is package json below, and all checks:
// what a request asks for is checked by the rules of packages apikey and webhook.
package wire
