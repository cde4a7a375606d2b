package webhook

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const maxURLBytes = 2048

// URL returns the place that text names, or says why no delivery may go there,
// in words that end the sentence "url ...". They never repeat text, which may
// hold a credential in its query or user name.
//
// It refuses what can be seen without asking anybody: a host that is an address
// which is not public, in any spelling. What a name resolves to is checked when
// the connection is made.
func (g Guard) URL(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("is required and must not be empty")
	}
	if len(text) > maxURLBytes {
		return nil, fmt.Errorf("must have at most %d characters", maxURLBytes)
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '\\' }) {
		return nil, errors.New("must be in visible ASCII characters, without backslashes; write other characters of a name in punycode, of a path with %")
	}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Host == "" {
		return nil, errors.New("must be an absolute URL, such as https://example.com/hook")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("must begin with https://")
	case u.Scheme == "http" && !g.Loopback:
		return nil, errors.New("must begin with https://; http is for development, while every listener is on loopback")
	case u.User != nil:
		return nil, errors.New("must not have a user name or password; use headers")
	case strings.Contains(text, "#"):
		return nil, errors.New("must not have a fragment, which is never sent")
	}
	if err := g.checkPort(u); err != nil {
		return nil, err
	}
	return u, g.checkHost(u)
}

// checkPort refuses what is not a port in its plain form, and ports on which other
// services listen than those of the web: a delivery is a way to send them bytes.
func (g Guard) checkPort(u *url.URL) error {
	port := u.Port()
	if port == "" && !strings.HasSuffix(u.Host, ":") {
		return nil
	}
	usual := uint64(443)
	if u.Scheme == "http" {
		usual = 80
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || n == 0 || strconv.FormatUint(n, 10) != port:
		return errors.New("must have a port of 1024 to 65535, or none")
	case n != usual && n < 1024 && !g.anyPort:
		return fmt.Errorf("must have port %d, one of 1024 to 65535, or none", usual)
	}
	return nil
}

func (g Guard) checkHost(u *url.URL) error {
	host := strings.ToLower(u.Hostname())
	if strings.HasPrefix(u.Host, "[") {
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() {
			return errors.New("must have an IPv6 address between brackets")
		}
		return g.checkAddress(addr)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return g.checkAddress(addr)
	}
	name := strings.TrimSuffix(host, ".")
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if !isLabel(label) {
			return errors.New("must have a host of letters, digits, hyphens and dots")
		}
	}
	if len(name) > 253 {
		return errors.New("must have a host of at most 253 characters")
	}
	// Resolvers read such a host as an IPv4 address: 127.1, 0x7f000001, 2130706433.
	if last := labels[len(labels)-1]; isNumber(last) {
		return errors.New("must have an IPv4 address as four decimal numbers, such as 192.0.2.1, or a name that does not end in a number")
	}
	if !g.Loopback && isLocalName(labels) {
		return errNotPublic
	}
	return nil
}

// errNotPublic is the same for every range, and for this machine's names.
var errNotPublic = errors.New("must have a public host")

func (g Guard) checkAddress(addr netip.Addr) error {
	if !g.allows(addr) {
		return errNotPublic
	}
	return nil
}

// isLabel reports whether s can stand between the dots of a name. Underscores
// are not for hosts, but some have them.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// isNumber reports whether the last label of a host makes resolvers take the
// whole for an IPv4 address.
func isNumber(label string) bool {
	if strings.Trim(label, "0123456789") == "" {
		return true
	}
	digits, ok := strings.CutPrefix(label, "0x")
	return ok && strings.Trim(digits, "0123456789abcdef") == ""
}

// isLocalName reports whether a name means this machine wherever it is asked
// for.
func isLocalName(labels []string) bool {
	switch labels[len(labels)-1] {
	case "localhost", "localdomain", "ip6-localhost", "ip6-loopback":
		return true
	}
	return false
}
