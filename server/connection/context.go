package connection

import (
	"context"
	"net"
	"net/http"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

type connKey struct{}

// WithConn returns the context of the requests over c, for the ConnContext of an
// http.Server whose listener is a [Table]'s.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	if conn := under(c); conn != nil {
		return context.WithValue(ctx, connKey{}, conn)
	}
	return ctx
}

// under returns the connection of a table that c is, or that it is laid over; nil where
// it is none.
func under(c net.Conn) *Conn {
	for range 3 { // TLS, and what looks at the first bytes
		if conn, ok := c.(*Conn); ok {
			return conn
		}
		over, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = over.NetConn()
	}
	return nil
}

// MaxHeaders is how many headers a request may have, over HTTP/1.1 too, where their
// bytes alone would allow some ten thousand.
const MaxHeaders = 2048

// TooManyHeaders reports whether a request has more than [MaxHeaders].
func TooManyHeaders(header http.Header) bool {
	count := 0
	for _, values := range header {
		count += len(values)
	}
	return count > MaxHeaders
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
	if c := under(raw); c != nil && err == nil {
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
