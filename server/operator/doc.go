// Package operator says what an access token of an operator is: a credential with a
// name, which may do some things in some organizations. It holds the rules by which
// tokens are made and changed, the roles, and what a call with a token may do.
//
// A [Token] is to operators what a key is to an application, and its secret is kept as
// a key's is: as a hash under a pepper, with the one before its last rotation for as
// long as both work.
//
// Nobody grants more than they hold: [CheckChange] checks every change of a token by
// the rights of the caller, with the rule that keys have ([apikey.Rights.CheckWhole])
// and the organizations besides. A caller sees the tokens of its own organizations:
// [Token.Within].
//
// The root tokens are no Tokens: a server has one, and it may do everything.
//
// The package is pure: it depends on nothing but its arguments.
package operator
