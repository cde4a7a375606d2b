package server

import (
	"bytes"
	"strings"
	"testing"
)

// TestBounds is the table of what one client can make a server hold: each bound, by
// each protocol, before and after a good credential. The numbers are the defaults;
// tests drive a server past smaller ones where the default would take long.
//
//	bound                          before a credential    after one
//	connections of an address      1,024; the oldest      1,024; a new one is refused
//	                               makes room
//	connections in all             8,192; the same        8,192; the same
//	bytes of headers               64 KiB                 64 KiB
//	headers                        2,048                  2,048
//	calls on a connection          4 that need none       gRPC 1,024, HTTP/2 250, HTTP/1.1 1
//	calls of a caller              -                      16,384
//	calls of all callers           -                      32,768
//	bytes of a message             0, it is not read      1 MiB
//	time to send headers           10 s, then 30 s        10 s, over HTTP/2 40 s, gRPC 90 s
//	time to send a message         30 s for a health      30 s
//	                               check
//	time to read an answer         30 s                   60 s
//	bytes of answers of a caller   -                      64 MiB
//	bytes of answers in all        -                      256 MiB
//	bad credentials a second       100 of an address      not paced
func TestBounds(t *testing.T) {
	testBounds(t, []bound{
		{"connections of an address", boundConnectionsOfAddress},
		{"connections in all", boundConnections},
		{"number of headers", boundHeaders},
		{"calls on a connection", boundStreams},
		{"calls of a caller", boundCalls},
		{"calls of all callers", boundAllCalls},
		{"bytes of a message", boundMessage},
		{"time to send a message", boundMessageTime},
		{"time to send headers", boundHeaderTime},
		{"time to prove oneself", boundCredentialTime},
		{"bad credentials", boundFailures},
	})
	testBoundsOfMemory(t, []bound{{"bytes of headers", boundHeaderBytes}})
}

// bound is a row of the table: it drives a listener past one bound, before or after a
// credential.
type bound struct {
	name string
	run  func(t *testing.T, p protocol, proven bool)
}

// testBounds tries the rows at each listener, all cells of a row at the same time.
func testBounds(t *testing.T, rows []bound) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			eachCell(t, func(t *testing.T, p protocol, proven bool) {
				t.Parallel()
				row.run(t, p, proven)
			})
		})
	}
}

// testBoundsOfMemory is testBounds for rows that measure memory, one cell after the
// other: what is in memory belongs to that cell alone.
func testBoundsOfMemory(t *testing.T, rows []bound) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { eachCell(t, row.run) })
	}
}

func eachCell(t *testing.T, run func(t *testing.T, p protocol, proven bool)) {
	t.Helper()
	for _, p := range protocols {
		for state, proven := range map[string]bool{"before": false, "after": true} {
			t.Run(p.name+" "+state, func(t *testing.T) { run(t, p, proven) })
		}
	}
}

func boundConnectionsOfAddress(t *testing.T, p protocol, proven bool) {
	testConnections(t, startBounded(t, p, func(c *Config) { c.ConnectionsPerAddress = 3 }), proven)
}

func boundConnections(t *testing.T, p protocol, proven bool) {
	testConnections(t, startBounded(t, p, func(c *Config) { c.ConnectionsMax = 3 }), proven)
}

// testConnections fills a server that takes three connections, and then comes with
// another.
func testConnections(t *testing.T, s *boundedServer, proven bool) {
	var open []*client
	for range 3 {
		c := s.dial()
		if proven || len(open) == 2 {
			c.prove()
		}
		open = append(open, c)
	}
	if !proven {
		// Whoever has a good credential is not kept out by those who have none: the
		// oldest of them goes, and the caller stays.
		for _, oldest := range open[:2] {
			s.dial().prove()
			oldest.closed()
		}
		open[2].prove()
		return
	}
	refused := s.bare("127.0.0.1")
	if n, err := refused.Read(make([]byte, 1)); err == nil {
		t.Errorf("a fourth connection was answered %d bytes", n)
	}
	open[0].conn.Close()
	eventually(t, "room for another", func() bool { return s.listeners.conns.Len() < 3 })
	s.dial().prove()
	open[1].prove()
}

