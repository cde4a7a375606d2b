package server

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/masked"
)

// boundsToken is the operator's token of the servers whose bounds are tested.
const boundsToken = "bounds-root-token-of-enough-length"

// protocol is a way to speak to a server: a listener, and what is spoken there.
type protocol struct {
	name               string
	rpc, http2, secure bool
	gateway            bool // whether it is spoken to the listener for gateways
}

// protocols are all ways. REST speaks HTTP/2 only with TLS.
var protocols = []protocol{
	{name: "gRPC", rpc: true, http2: true},
	{name: "gRPC with TLS", rpc: true, http2: true, secure: true},
	{name: "REST over HTTP/1.1"},
	{name: "REST over HTTP/1.1 with TLS", secure: true},
	{name: "REST over HTTP/2 with TLS", http2: true, secure: true},
}

// boundedServer is a running server that is spoken to by one protocol.
type boundedServer struct {
	*Server
	protocol
	t     *testing.T
	roots *x509.CertPool
}

// startBounded runs a server until the test ends.
func startBounded(t *testing.T, p protocol, change func(*Config)) *boundedServer {
	t.Helper()
	c := Config{
		RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", DataDir: t.TempDir(), RootToken: masked.New(boundsToken),
		Logger: slog.New(slog.DiscardHandler),
	}
	s := &boundedServer{protocol: p, t: t}
	if p.secure {
		c.TLSCert, c.TLSKey, s.roots = certificate(t)
	}
	if p.gateway {
		c.GateAddr = "127.0.0.1:0"
	}
	if change != nil {
		change(&c)
	}
	var err error
	if s.Server, err = New(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return s
}

// bare opens a connection from an address of this machine and says nothing over it,
// not even in TLS.
func (s *boundedServer) bare(from string) net.Conn {
	s.t.Helper()
	addr := s.RESTAddr()
	switch {
	case s.gateway:
		addr = s.GateAddr()
	case s.rpc:
		addr = s.GRPCAddr()
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	conn, err := d.DialContext(s.t.Context(), "tcp", addr.String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// testTimeout is how long a test waits for what must come. It tells a server that
// hangs from a machine that is busy, and no speed.
const testTimeout = 2 * time.Minute

// enough is a limit of time that a handshake and a few calls keep on a machine that is
// busy, and that a test can wait for.
const enough = 2 * time.Second

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(testTimeout); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, testTimeout)
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
}

// liveMemory returns the bytes that are reachable.
func liveMemory() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
