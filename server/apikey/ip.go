package apikey

import (
	"errors"
	"net/netip"
	"strings"
)

// AllowList is the addresses that may use a key. An empty one allows every
// address, and even an unknown one.
type AllowList []netip.Prefix

// ParseAllowed reads one entry: an IPv4 or IPv6 address or a CIDR range. A
// mapped address (::ffff:10.0.0.1) is the IPv4 address that it maps. Zones,
// ports, leading zeros and set host bits are refused: each has passed for
// another address somewhere.
func ParseAllowed(text string) (netip.Prefix, error) {
	if strings.Contains(text, "%") {
		return netip.Prefix{}, errors.New("must not have a zone")
	}
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, errors.New("must be an IPv4 or IPv6 address or a CIDR range, such as 192.0.2.1 or 2001:db8::/32")
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errors.New("must be an IPv4 or IPv6 address or a CIDR range, such as 192.0.2.1 or 2001:db8::/32")
	}
	if p != p.Masked() {
		return netip.Prefix{}, errors.New("must not have bits set behind the prefix; the range is " + p.Masked().String())
	}
	if p.Addr().Is4In6() {
		// A shorter prefix has its last set bit behind it, so at least 96 are left.
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, nil
}

// FormatAllowed writes an entry as it is shown: an address where the range is
// one address, else CIDR.
func FormatAllowed(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// Allows reports whether addr may use the key. The zero Addr is an unknown
// address, which only an empty list allows.
func (l AllowList) Allows(addr netip.Addr) bool {
	if len(l) == 0 {
		return true
	}
	addr = addr.Unmap().WithZone("")
	for _, p := range l {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Within reports whether every address of l is in outer. An empty list is every
// address, so nothing but an empty list holds it.
func (l AllowList) Within(outer AllowList) bool {
	if len(outer) == 0 {
		return true
	}
	if len(l) == 0 {
		return false
	}
	for _, p := range l {
		if !outer.covers(p) {
			return false
		}
	}
	return true
}

// covers reports whether the ranges of l together hold p: one of them does, or
// both halves of p are held. It splits only where an entry lies inside p, so the
// work is bounded by the entries' lengths.
func (l AllowList) covers(p netip.Prefix) bool {
	inside := false
	for _, q := range l {
		if q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
			return true
		}
		inside = inside || p.Contains(q.Addr())
	}
	if !inside {
		return false
	}
	low, high := halves(p)
	return l.covers(low) && l.covers(high)
}

// halves splits a range of more than one address.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	bits := p.Bits() + 1
	raw := p.Addr().AsSlice()
	raw[(bits-1)/8] |= 1 << (7 - (bits-1)%8)
	upper, _ := netip.AddrFromSlice(raw)
	return netip.PrefixFrom(p.Addr(), bits), netip.PrefixFrom(upper, bits)
}
