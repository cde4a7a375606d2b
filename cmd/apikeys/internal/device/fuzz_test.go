package device

import (
	"net"
	"net/netip"
	"net/url"
	"testing"
)

// What is secret goes over TLS, or to this machine.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{"", "https://a", "http://a", "http://localhost:1/x", "http://127.0.0.1", "http://127.0.0.1.example.com", "http://localhost@example.com", "https://a#b", "https:a", "http://[::1]", "http://[::1%25x]", "//a", "HTTP://LOCALHOST", "http://2130706433", "http://localhost%2eexample.com", "javascript:alert(1)"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if checkURL(text) != nil {
			return
		}
		if checkPage(text) != nil {
			t.Errorf("%q may be called, and is no page", text)
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "https" {
			return
		}
		host := u.Hostname()
		ip, err := netip.ParseAddr(host)
		if err == nil && !ip.Unmap().IsLoopback() || err != nil && net.ParseIP(host) == nil && len(host) != len("localhost") || u.Scheme != "http" {
			t.Errorf("%q is called without TLS", text)
		}
	})
}
