// Package keyring holds the secret keys of a server: those of its secrets file,
// and all that is done with them.
//
//   - Peppers hash the secrets of API keys, for verification.
//   - The edge key hashes them a second time, for programs at the edge.
//   - Encryption keys seal what must be read again: the secrets and header values
//     of webhooks.
//   - Cursor keys seal cursors.
//
// The package promises that no key ever leaves it: a [Key] prints as its id, and
// no error repeats a part of one. It promises that a file is never replaced by new
// keys, and that a database can tell by check values whether a file is its own.
//
// A pepper, an encryption key or a cursor key is replaced by a new key in front of
// its list; the older ones still read what was written under them. The edge key
// has no successor: a row does not tell which edge key it was hashed under.
//
// What is hashed and sealed, and where it is stored, is for others.
package keyring
