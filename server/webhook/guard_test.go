package webhook

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Every range of the registries of special addresses, at both ends.
func TestGuardAddresses(t *testing.T) {
	t.Parallel()
	refused := []string{
		"0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.100.100.200", "100.127.255.255",
		"127.0.0.1", "127.255.255.255", "169.254.0.0", "169.254.169.254", "169.254.170.2", "172.16.0.0", "172.31.255.255",
		"192.0.0.0", "192.0.0.192", "192.0.0.255", "192.0.2.0", "192.0.2.255", "192.88.99.1", "192.168.0.0", "192.168.255.255",
		"198.18.0.0", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
		"255.255.255.254", "255.255.255.255", "168.63.129.16",
		"::", "::1", "::2", "::7f00:1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8",
		"::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::10.0.0.1", "100::1",
		"2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::",
		"2001:db8::1", "2002:7f00:1::1", "2002:a00:1::", "2002:808:808::1", "3fff::1", "3fff:fff::1", "4000::1", "5f00::1",
		"fc00::1", "fd00:ec2::254", "fdff::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "feff::1",
		"ff00::1", "ff02::1", "ff0e::1", "8000::1", "2606:4700::5efe:a00:1", "2606:4700::200:5efe:7f00:1", "2606:4700::1%1",
	}
	for _, text := range refused {
		if (Guard{}).allows(netip.MustParseAddr(text)) {
			t.Errorf("%s is let through", text)
		}
	}
	public := []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
		"169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0", "198.17.255.255", "198.20.0.0",
		"223.255.255.255", "168.63.129.15", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700::1111", "2a00::1", "3ffe::1",
	}
	for _, text := range public {
		if !(Guard{}).allows(netip.MustParseAddr(text)) {
			t.Errorf("%s is refused", text)
		}
	}
	if (Guard{}).allows(netip.Addr{}) {
		t.Error("no address is let through")
	}
}

// What the standard library already knows not to be public is a subset.
func TestGuardKnowsWhatNetipKnows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
		if prefix := rapid.SampledFrom(networks).Draw(t, "network"); rapid.Bool().Draw(t, "inside") && prefix.Addr().Is6() {
			copy(raw, prefix.Addr().AsSlice()[:prefix.Bits()/8])
		}
		for _, addr := range []netip.Addr{netip.AddrFrom16([16]byte(raw)), netip.AddrFrom4([4]byte(raw[:4]))} {
			special := !addr.IsGlobalUnicast() || addr.IsPrivate() || addr.IsLoopback() || addr.Is4In6()
			if special && (Guard{}).allows(addr) {
				t.Fatalf("%v is let through", addr)
			}
			if addr.Is6() && !netip.MustParsePrefix("2000::/3").Contains(addr) && (Guard{}).allows(addr) {
				t.Fatalf("%v is let through", addr)
			}
		}
	})
}

