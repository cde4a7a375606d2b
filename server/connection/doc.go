// Package connection bounds what one client can make a listener hold: how many
// connections there are, how long a connection may go without a good credential,
// how long a message may take to arrive, and how long an answer may lie unread.
//
// A [Table] knows every open connection of every listener. A [Conn] is one of
// them, and a [Call] is one call on it. The rules:
//
//   - Connections are counted in all and for each address (an IPv4 address, or the
//     /64 network of an IPv6 address). Where a new connection finds no room, the
//     oldest connection that has shown no good credential is closed to make room,
//     so that clients without a credential never keep out a caller.
//   - A connection that has shown no good credential for a while is closed. A
//     served health check starts that time anew.
//   - Calls with bad credentials are paced by address: a connection that has shown
//     nothing but bad ones is read from more slowly. A connection that has shown a
//     good credential is never paced.
//   - A connection whose client does not take what is written to it is not read
//     from, so that answers do not pile up behind a blocked write.
//   - The bytes of an answer are counted, for its caller and in all, from its
//     marshalling until the transport has released them. An answer that was not
//     taken in time closes its connection.
//   - The calls of a caller are counted, for the caller and in all, from the good
//     credential until the transport has released the answer.
//
// Nothing here costs a timer or a clock reading for a call. One goroutine,
// [Table.Run], looks at all connections a few times a second and keeps the time
// that calls are stamped with.
//
// Locks: Table.mu guards the connections, addresses and accounts; Conn.mu guards
// the calls of a connection and its pause. Neither is taken while the other is held.
package connection
