// Package identity finds out who a person or a workload is by the access token that an
// OpenID Connect issuer gave it, and what that token is good for here.
//
// An [Issuer] is what the configuration says of one issuer: whose tokens are taken, for
// which audience, signed by which algorithms, and what their claims mean. [Issuers]
// checks tokens, in this order:
//
//  1. The form: three parts in base64url, strict JSON without a name twice, 8 KiB at most.
//  2. The issuer is one of the configured, to the character.
//  3. The header: an allowed algorithm, all of which are asymmetric; an accepted type; no
//     key of its own; no extension that must be understood.
//  4. The claims: subject, audience, expiry, not before, issued at; no ID token.
//  5. The key and the signature.
//  6. What the claims mean: organizations and scopes. What they do not say is not held.
//
// Steps 1 to 5 prove who calls. A token that fails there is a bad credential like any
// other, in the same words. A token that passes and means nothing here is refused as a
// caller that may not call. Why, is in the error that goes to the log, never in the
// answer; no error holds the token.
//
// # Keys
//
// The keys of an issuer are read from a file, or fetched when the first token needs them:
// an issuer that is down keeps no server from starting. A key set is used for an hour at
// most, and fetched anew once it is five minutes old and in use; one that is ten minutes
// old, because it was not in use, waits for that fetch. A token with an unknown
// key id asks for a fetch too. There is one fetch at a time for an issuer, and none within
// ten seconds of the last, whatever tokens arrive. Where there is no key set to check with,
// the answer is that the token cannot be checked now, which is not that it is bad.
//
// # Memory
//
// A token whose signature was good is remembered by its SHA-256 for a minute, but never
// beyond its expiry nor beyond a change of its issuer's keys. Nothing is remembered of a
// token that nobody signed. There is no other state: a person has no row anywhere, and a
// token is as good as its claims say until it expires.
//
// # Locks
//
// Issuers.mu guards the remembered tokens, and keySource.mu the keys of an issuer. None is
// held while another is taken, nor during a fetch or a signature check.
package identity
