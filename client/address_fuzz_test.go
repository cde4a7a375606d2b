package client_test

import (
	"net"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/client"
)

// An address that is taken is host:port, which means the same when it is given in turn.
// No token goes to another machine without TLS, unless the scheme is grpc.
func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"", "localhost", "127.0.0.1:9090", "[::1]:1", "::1", "keys.example.com", "grpc://a:1", "grpcs://a", "http://a", "http://127.0.0.1.", "https://a/", "https://a/b", "GRPC://A", "grpc://user@a", "http://[::ffff:127.0.0.1]", "localhost.:0", "a:99999", "a:b", "://", "grpc://a#b", "[fe80::1%25eth0]:1", "[fe80::1%eth0]:1"} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, text string, asked bool) {
		address, secure, err := client.ParseAddress(text, asked)
		if err != nil {
			return
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || port == "" || strings.ContainsAny(address, "/@ \n") {
			t.Fatalf("%q is %q: %v", text, address, err)
		}
		if !secure && !client.IsLoopback(host) && !strings.HasPrefix(strings.ToLower(text), "grpc://") {
			t.Errorf("%q is reached without TLS", text)
		}
		if asked && !secure {
			t.Errorf("%q is reached without TLS, which was asked for", text)
		}
		again, _, err := client.ParseAddress(address, asked)
		if err != nil || again != address {
			t.Errorf("%q is %q, which is %q: %v", text, address, again, err)
		}
	})
}
