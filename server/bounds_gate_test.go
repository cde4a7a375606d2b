package server

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// gateProtocols are the ways to speak to the listener for gateways.
var gateProtocols = []protocol{
	{name: "forward_auth", gateway: true},
	{name: "forward_auth with TLS", gateway: true, secure: true},
	{name: "ext_authz", gateway: true, rpc: true, http2: true},
	{name: "ext_authz with TLS", gateway: true, rpc: true, http2: true, secure: true},
}

// TestBoundsOfGate is the table of what one client can make the listener for gateways
// hold. Nobody shows a credential there; a connection that has asked a question is one of
// a gateway, which no other displaces.
//
//	bound                          value
//	connections of an address      1,024, but for trusted_proxies
//	connections in all             8,192
//	bytes of headers               64 KiB
//	headers                        2,048, those of the question too
//	calls on a connection          gRPC 1,024, HTTP/1.1 1
//	calls of all gateways          16,384
//	bytes of a message             gRPC 1 MiB; a body over HTTP is not read
//	time to say anything           10 s, the handshake included
//	time to send headers           10 s
//	time to send a message         30 s
func TestBoundsOfGate(t *testing.T) {
	rows := []struct {
		name string
		run  func(*testing.T, protocol)
	}{
		{"connections of an address", gateConnectionsOfAddress},
		{"connections of a trusted proxy", gateConnectionsOfProxy},
		{"connections in all", gateConnections},
		{"bytes of headers", gateHeaderBytes},
		{"number of headers", gateHeaders},
		{"calls on a connection", gateStreams},
		{"calls of all gateways", gateCalls},
		{"bytes of a message", gateMessage},
		{"time to say anything", gateSilence},
		{"time to send headers", gateHeaderTime},
		{"time to send a message", gateMessageTime},
	}
	for _, row := range rows {
		for _, p := range gateProtocols {
			t.Run(row.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				row.run(t, p)
			})
		}
	}
}

// gateCall is a question about a request without a key.
func gateCall(t *testing.T) boundedCall {
	t.Helper()
	question, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return boundedCall{method: "envoy.service.auth.v3.Authorization/Check", verb: http.MethodGet, path: "/forward_auth", body: string(question)}
}

// ask asks a question and has it answered.
func (c *client) ask() {
	c.t.Helper()
	want := "unauthenticated"
	if c.rpc {
		want = "ok" // The refusal is in the answer.
	}
	call := gateCall(c.t)
	if !c.rpc {
		call.body = ""
	}
	if got := c.answer(c.send(call)); got != want {
		c.t.Fatalf("a question: %s, want %s", got, want)
	}
}

func gateConnectionsOfAddress(t *testing.T, p protocol) {
	testGateConnections(t, startBounded(t, p, func(c *Config) { c.ConnectionsPerAddress = 3 }))
}

func gateConnections(t *testing.T, p protocol) {
	testGateConnections(t, startBounded(t, p, func(c *Config) { c.ConnectionsMax = 3 }))
}

func testGateConnections(t *testing.T, s *boundedServer) {
	silent := s.bare("127.0.0.1")
	first, second := s.dial(), s.dial()
	first.ask()
	second.ask()
	third := s.dial() // for which the silent one makes room
	third.ask()
	if n, err := silent.Read(make([]byte, 1)); err == nil {
		t.Errorf("a silent connection was answered %d bytes", n)
	}
	refused := s.bare("127.0.0.1")
	if n, err := refused.Read(make([]byte, 1)); err == nil {
		t.Errorf("a fourth connection was answered %d bytes", n)
	}
	first.ask()
	// Thousands that say nothing come and go, and nobody is kept out.
	second.conn.Close()
	eventually(t, "room for another", func() bool { return s.listeners.gate.conns.Len() < 3 })
	for range 2000 {
		conn := s.bare("127.0.0.1")
		if n := s.listeners.gate.conns.Len(); n > 3 {
			t.Fatalf("%d connections are open", n)
		}
		conn.Close()
	}
	first.ask()
	third.ask()
}