// boundHeaderBytes sends headers that are small on the wire and huge when they are
// decoded, and headers that are long as they are.
func boundHeaderBytes(t *testing.T, p protocol, proven bool) {
	s := startBounded(t, p, nil)
	long := list.as(credentialOf(proven))
	long.headers = []string{"x-long", strings.Repeat("x", 80<<10)}
	c := s.dial()
	if proven {
		c.prove()
	}
	stream, err := c.trySend(long)
	if err == nil {
		if got := c.answer(stream); got == "ok" {
			t.Errorf("80 KiB of headers: %s", got)
		}
	}
	if !p.http2 {
		return
	}
	before := liveMemory()
	for range 10 {
		c := s.dial()
		if proven {
			c.prove()
		}
		for range 4 {
			c.last += 2
			block := append([]byte{0x40, 1, 'x', 0}, bytes.Repeat([]byte{0xbe}, 480_000)...)
			if c.writeBlock(block, false) != nil {
				break // the server has closed the connection
			}
		}
	}
	if grown := int64(liveMemory()) - int64(before); grown > 16<<20 {
		t.Errorf("40 header bombs hold %d bytes", grown)
	}
	s.dial().prove()
}

func credentialOf(proven bool) string {
	if proven {
		return boundsToken
	}
	return ""
}

func boundHeaders(t *testing.T, p protocol, proven bool) {
	s := startBounded(t, p, nil)
	c := s.dial()
	if proven {
		c.prove()
	}
	many := list.as(boundsToken)
	for range 2100 {
		many.headers = append(many.headers, "x", "")
	}
	stream, err := c.trySend(many)
	if err == nil {
		if got := c.answer(stream); got == "ok" {
			t.Errorf("2,100 headers: %s", got)
		}
	}
}

// boundStreams opens calls that do not end.
func boundStreams(t *testing.T, p protocol, proven bool) {
	s := startBounded(t, p, nil)
	c := s.dial()
	most, call := maxStreams, boundedCall{method: "ApiKeysService/CreateApiKey", verb: "POST", path: "/developers/api_keys", body: "{", withheld: 10, credential: boundsToken}
	switch {
	case !p.http2:
		return // one at a time
	case !p.rpc && !proven:
		return // a request without a credential is answered at once
	case !proven:
		most, call = 4, boundedCall{method: "grpc.health.v1.Health/Check", withheld: 10}
	case !p.rpc:
		most = maxHTTP2Streams
	}
	for range most + 1 {
		c.send(call)
	}
	if got := c.anyAnswer(); got != "reset" && got != "exhausted" {
		t.Errorf("one call more than %d: %s", most, got)
	}
}

// boundCalls opens calls of one caller over many connections.
func boundCalls(t *testing.T, p protocol, proven bool) {
	const most = 3
	testCalls(t, p, proven, most, func(c *Config) { c.CallsPerCaller = most })
}

// boundAllCalls has one caller alone. What is left to others is tested where calls are
// counted.
func boundAllCalls(t *testing.T, p protocol, proven bool) {
	const most = 65 // above what every caller may have
	testCalls(t, p, proven, most, func(c *Config) { c.CallsMax, c.CallsPerCaller = most, most })
}

// testCalls opens as many calls of a caller as may be under way, and then another, over
// as many connections as it takes.
func testCalls(t *testing.T, p protocol, proven bool, most int, change func(*Config)) {
	if !proven {
		return // such a call is over at once: see boundStreams
	}
	s := startBounded(t, p, change)
	withheld := boundedCall{method: "ApiKeysService/CreateApiKey", verb: "POST", path: "/developers/api_keys", body: "{", withheld: 10, credential: boundsToken}
	var open []*client
	for i := range most {
		if i == 0 || !p.http2 || i == most/2 {
			open = append(open, s.dial())
		}
		open[len(open)-1].send(withheld)
	}
	eventually(t, "calls under way", func() bool { return s.listeners.conns.Calls() == int64(most) })
	another := s.dial()
	if got := another.answer(another.send(list.as(boundsToken))); got != "exhausted" {
		t.Errorf("one call more than %d: %s", most, got)
	}
	for _, c := range open {
		c.conn.Close()
	}
	eventually(t, "the end of all calls", func() bool { return s.listeners.conns.Calls() == 0 })
	another.prove()
	eventually(t, "the end of a call", func() bool { return s.listeners.conns.Calls() == 0 })
}

