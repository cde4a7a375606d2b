package connection

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

type connKey struct{}

// WithConn returns the context of the requests over c, for the ConnContext of an
// http.Server whose listener is a [Table]'s.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	if secured, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = secured.NetConn()
	}
	if conn, ok := c.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, conn)
	}
	return ctx
}

// Of returns the connection of a request over REST, by its own context. It is nil
// where no table has it.
func Of(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// remote returns the connection of a call over gRPC, nil where no table has it.
func remote(ctx context.Context) *Conn {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(authInfo); ok {
			return info.conn
		}
	}
	return nil
}

// Credentials returns base such that the calls of a grpc.Server know their
// connection.
func Credentials(base credentials.TransportCredentials) credentials.TransportCredentials {
	return serverCredentials{base}
}

type serverCredentials struct {
	credentials.TransportCredentials
}

// ServerHandshake shakes hands as the base does.
func (s serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := s.TransportCredentials.ServerHandshake(raw)
	if c, ok := raw.(*Conn); ok && err == nil {
		info = authInfo{info, c}
	}
	return conn, info, err
}

// Clone returns a copy.
func (s serverCredentials) Clone() credentials.TransportCredentials {
	return serverCredentials{s.TransportCredentials.Clone()}
}

// authInfo is what the handshake found out, and the connection.
type authInfo struct {
	credentials.AuthInfo
	conn *Conn
}
