package server

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// freePorts returns a Config that listens on free ports of loopback.
func freePorts() Config {
	return Config{RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0"}.withDefaults()
}

func TestListen(t *testing.T) {
	t.Parallel()
	l, err := listen(t.Context(), freePorts())
	if err != nil {
		t.Fatal(err)
	}
	if !l.onLoopback() || l.secure || l.grpcTLS != nil {
		t.Errorf("got %+v", l)
	}
	if l.restAddr != l.rest.Addr().String() {
		t.Errorf("REST at %s, told %s", l.rest.Addr(), l.restAddr)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if err := l.close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	for setting, set := range map[string]func(*Config){
		"rest_addr": func(c *Config) { c.RESTAddr = addr },
		"grpc_addr": func(c *Config) { c.GRPCAddr = addr },
		"ops_addr":  func(c *Config) { c.OpsAddr = addr },
	} {
		c := freePorts()
		set(&c)
		_, err := listen(t.Context(), c)
		want := setting + ": " + addr + " is in use by another program; stop that or choose another address with --" + strings.ReplaceAll(setting, "_", "-")
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestProductionOffLoopbackNeedsTLS(t *testing.T) {
	t.Parallel()
	cert, key, _ := certificate(t)
	cases := []struct {
		name    string
		change  func(*Config)
		refused bool
	}{
		{"loopback", func(*Config) {}, false},
		{"localhost by name", func(c *Config) { c.RESTAddr = "localhost:0" }, false},
		{"every interface", func(c *Config) { c.RESTAddr = ":0" }, true},
		{"every interface of IPv4", func(c *Config) { c.RESTAddr = "0.0.0.0:0" }, true},
		{"gRPC on every interface", func(c *Config) { c.GRPCAddr = ":0" }, true},
		{"operators on every interface", func(c *Config) { c.OpsAddr = "0.0.0.0:0" }, true},
		{"operators at a port alone", func(c *Config) { c.OpsAddr = ":0" }, false},
		{"with plaintext", func(c *Config) { c.RESTAddr, c.Plaintext = ":0", true }, false},
		{"with TLS", func(c *Config) { c.RESTAddr, c.TLSCert, c.TLSKey = ":0", cert, key }, false},
		{"in development", func(c *Config) { c.RESTAddr, c.Env = ":0", Development }, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			config := freePorts()
			config.Env = Production
			c.change(&config)
			l, err := listen(t.Context(), config)
			if (err != nil) != c.refused {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), "tls_cert") || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v", err)
				}
				return
			}
			l.close()
		})
	}
}

func TestOnLoopback(t *testing.T) {
	t.Parallel()
	c := freePorts()
	c.GRPCAddr = ":0"
	l, err := listen(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if l.onLoopback() {
		t.Error("a listener on every interface passes for loopback")
	}
	c = freePorts()
	c.OpsAddr = "0.0.0.0:0"
	ops, err := listen(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer ops.close()
	if ops.onLoopback() {
		t.Error("a listener for operators on every interface passes for loopback")
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	at := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 5} }
	cases := []struct{ setting, ip, want string }{
		{"127.0.0.1:0", "127.0.0.1", "127.0.0.1:5"},
		{"localhost:0", "127.0.0.1", "localhost:5"},
		{":0", "::", "127.0.0.1:5"},
		{"0.0.0.0:0", "0.0.0.0", "127.0.0.1:5"},
		{"[::1]:0", "::1", "[::1]:5"},
		{"keys.example.com:0", "192.0.2.1", "keys.example.com:5"},
	}
	for _, c := range cases {
		if got := reachable(c.setting, at(c.ip)); got != c.want {
			t.Errorf("%s bound to %s: got %s, want %s", c.setting, c.ip, got, c.want)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key, pool := certificate(t)
	c := freePorts()
	c.TLSCert, c.TLSKey = cert, key
	l, err := listen(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })}
	go server.Serve(l.rest)
	defer server.Close()

	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: protocol == "HTTP/2.0"}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+l.restAddr, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if string(body) != protocol {
			t.Errorf("spoke %s, want %s", body, protocol)
		}
	}
	old := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if conn, err := (&tls.Dialer{Config: old}).DialContext(t.Context(), "tcp", l.restAddr); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was spoken")
	}
	if l.grpcTLS == nil || l.grpcTLS.MinVersion != tls.VersionTLS12 || len(l.grpcTLS.NextProtos) != 1 || l.grpcTLS.NextProtos[0] != "h2" {
		t.Errorf("gRPC's TLS: %+v", l.grpcTLS)
	}
}

func TestUnreadableCertificate(t *testing.T) {
	t.Parallel()
	c := freePorts()
	c.TLSCert, c.TLSKey = "/nowhere/cert.pem", "/nowhere/key.pem"
	_, err := listen(t.Context(), c)
	if err == nil || !strings.HasPrefix(err.Error(), "tls_cert /nowhere/cert.pem and tls_key /nowhere/key.pem: ") {
		t.Errorf("got %v", err)
	}
}

func TestOpsAddr(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"9091": "127.0.0.1:9091", ":9091": "127.0.0.1:9091", "0.0.0.0:9091": "0.0.0.0:9091", "[::1]:9091": "[::1]:9091", "ops:1": "ops:1",
	} {
		if got := opsAddr(setting); got != want {
			t.Errorf("%s: got %s, want %s", setting, got, want)
		}
	}
	for _, setting := range []string{"x", "127.0.0.1", "127.0.0.1:x", "99999", "127.0.0.1:8080", "8080"} {
		c := Config{OpsAddr: setting}.withDefaults()
		if err := c.validate(); err == nil || !strings.HasPrefix(err.Error(), "ops_addr: must ") {
			t.Errorf("%s: got %v", setting, err)
		}
	}
}