func boundMessage(t *testing.T, p protocol, proven bool) {
	s := startBounded(t, p, nil)
	c := s.dial()
	large := boundedCall{method: "ApiKeysService/CreateApiKey", verb: "POST", path: "/developers/api_keys", credential: credentialOf(proven), body: "{", withheld: 1 << 20}
	want := "unauthenticated"
	if proven {
		want = "exhausted"
	}
	if got := c.answer(c.send(large)); got != want {
		t.Errorf("a message of more than 1 MiB: %s, want %s", got, want)
	}
}

// boundHeaderTime sends the beginning of the headers and no more.
func boundHeaderTime(t *testing.T, p protocol, proven bool) {
	s := startBounded(t, p, func(c *Config) {
		c.HeaderTimeout, c.MessageTimeout, c.AnswerTimeout = enough, enough, enough
		if !proven {
			c.CredentialTimeout = enough
		}
	})
	if p.secure && !proven { // not even a handshake
		conn := s.bare("127.0.0.1")
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("no handshake: %d bytes", n)
		}
	}
	c := s.dial()
	if proven {
		c.prove()
	}
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

// boundCredentialTime shows no credential, and a bad one.
func boundCredentialTime(t *testing.T, p protocol, proven bool) {
	s := startBounded(t, p, func(c *Config) { c.CredentialTimeout = enough })
	silent, bad, good := s.dial(), s.dial(), s.dial()
	if proven {
		silent.prove()
		bad.prove()
	}
	good.prove()
	if got := bad.answer(bad.send(list.as("sk_live_bad"))); got != "unauthenticated" {
		t.Fatalf("a bad credential: %s", got)
	}
	newest := s.dial()
	newest.closed() // by then, the others have had their time
	if !proven {
		silent.closed()
		bad.closed()
	} else {
		silent.prove()
		bad.prove()
	}
	good.prove()
}

// boundMessageTime sends a call without all of its message.
func boundMessageTime(t *testing.T, p protocol, proven bool) {
	s := startBounded(t, p, func(c *Config) { c.MessageTimeout = enough })
	calls := map[string]boundedCall{
		"half a message": {method: "ApiKeysService/CreateApiKey", verb: "POST", path: "/developers/api_keys", body: `{"label": "x"`, withheld: 10},
		"no message":     {method: "ApiKeysService/CreateApiKey", verb: "POST", path: "/developers/api_keys", withheld: 10},
	}
	if p.rpc {
		calls["a stream with no message"] = boundedCall{method: "EventsService/WatchEvents", withheld: 10}
		if !proven {
			calls["a health check with no message"] = boundedCall{method: "grpc.health.v1.Health/Check", withheld: 10}
			calls["a health watch with no message"] = boundedCall{method: "grpc.health.v1.Health/Watch", withheld: 10}
			calls["reflection with no message"] = boundedCall{method: "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", withheld: 10}
		}
	}
	var answers []func()
	for name, call := range calls {
		c := s.dial()
		want := "unauthenticated"
		if proven || strings.HasPrefix(call.method, "grpc.") && p.rpc {
			want = "late"
		}
		stream := c.send(call.as(credentialOf(proven)))
		if proven && p.http2 { // others on the connection are not held up
			c.prove()
		}
		answers = append(answers, func() {
			if got := c.answer(stream); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
			if proven && p.http2 {
				c.prove()
			}
		})
	}
	for _, answer := range answers {
		answer()
	}
}

// boundFailures sends bad credentials as fast as it can.
func boundFailures(t *testing.T, p protocol, proven bool) {
	s := startBounded(t, p, func(c *Config) { c.FailuresPerSecond = 10 })
	c := s.dial()
	if proven {
		c.prove()
	}
	const flood = 20_000
	if proven {
		for range 200 {
			if got := c.answer(c.send(list.as("sk_live_bad"))); got != "unauthenticated" {
				t.Fatalf("a bad credential: %s", got)
			}
		}
		return
	}
	answered := make(chan int)
	go func() {
		for range flood {
			if _, err := c.trySend(list.as("sk_live_bad")); err != nil {
				break
			}
		}
	}()
	go func() {
		n := 0
		for n < flood && c.answerOf(n) {
			n++
		}
		answered <- n
	}()
	// Whoever has a good credential is served meanwhile, from the same address.
	for range 50 {
		s.dial().prove()
	}
	c.conn.Close()
	if n := <-answered; n > flood/2 {
		t.Errorf("%d bad credentials were looked at, of 10 a second", n)
	}
}
