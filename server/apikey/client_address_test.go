package apikey

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

func TestForwardedAddress(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		peer      string
		forwarded []string
		want      string // empty for unknown
	}{
		"a gateway that is trusted":       {peer: "10.0.0.1", forwarded: []string{"198.51.100.9"}, want: "198.51.100.9"},
		"what the client wrote before it": {peer: "10.0.0.1", forwarded: []string{"10.0.0.7, 192.0.2.5, 198.51.100.9"}, want: "198.51.100.9"},
		"a mapped gateway":                {peer: "::ffff:10.0.0.1", forwarded: []string{"198.51.100.9"}, want: "198.51.100.9"},
		"a peer that is no gateway":       {peer: "192.0.2.1", forwarded: []string{"198.51.100.9"}},
		"never the gateway itself":        {peer: "10.0.0.1"},
		"nor with an empty header":        {peer: "10.0.0.1", forwarded: []string{"", " , ,\t"}},
		"an entry that is none":           {peer: "10.0.0.1", forwarded: []string{"198.51.100.9, unknown"}},
		"an entry with a zone":            {peer: "10.0.0.1", forwarded: []string{"fe80::1%eth0"}},
		"all trusted: the left-most":      {peer: "10.0.0.1", forwarded: []string{"10.0.0.9, 10.0.0.2"}, want: "10.0.0.9"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want netip.Addr
			if tc.want != "" {
				want = netip.MustParseAddr(tc.want)
			}
			if got := ForwardedAddress(netip.MustParseAddr(tc.peer), tc.forwarded, trusted); got != want {
				t.Errorf("the client is %s, want %s", got, want)
			}
		})
	}
}

var trusted = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		peer      string
		forwarded []string
		want      string // empty for unknown
	}{
		"a peer that is no proxy is the client":          {peer: "192.0.2.1", forwarded: []string{"198.51.100.9"}, want: "192.0.2.1"},
		"a mapped peer is the IPv4 address":              {peer: "::ffff:192.0.2.1", want: "192.0.2.1"},
		"a proxy without the header is the client":       {peer: "10.0.0.1", want: "10.0.0.1"},
		"the right-most that is no proxy":                {peer: "10.0.0.1", forwarded: []string{"203.0.113.5, 198.51.100.9, 10.0.0.2"}, want: "198.51.100.9"},
		"over all lines in their order":                  {peer: "10.0.0.1", forwarded: []string{"203.0.113.5", "198.51.100.9", "10.0.0.2,10.0.0.3"}, want: "198.51.100.9"},
		"all trusted: the left-most":                     {peer: "10.0.0.1", forwarded: []string{"10.0.0.9, 10.0.0.2"}, want: "10.0.0.9"},
		"IPv6":                                           {peer: "2001:db8:1::1", forwarded: []string{"2001:db8:2::7"}, want: "2001:db8:2::7"},
		"junk where an entry is needed":                  {peer: "10.0.0.1", forwarded: []string{"198.51.100.9, junk"}},
		"junk behind the entry that is needed":           {peer: "10.0.0.1", forwarded: []string{"junk, 198.51.100.9"}, want: "198.51.100.9"},
		"an empty element is none":                       {peer: "10.0.0.1", forwarded: []string{"198.51.100.9,"}, want: "198.51.100.9"},
		"empty elements and lines are none":              {peer: "10.0.0.1", forwarded: []string{", 198.51.100.9 ,\t, ,10.0.0.2", "", ","}, want: "198.51.100.9"},
		"an empty header is none":                        {peer: "10.0.0.1", forwarded: []string{""}, want: "10.0.0.1"},
		"a port is dropped":                              {peer: "10.0.0.1", forwarded: []string{"198.51.100.9:443"}, want: "198.51.100.9"},
		"a port of IPv6 is dropped":                      {peer: "10.0.0.1", forwarded: []string{"[2001:db8::1]:443"}, want: "2001:db8::1"},
		"a port of a mapped address is dropped":          {peer: "10.0.0.1", forwarded: []string{"[::ffff:198.51.100.9]:443"}, want: "198.51.100.9"},
		"the port of a trusted hop is dropped":           {peer: "10.0.0.1", forwarded: []string{"198.51.100.9, 10.0.0.2:80"}, want: "198.51.100.9"},
		"a bare colon and group is IPv6":                 {peer: "10.0.0.1", forwarded: []string{"2001:db8::1:443"}, want: "2001:db8::1:443"},
		"a port that is none":                            {peer: "10.0.0.1", forwarded: []string{"198.51.100.9:65536"}},
		"an empty port":                                  {peer: "10.0.0.1", forwarded: []string{"198.51.100.9:"}},
		"a port alone":                                   {peer: "10.0.0.1", forwarded: []string{":443"}},
		"brackets without a port":                        {peer: "10.0.0.1", forwarded: []string{"[2001:db8::1]"}},
		"brackets around IPv4":                           {peer: "10.0.0.1", forwarded: []string{"[198.51.100.9]:443"}},
		"leading zeros":                                  {peer: "10.0.0.1", forwarded: []string{"198.51.100.09"}},
		"a zone":                                         {peer: "10.0.0.1", forwarded: []string{"fe80::1%eth0"}},
		"a zone and a port":                              {peer: "10.0.0.1", forwarded: []string{"[fe80::1%eth0]:443"}},
		"a zone of a trusted hop":                        {peer: "10.0.0.1", forwarded: []string{"198.51.100.9, 2001:db8:1::1%eth0"}},
		"a space that is not one of HTTP":                {peer: "10.0.0.1", forwarded: []string{"198.51.100.9\u00a0"}},
		"an unknown peer is believed in nothing it says": {forwarded: []string{"198.51.100.9"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var peer netip.Addr
			if tc.peer != "" {
				peer = netip.MustParseAddr(tc.peer)
			}
			var want netip.Addr
			if tc.want != "" {
				want = netip.MustParseAddr(tc.want)
			}
			if got := ClientAddress(peer, tc.forwarded, trusted); got != want {
				t.Errorf("the client is %v, want %v", got, want)
			}
		})
	}
}

// FuzzClientAddress holds the rule against a plain reading of it: split
// everything, leave out what is empty, drop the ports, then walk from the right.
func FuzzClientAddress(f *testing.F) {
	for _, header := range []string{
		"203.0.113.5, 198.51.100.9, 10.0.0.2", "10.0.0.2\n10.0.0.3,junk", ", ,", "198.51.100.9:443,10.0.0.2:1", "[2001:db8::1]:443", "[fe80::1%e]:1", "fe80::1%e,,10.0.0.1",
	} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		peer, lines := netip.MustParseAddr("10.0.0.1"), strings.Split(header, "\n")
		want := peer
		entries := strings.Split(strings.Join(lines, ","), ",")
		for i := len(entries) - 1; i >= 0; i-- {
			text := strings.Trim(entries[i], " \t")
			if text == "" {
				continue
			}
			addr, err := netip.ParseAddr(text)
			if host, port, split := net.SplitHostPort(text); err != nil && split == nil {
				if n, bad := strconv.ParseUint(port, 10, 16); bad == nil && n <= 65535 && strings.Contains(host, ":") == strings.HasPrefix(text, "[") {
					addr, err = netip.ParseAddr(host)
				}
			}
			if err != nil || addr.Zone() != "" {
				want = netip.Addr{}
				break
			}
			if want = addr.Unmap(); !isTrusted(trusted, want) {
				break
			}
		}
		if got := ClientAddress(peer, lines, trusted); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	})
}
