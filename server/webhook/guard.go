package webhook

import (
	"errors"
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

	anyPort bool // see Unguarded
}

// networks are the ranges that no delivery goes to. A refusal does not say which
// of them holds an address: what a name resolves to inside is not for a tenant to
// learn. Of IPv6 only 2000::/3 is given out at all, so the last ranges hold
// whatever is not named. An address that embeds an IPv4 one is refused
// whatever it embeds: a gateway on the way would send it on to there.
var networks = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),          // unspecified address
	netip.MustParsePrefix("10.0.0.0/8"),         // private address
	netip.MustParsePrefix("100.64.0.0/10"),      // address behind a carrier's NAT
	netip.MustParsePrefix("127.0.0.0/8"),        // loopback address
	netip.MustParsePrefix("168.63.129.16/32"),   // cloud's own service, public by number, local in Azure
	netip.MustParsePrefix("169.254.0.0/16"),     // link-local address
	netip.MustParsePrefix("172.16.0.0/12"),      // private address
	netip.MustParsePrefix("192.0.0.0/24"),       // reserved address
	netip.MustParsePrefix("192.0.2.0/24"),       // address for documentation
	netip.MustParsePrefix("192.88.99.0/24"),     // 6to4 relay
	netip.MustParsePrefix("192.168.0.0/16"),     // private address
	netip.MustParsePrefix("198.18.0.0/15"),      // address for benchmarks
	netip.MustParsePrefix("198.51.100.0/24"),    // address for documentation
	netip.MustParsePrefix("203.0.113.0/24"),     // address for documentation
	netip.MustParsePrefix("224.0.0.0/4"),        // multicast address
	netip.MustParsePrefix("255.255.255.255/32"), // broadcast address
	netip.MustParsePrefix("240.0.0.0/4"),        // reserved address

	netip.MustParsePrefix("::/128"),          // unspecified address
	netip.MustParsePrefix("::1/128"),         // loopback address
	netip.MustParsePrefix("::ffff:0:0/96"),   // IPv4 address in an IPv6 one
	netip.MustParsePrefix("::ffff:0:0:0/96"), // IPv4 address in an IPv6 one, translated, RFC 2765
	netip.MustParsePrefix("::/96"),           // IPv4 address in an IPv6 one
	netip.MustParsePrefix("64:ff9b::/96"),    // IPv4 address in an IPv6 one
	netip.MustParsePrefix("64:ff9b:1::/48"),  // IPv4 address in an IPv6 one
	netip.MustParsePrefix("2001::/32"),       // IPv4 address in an IPv6 one, Teredo
	netip.MustParsePrefix("2001:db8::/32"),   // address for documentation
	netip.MustParsePrefix("2001::/23"),       // reserved address, protocol assignments
	netip.MustParsePrefix("2002::/16"),       // IPv4 address in an IPv6 one, 6to4
	netip.MustParsePrefix("3fff::/20"),       // address for documentation
	netip.MustParsePrefix("fc00::/7"),        // private address
	netip.MustParsePrefix("fe80::/10"),       // link-local address
	netip.MustParsePrefix("fec0::/10"),       // site-local address
	netip.MustParsePrefix("ff00::/8"),        // multicast address
	netip.MustParsePrefix("::/3"),            // reserved address
	netip.MustParsePrefix("4000::/2"),        // reserved address
	netip.MustParsePrefix("8000::/1"),        // reserved address
}

// nat64 embeds an IPv4 address in its last 32 bits (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// isPublic reports whether addr is one that everybody can reach.
func isPublic(addr netip.Addr) bool {
	if !addr.IsValid() || addr.Zone() != "" || addr.Is4In6() {
		return false
	}
	for _, n := range networks {
		if n.Contains(addr) {
			return false
		}
	}
	if addr.Is6() {
		// ISATAP ends in 0:5efe:a.b.c.d below any prefix (RFC 5214).
		if b := addr.As16(); b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
			return false
		}
	}
	return true
}

// allows reports whether the guard lets a delivery go to addr.
func (g Guard) allows(addr netip.Addr) bool {
	if isPublic(addr) || g.Loopback && addr.IsLoopback() && !addr.Is4In6() && addr.Zone() == "" {
		return true
	}
	for _, allowed := range g.AllowNetworks {
		if !allowed.Contains(addr) {
			continue
		}
		if nat64.Contains(addr) {
			// Who allows the gateway has not allowed all that lies behind it.
			b := addr.As16()
			return g.allows(netip.AddrFrom4([4]byte(b[12:])))
		}
		return true
	}
	return false
}

// ErrBlockedAddress is the guard's refusal of an address. It is the same for every
// address that is refused.
var ErrBlockedAddress = errors.New("the host's address is not one that webhooks may call")

// Control checks the address of a connection that is about to be made: after the
// name was resolved, for every address tried. It is a net.Dialer's Control.
func (g Guard) Control(network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" || !g.allows(to.Addr()) {
		return ErrBlockedAddress
	}
	return nil
}

// Unguarded returns a guard that lets a client call every address and port, by http too.
// It is for programs that send to where their own user says, on the user's own
// machine; a server's endpoints are picked by others.
func Unguarded() Guard {
	return Guard{
		Loopback:      true,
		anyPort:       true,
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
	}
}
