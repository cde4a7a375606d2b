package apikey

import (
	"net/netip"
	"strings"
)

// ClientAddress returns the address of the client that a request comes from: peer, the
// other end of the connection, or, where that is a trusted proxy, the right-most entry of
// X-Forwarded-For that is not one. forwardedFor are the lines of that header in their
// order. Entries further left are what the client itself may have written. An entry that
// does not parse where one is needed makes the address unknown, which is the zero Addr;
// if all are trusted, the left-most is the client. Empty elements of the list are none
// (RFC 9110, 5.6.1.2).
func ClientAddress(peer netip.Addr, forwardedFor []string, trusted []netip.Prefix) netip.Addr {
	addr := peer.Unmap().WithZone("")
	if !isTrusted(trusted, addr) {
		return addr
	}
	// Lines are read from the last back, so that a long header from outside costs
	// no more than the hops that are looked at.
	for i := len(forwardedFor) - 1; i >= 0; i-- {
		rest, more := forwardedFor[i], true
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
			if addr = forwarded(entry); !isTrusted(trusted, addr) {
				return addr
			}
		}
	}
	return addr
}

// ForwardedAddress returns the address of the client that a gateway speaks for: the one
// that X-Forwarded-For gives, where the other end of the connection is a trusted proxy.
// The gateway itself is never the client, so without such an entry the address is
// unknown.
func ForwardedAddress(peer netip.Addr, forwardedFor []string, trusted []netip.Prefix) netip.Addr {
	if !isTrusted(trusted, peer.Unmap().WithZone("")) {
		return netip.Addr{}
	}
	for _, line := range forwardedFor {
		if strings.Trim(line, ", \t") != "" {
			return ClientAddress(peer, forwardedFor, trusted)
		}
	}
	return netip.Addr{}
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

func isTrusted(proxies []netip.Prefix, addr netip.Addr) bool {
	for _, p := range proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