func TestGuardAllows(t *testing.T) {
	t.Parallel()
	networks := func(list ...string) (g Guard) {
		for _, text := range list {
			g.AllowNetworks = append(g.AllowNetworks, netip.MustParsePrefix(text))
		}
		return g
	}
	cases := []struct {
		name  string
		guard Guard
		addr  string
		want  bool
	}{
		{"a named network", networks("10.1.0.0/16"), "10.1.2.3", true},
		{"beside it", networks("10.1.0.0/16"), "10.2.0.1", false},
		{"an IPv6 network", networks("fd00::/8"), "fd00::1", true},
		{"one with a zone", networks("fe80::/10"), "fe80::1%eth0", false},
		{"mapped into a named network", networks("10.0.0.0/8"), "::ffff:10.0.0.1", false},
		{"behind NAT64, public", networks("64:ff9b::/96"), "64:ff9b::8.8.8.8", true},
		{"behind NAT64, private", networks("64:ff9b::/96"), "64:ff9b::10.0.0.1", false},
		{"behind NAT64, private and named", networks("64:ff9b::/96", "10.0.0.0/8"), "64:ff9b::10.0.0.1", true},
		{"loopback in development", Guard{Loopback: true}, "127.0.0.1", true},
		{"all of it", Guard{Loopback: true}, "127.9.9.9", true},
		{"of IPv6", Guard{Loopback: true}, "::1", true},
		{"mapped", Guard{Loopback: true}, "::ffff:127.0.0.1", false},
		{"no other", Guard{Loopback: true}, "10.0.0.1", false},
		{"unspecified, which is loopback for some", Guard{Loopback: true}, "0.0.0.0", false},
		{"link-local", Guard{Loopback: true}, "169.254.169.254", false},
	}
	for _, c := range cases {
		if got := c.guard.allows(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestControl(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		network, address string
		want             bool
	}{
		{"tcp4", "8.8.8.8:443", true},
		{"tcp6", "[2606:4700::1111]:443", true},
		{"tcp4", "127.0.0.1:443", false},
		{"tcp6", "[fe80::1%1]:443", false},
		{"udp4", "8.8.8.8:443", false},
		{"unix", "/run/docker.sock", false},
		{"tcp4", "example.com:443", false},
		{"tcp4", "", false},
	} {
		if err := (Guard{}).Control(c.network, c.address, nil); (err == nil) != c.want {
			t.Errorf("%s %s: %v", c.network, c.address, err)
		}
	}
}

func TestGuardURL(t *testing.T) {
	t.Parallel()
	good := []string{
		"https://example.com", "https://example.com/", "https://EXAMPLE.com:443/a%20b?c=d&e={}", "HTTPS://example.com/hook",
		"https://example.com./hook", "https://xn--bcher-kva.example:8443/", "https://a_b.example.com/", "https://8.8.8.8/", "https://[2606:4700::1111]:8443/x",
		"https://127.0.0.1.nip.example/", "https://receiver/hook", "https://1and1.example/", "https://example.com?x", "https://example.com:1024/", "https://example.com:65535/",
	}
	for _, text := range good {
		if _, err := (Guard{}).URL(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	bad := []string{
		"", "example.com", "//example.com", "https:example.com", "https://", "https:///x", "https://:443/", "https://?x", "ftp://example.com/", "file:///etc/passwd",
		"javascript:alert(1)", "gopher://example.com/", "http://example.com/", "https://example.com/#x", "https://example.com/#",
		"https://hunter2@example.com/", "https://user:hunter2@example.com/", "https://@example.com/", "https://:@example.com/",
		"https://example.com:0/", "https://example.com:1/", "https://example.com:22/", "https://example.com:25/", "https://example.com:80/", "https://example.com:444/", "https://example.com:1023/", "https://example.com:65537/", "https://example.com:/", "https://example.com:65536/", "https://example.com:0443/", "https://example.com:+443/", "https://example.com:https/",
		"https://localhost/", "https://LOCALHOST:443/", "https://localhost./", "https://a.localhost/", "https://localhost.localdomain/", "https://ip6-localhost/",
		"https://127.0.0.1/", "https://127.0.0.1./", "https://127.1/", "https://127.0.1/", "https://127.000.000.001/", "https://0177.0.0.1/", "https://0x7f.0.0.1/", "https://0x7f000001/",
		"https://0X7F000001/", "https://2130706433/", "https://017700000001/", "https://0/", "https://0x/", "https://1.2.3.4.5/", "https://256.0.0.1/", "https://8.8.8.8./", "https://010.8.8.8/", "https://example.com.1/",
		"https://169.254.169.254/latest/meta-data/", "https://10.0.0.1/", "https://100.64.0.1/", "https://192.0.0.8/", "https://198.18.0.1/", "https://0.0.0.0/", "https://255.255.255.255/",
		"https://[::1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::127.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/",
		"https://[0:0:0:0:0:0:0:1]/", "https://[::ffff:8.8.8.8]/", "https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://[::1%25]/", "https://[fd00::1]/", "https://[fec0::1]/", "https://[8.8.8.8]/", "https://[::1", "https://[v1.x]/", "https://[]/",
		"https://%31%32%37.0.0.1/", "https://ex%61mple.com/", "https://１２７.0.0.1/", "https://ⓛocalhost/", "https://bücher.example/", "https://127。0。0。1/",
		"https://example.com\\@127.0.0.1/", "https://example.com\t/", "https://exam ple.com/", "https://example.com/\r\nX: y", "https://example.com/a b", "https://example.com/\x00", " https://example.com/",
		"https://-a.example/", "https://a-.example/", "https://a..b/", "https://.example.com/", "https://example.com../", "https://a,b/", "https://a!b/", "https://" + strings.Repeat("a", 64) + ".example/",
		"https://" + strings.Repeat("a.", 127) + "example/", "https://example.com/" + strings.Repeat("x", 2048),
	}
	for _, text := range bad {
		_, err := (Guard{}).URL(text)
		if err == nil {
			t.Errorf("%q is taken", text)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error tells: %v", text, err)
		}
	}
	for _, text := range []string{"http://127.0.0.1:3000/hook", "http://localhost:3000/", "https://[::1]:8443/", "http://example.com/", "http://example.com:80/", "http://127.0.0.1:1024/", "https://example.com:443/"} {
		if _, err := (Guard{Loopback: true}).URL(text); err != nil {
			t.Errorf("in development, %s: %v", text, err)
		}
	}
	for _, text := range []string{"http://10.0.0.1/", "http://0/", "http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://example.com:443/", "https://example.com:80/", "http://127.0.0.1:25/", "https://127.0.0.1:22/"} {
		if _, err := (Guard{Loopback: true}).URL(text); err == nil {
			t.Errorf("in development %s is taken", text)
		}
	}
	inside := Guard{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	if _, err := inside.URL("https://10.1.2.3/"); err != nil {
		t.Errorf("a named network: %v", err)
	}
	if _, err := inside.URL("http://10.1.2.3/"); err == nil {
		t.Error("a named network without TLS is taken")
	}
}

// A refusal says the same for every range, whatever the spelling of the address, so
// that nobody learns what lies inside.
func TestRefusalsSayTheSame(t *testing.T) {
	t.Parallel()
	hosts := []string{"localhost", "a.localhost"}
	for _, n := range networks {
		if host := n.Addr().String(); n.Addr().Is6() {
			hosts = append(hosts, "["+host+"]")
		} else {
			hosts = append(hosts, host)
		}
		if err := (Guard{}).Control("tcp4", netip.AddrPortFrom(n.Addr(), 443).String(), nil); err != ErrBlockedAddress { //nolint:errorlint // this very one
			t.Errorf("%v: %v", n, err)
		}
	}
	for _, host := range hosts {
		if _, err := (Guard{}).URL("https://" + host + "/"); err == nil || err.Error() != "must have a public host" {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// FuzzGuardURL: a host that is taken and is an address is a public one, and no
// error repeats what it refuses.
func FuzzGuardURL(f *testing.F) {
	for _, s := range []string{"https://example.com/", "https://127.1/", "https://[::1]/", "https://a:b@c/", "https://0x7f.1/?q"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := (Guard{}).URL(text)
		if err != nil {
			return
		}
		if u.User != nil || u.Scheme != "https" || u.Fragment != "" || u.Host == "" {
			t.Errorf("%q is taken as %+v", text, u)
		}
		if addr, err := netip.ParseAddr(u.Hostname()); err == nil && (!addr.IsGlobalUnicast() || addr.IsPrivate() || addr.Is4In6()) {
			t.Errorf("%q names %v", text, addr)
		}
	})
}
