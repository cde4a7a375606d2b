package client

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	cases := []struct {
		text    string
		tls     bool
		address string
		secure  bool
	}{
		{"127.0.0.1:9090", false, "127.0.0.1:9090", false},
		{"127.0.0.1", true, "127.0.0.1:443", true},
		{"127.9.9.9", false, "127.9.9.9:9090", false},
		{"[::ffff:127.0.0.1]:1", false, "[::ffff:127.0.0.1]:1", false},
		{"LocalHost:1", false, "LocalHost:1", false},
		{"localhost.:1", false, "localhost.:1", false},
		// Whatever another machine may answer to is reached with TLS.
		{"vm:9090", false, "vm:9090", true},
		{"10.0.0.1:1", false, "10.0.0.1:1", true},
		{"0.0.0.0:1", false, "0.0.0.0:1", true},
		{"[fd00::1]:1", false, "[fd00::1]:1", true},
		{"localhost.example.com:1", false, "localhost.example.com:1", true},
		{"127.0.0.1.example.com:1", false, "127.0.0.1.example.com:1", true},
		{"grpc://vm:9090", false, "vm:9090", false},
		{"GRPC://vm", false, "vm:9090", false},
		{"keys.example.com", false, "keys.example.com:443", true},
		{"keys.example.com", true, "keys.example.com:443", true},
		{"keys.example.com:8443", true, "keys.example.com:8443", true},
		{"::1", false, "[::1]:9090", false},
		{"[::1]", false, "[::1]:9090", false},
		{"[::1]:1", false, "[::1]:1", false},
		{"grpc://localhost", false, "localhost:9090", false},
		{"grpcs://localhost", false, "localhost:443", true},
		{"HTTPS://localhost:9090/", false, "localhost:9090", true},
		{"https://[::1]", true, "[::1]:443", true},
		{"http://localhost", false, "localhost:80", false},
	}
	for _, c := range cases {
		address, secure, err := ParseAddress(c.text, c.tls)
		if address != c.address || secure != c.secure || err != nil {
			t.Errorf("%s: got %s, %v, %v", c.text, address, secure, err)
		}
	}
	for _, text := range []string{"", ":9090", "a b", "a:b", "a:0", "a:99999", "a:1:2", "ftp://a", "http://a", "http://10.0.0.1:9090", "grpcs://", "grpcs://a/b", "https://a?b", "https://a#b", "https://a:x", "//a"} {
		if address, _, err := ParseAddress(text, false); err == nil {
			t.Errorf("%q was taken as %s", text, address)
		}
	}
	for text, want := range map[string]string{"grpc://a": "says that there is no TLS", "grpcs://user:secret@a": "must not hold a credential"} {
		if _, _, err := ParseAddress(text, true); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
