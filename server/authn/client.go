package authn

import (
	"context"
	"net"
	"net/netip"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Client is where a request came from, as the connection and its proxies say.
type Client struct {
	// Addr is the other end of the connection; the zero Addr is unknown.
	Addr netip.Addr
	// ForwardedFor are the lines of X-Forwarded-For in their order.
	ForwardedFor []string
}

type clientKey struct{}

// WithClient returns a context that says where its request came from. It is for
// requests that reach the services over the connection inside this process; what
// a remote gRPC client says of itself is never read from here.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// clientOf returns where a call came from. The context of the one who calls
// inside the process is one that no remote call has, and metadata, which a remote
// client writes, is believed only from a trusted proxy.
func clientOf(ctx context.Context) Client {
	if local := inprocgrpc.ClientContext(ctx); local != nil {
		c, _ := local.Value(clientKey{}).(Client)
		return c
	}
	return Client{Addr: Peer(ctx), ForwardedFor: metadata.ValueFromIncomingContext(ctx, "x-forwarded-for")}
}

// Peer returns the address of the other end of the connection of a call over gRPC; the
// zero Addr is unknown.
func Peer(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	if tcp, ok := p.Addr.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr()
	}
	addr, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr()
}

// Address returns where a call came from, for the log: the client's address or,
// where that is unknown, the connection's.
func (a *Authenticator) Address(ctx context.Context) netip.Addr {
	c := clientOf(ctx)
	if addr := c.address(a.trusted); addr.IsValid() {
		return addr
	}
	return c.Addr
}

// address returns the client's address, as [apikey.ClientAddress] has it.
func (c Client) address(trusted []netip.Prefix) netip.Addr {
	return apikey.ClientAddress(c.Addr, c.ForwardedFor, trusted)
}

// Forwarded returns the address of the client that a gateway speaks for, as
// [apikey.ForwardedAddress] has it.
func (c Client) Forwarded(trusted []netip.Prefix) netip.Addr {
	return apikey.ForwardedAddress(c.Addr, c.ForwardedFor, trusted)
}
