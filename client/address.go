package client

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The schemes of a server's URL, with whether they mean TLS and their ports.
var schemes = map[string]struct {
	secure bool
	port   string
}{
	"grpc":  {false, "9090"},
	"grpcs": {true, "443"},
	"http":  {false, "80"},
	"https": {true, "443"},
}

// ParseAddress returns the host:port of a server, given as that, as a host or as a URL,
// and whether it is reached with TLS. The token travels with every call, so TLS is left
// out only where nobody else can listen, on loopback, or where the URL says grpc://; with
// secure it is used on loopback too. A port that is left out is the usual one.
func ParseAddress(text string, secure bool) (address string, _ bool, err error) {
	const want = "must be host:port or a URL such as grpcs://keys.example.com, not %q"
	host, port, written := text, "", ""
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		written = strings.ToLower(strings.Split(text, "://")[0])
		scheme, known := schemes[written]
		switch {
		case err == nil && u.User != nil:
			return "", false, errors.New("must not hold a credential; the token has a setting of its own")
		case err != nil || !known || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			return "", false, fmt.Errorf(want, apikey.Excerpt(text))
		case secure && !scheme.secure:
			return "", false, fmt.Errorf("%q says that there is no TLS, and tls says that there is", apikey.Excerpt(text))
		}
		host, port, secure = u.Host, scheme.port, scheme.secure
	}
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	} else if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		host = ip.String()
	}
	local := IsLoopback(host)
	switch {
	case written == "":
		secure = secure || !local
	case written == "http" && !local:
		return "", false, fmt.Errorf("%q would send the token unencrypted; use grpcs://, or grpc:// if it may be read on its way", apikey.Excerpt(text))
	}
	if port == "" {
		port = schemes["grpc"].port
		if secure {
			port = schemes["grpcs"].port
		}
	}
	if host == "" || strings.ContainsAny(host, "/@[] ") || strings.Contains(host, ":") && !isIP(host) || !isPort(port) {
		return "", false, fmt.Errorf(want, apikey.Excerpt(text))
	}
	return net.JoinHostPort(host, port), secure, nil
}

// IsLoopback reports whether a host is this machine, as every resolver must take it
// (RFC 6761). Any other name can stand for another machine.
func IsLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

func isIP(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

func isPort(text string) bool {
	_, err := netip.ParseAddrPort("127.0.0.1:" + text)
	return err == nil && text != "0"
}
