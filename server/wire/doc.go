// Package wire is what the outside sees: keys, events, webhooks and deliveries as
// protobuf messages, and the one JSON form of every message.
//
// The JSON form is worked out from descriptors, so a field that is added to a
// proto needs no code here. Names are the ones of the proto, in the order of
// their declaration, and every field is there: an unset message, time or
// optional field is null, an empty list [], a map an object with sorted keys.
// Numbers are numbers, 64 bits wide too. An enum's value is its word in lower
// case without the type's prefix, a time "YYYY-MM-DD HH:MM:SS" in UTC. The
// same message gives the same bytes wherever it is shown: in an answer of the
// REST face, in a line of a stream, in the body of a webhook.
//
// Reading is strict, because what is guessed today is a promise tomorrow: no
// unknown, repeated or read-only names, no text for numbers, nothing that is
// not UTF-8. All faulty fields are reported at once, in words for whoever has
// to correct them.
package wire
