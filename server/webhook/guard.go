package webhook

import (
	"fmt"
	"net/netip"
	"syscall"
)

// Guard says where deliveries may go. The zero Guard allows https to public
// addresses, and nothing else.
type Guard struct {
	// AllowNetworks are further networks that may be called.
	AllowNetworks []netip.Prefix
	// Loopback allows http, and addresses on loopback. It is for a server in
	// development all of whose own listeners are on loopback.
	Loopback bool
}

// A network is a range that is not public, and what it is called.
type network struct {
	prefix netip.Prefix
	name   string
}

// networks are the ranges that no delivery goes to; the first that holds an
// address names it. Of IPv6 only 2000::/3 is given out at all, so the last range
// holds whatever is not named. An address that embeds an IPv4 one is refused
// whatever it embeds: a gateway on the way would send it on to there.
var networks = []network{
	{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified address"},
	{netip.MustParsePrefix("10.0.0.0/8"), "a private address"},
	{netip.MustParsePrefix("100.64.0.0/10"), "an address behind a carrier's NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
	{netip.MustParsePrefix("168.63.129.16/32"), "a cloud's own service"}, // public by number, local in Azure
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},
	{netip.MustParsePrefix("172.16.0.0/12"), "a private address"},
	{netip.MustParsePrefix("192.0.0.0/24"), "a reserved address"},
	{netip.MustParsePrefix("192.0.2.0/24"), "an address for documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "a private address"},
	{netip.MustParsePrefix("198.18.0.0/15"), "an address for benchmarks"},
	{netip.MustParsePrefix("198.51.100.0/24"), "an address for documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "an address for documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved address"},

	{netip.MustParsePrefix("::/128"), "an unspecified address"},
	{netip.MustParsePrefix("::1/128"), "a loopback address"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "an IPv4 address in an IPv6 one"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "an IPv4 address in an IPv6 one"}, // translated, RFC 2765
	{netip.MustParsePrefix("::/96"), "an IPv4 address in an IPv6 one"},
	{netip.MustParsePrefix("64:ff9b::/96"), "an IPv4 address in an IPv6 one"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "an IPv4 address in an IPv6 one"},
	{netip.MustParsePrefix("2001::/32"), "an IPv4 address in an IPv6 one"}, // Teredo
	{netip.MustParsePrefix("2001:db8::/32"), "an address for documentation"},
	{netip.MustParsePrefix("2001::/23"), "a reserved address"},             // protocol assignments
	{netip.MustParsePrefix("2002::/16"), "an IPv4 address in an IPv6 one"}, // 6to4
	{netip.MustParsePrefix("3fff::/20"), "an address for documentation"},
	{netip.MustParsePrefix("fc00::/7"), "a private address"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("fec0::/10"), "a site-local address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
	{netip.MustParsePrefix("::/3"), "a reserved address"},
	{netip.MustParsePrefix("4000::/2"), "a reserved address"},
	{netip.MustParsePrefix("8000::/1"), "a reserved address"},
}

// nat64 embeds an IPv4 address in its last 32 bits (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// networkOf returns what an address is that is not public, or "".
func networkOf(addr netip.Addr) string {
	switch {
	case !addr.IsValid():
		return "no address"
	case addr.Zone() != "":
		return "an address with a zone"
	}
	for _, n := range networks {
		if n.prefix.Contains(addr) {
			return n.name
		}
	}
	if addr.Is6() && !addr.Is4In6() {
		// ISATAP ends in 0:5efe:a.b.c.d below any prefix (RFC 5214).
		if b := addr.As16(); b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
			return "an IPv4 address in an IPv6 one"
		}
	}
	if addr.Is4In6() {
		return "an IPv4 address in an IPv6 one"
	}
	return ""
}

// refusal returns what addr is that the guard refuses, or "".
func (g Guard) refusal(addr netip.Addr) string {
	name := networkOf(addr)
	if name == "" || g.Loopback && addr.IsLoopback() && !addr.Is4In6() && addr.Zone() == "" {
		return ""
	}
	for _, allowed := range g.AllowNetworks {
		if !allowed.Contains(addr) {
			continue
		}
		if nat64.Contains(addr) {
			// Who allows the gateway has not allowed all that lies behind it.
			b := addr.As16()
			return g.refusal(netip.AddrFrom4([4]byte(b[12:])))
		}
		return ""
	}
	return name
}

// BlockedError is the guard's refusal of an address. It does not name the
// address: what a name resolves to inside is not for its tenant to learn.
type BlockedError struct{ What string }

func (e *BlockedError) Error() string { return "the host resolves to " + e.What }

// Control judges the address of a connection that is about to be made: after the
// name was resolved, for every address tried. It is a net.Dialer's Control.
func (g Guard) Control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return &BlockedError{fmt.Sprintf("an address of %s", network)}
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return &BlockedError{"no address"}
	}
	if name := g.refusal(to.Addr()); name != "" {
		return &BlockedError{name}
	}
	return nil
}

// Unguarded returns a guard that lets a client call every address, by http too.
// It is for programs that send to where their own user says, on the user's own
// machine; a server's endpoints are picked by others.
func Unguarded() Guard {
	return Guard{
		Loopback:      true,
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
	}
}
