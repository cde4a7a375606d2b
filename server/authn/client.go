package authn

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
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
	c := Client{ForwardedFor: metadata.ValueFromIncomingContext(ctx, "x-forwarded-for")}
	if p, ok := peer.FromContext(ctx); ok {
		switch addr := p.Addr.(type) {
		case *net.TCPAddr:
			c.Addr = addr.AddrPort().Addr()
		default:
			if ap, err := netip.ParseAddrPort(addr.String()); err == nil {
				c.Addr = ap.Addr()
			}
		}
	}
	return c
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

// address returns the client's address: the connection's or, where that is a
// trusted proxy, the right-most forwarded entry that is not one. Entries further
// left are what the client itself may have written. An entry that does not parse
// where one is needed makes the address unknown; if all are trusted, the
// left-most is the client. Empty elements of the list are none (RFC 9110, 5.6.1.2).
func (c Client) address(trusted []netip.Prefix) netip.Addr {
	addr := c.Addr.Unmap().WithZone("")
	if !contains(trusted, addr) {
		return addr
	}
	// Lines are read from the last back, so that a long header from outside costs
	// no more than the hops that are looked at.
	for i := len(c.ForwardedFor) - 1; i >= 0; i-- {
		rest, more := c.ForwardedFor[i], true
		for more {
			var entry string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, entry = rest[:comma], rest[comma+1:]
			} else {
				entry, more = rest, false
			}
			if entry = strings.Trim(entry, " \t"); entry == "" {
				continue
			}
			if addr = forwarded(entry); !contains(trusted, addr) {
				return addr
			}
		}
	}
	return addr
}

// forwarded returns the address that an entry of X-Forwarded-For is, without the
// port that some proxies add. One that does not parse, or has a zone, is unknown.
func forwarded(entry string) netip.Addr {
	addr, err := netip.ParseAddr(entry)
	if err != nil {
		var withPort netip.AddrPort
		withPort, err = netip.ParseAddrPort(entry)
		addr = withPort.Addr()
	}
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}
	}
	return addr.Unmap()
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
