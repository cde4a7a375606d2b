// Package authn finds out who is calling: an operator with an access token, a person or
// a workload with the token of an OpenID Connect issuer (package identity), or an API
// key that was issued here, and from which address.
//
// A call made with a key is a verification of that key: the same checks, the
// same counters, the same limits. Every reason for which a credential proves
// nothing gets one and the same answer, so that an outsider learns nothing about
// which keys exist.
package authn
