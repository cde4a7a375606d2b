// Package contexts keeps what a person's command line knows of servers: how each is
// reached, under a name, and the credential to call it with.
//
// Contexts are in one YAML file, config.yaml, mode 0600. It holds no credential: that
// is in the keyring of the system, or where there is none in the file credentials
// beside it, mode 0600. A context says which of the two has its credential, so that a
// command asks the keyring only where there is something to find.
//
// Files are written beside their place and moved there: a reader finds the file of
// before or of after, and a crash leaves one of them. Two programs that write at the
// same time wait for each other (Update).
package contexts