func gateConnectionsOfProxy(t *testing.T, p protocol) {
	s := startBounded(t, p, func(c *Config) {
		c.ConnectionsPerAddress, c.TrustedProxies = 1, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	first, second := s.dial(), s.dial()
	first.ask()
	second.ask()
	first.ask()
}

func gateHeaderBytes(t *testing.T, p protocol) {
	s := startBounded(t, p, nil)
	c := s.dial()
	long := gateCall(t)
	long.headers = []string{"x-api-key", strings.Repeat("x", 80<<10)}
	if !p.rpc {
		long.body = ""
	}
	if stream, err := c.trySend(long); err == nil {
		if got := c.answer(stream); got == "ok" || got == "unauthenticated" {
			t.Errorf("80 KiB of headers: %s", got)
		}
	}
	s.dial().ask()
}

func gateHeaders(t *testing.T, p protocol) {
	s := startBounded(t, p, nil)
	c := s.dial()
	many := gateCall(t)
	if !p.rpc {
		many.body = ""
	}
	for range 2100 {
		many.headers = append(many.headers, "x", "")
	}
	if stream, err := c.trySend(many); err == nil {
		if got := c.answer(stream); got == "ok" || got == "unauthenticated" {
			t.Errorf("2,100 headers: %s", got)
		}
	}
}

func gateStreams(t *testing.T, p protocol) {
	if !p.rpc {
		return // one at a time
	}
	c := startBounded(t, p, nil).dial()
	withheld := gateCall(t)
	withheld.withheld = 10
	for range maxStreams + 1 {
		c.send(withheld)
	}
	if got := c.anyAnswer(); got != "reset" {
		t.Errorf("one call more than %d: %s", maxStreams, got)
	}
}

func gateCalls(t *testing.T, p protocol) {
	if !p.rpc {
		return // Connections are as many.
	}
	const most = 3
	s := startBounded(t, p, func(c *Config) { c.CallsPerCaller = most })
	withheld := gateCall(t)
	withheld.withheld = 10
	open := s.dial()
	for range most {
		open.send(withheld)
	}
	eventually(t, "calls under way", func() bool { return s.listeners.gate.conns.Calls() == most })
	another := s.dial()
	if got := another.answer(another.send(gateCall(t))); got != "exhausted" {
		t.Errorf("one call more than %d: %s", most, got)
	}
	open.conn.Close()
	eventually(t, "the end of all calls", func() bool { return s.listeners.gate.conns.Calls() == 0 })
	another.ask()
	eventually(t, "the end of a call", func() bool { return s.listeners.gate.conns.Calls() == 0 })
}

func gateMessage(t *testing.T, p protocol) {
	c := startBounded(t, p, nil).dial()
	large := gateCall(t)
	large.withheld = 1 << 20
	want := "unauthenticated" // at once: nothing of a body is read
	if p.rpc {
		want = "exhausted"
	}
	if got := c.answer(c.send(large)); got != want {
		t.Errorf("more than 1 MiB: %s, want %s", got, want)
	}
}

func gateSilence(t *testing.T, p protocol) {
	s := startBounded(t, p, func(c *Config) { c.HeaderTimeout = enough })
	conn := s.bare("127.0.0.1")
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("a silent connection was answered %d bytes", n)
	}
	if p.secure && !p.http2 { // after the handshake
		s.dial().closed()
	}
}

func gateHeaderTime(t *testing.T, p protocol) {
	s := startBounded(t, p, func(c *Config) {
		c.HeaderTimeout, c.MessageTimeout, c.AnswerTimeout, c.CredentialTimeout = enough, enough, enough, enough
	})
	c := s.dial()
	if p.http2 {
		c.last += 2
		if err := c.framer.WriteRawFrame(1, 0, c.last, []byte{0x82}); err != nil {
			t.Fatal(err)
		}
	} else {
		c.must(c.conn.Write([]byte("GET / HTTP/1.1\r\nHost:")))
	}
	c.closed()
}

func gateMessageTime(t *testing.T, p protocol) {
	if !p.rpc {
		return // A body is not waited for.
	}
	c := startBounded(t, p, func(c *Config) { c.MessageTimeout = enough }).dial()
	withheld := gateCall(t)
	withheld.withheld = 10
	stream := c.send(withheld)
	c.ask() // Others on the connection are not held up.
	if got := c.answer(stream); got != "late" {
		t.Errorf("half a message: %s, want late", got)
	}
}
