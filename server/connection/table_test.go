package connection

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/mem"
)

// remoteConn is a connection from an address, with nothing behind it.
type remoteConn struct {
	net.Conn
	from string
}

func (c remoteConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.from), 1))
}

func testConfig() Config {
	return Config{
		Max: 1000, MaxPerAddress: 2, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		CredentialTimeout: time.Minute, MessageTimeout: time.Minute, AnswerTimeout: time.Minute,
		MaxFailures: 10, MaxAnswerBytes: 1 << 20, MaxCallerAnswerBytes: 1 << 20, MaxCalls: 1000, MaxCallerCalls: 1000,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// open adds a connection from an address to the table, nil where there is no room.
func open(t *testing.T, table *Table, from string) *Conn {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close(); there.Close() })
	return table.add(remoteConn{here, from})
}

// call begins a call of caller on c.
func begin(t *testing.T, c *Conn, name string) *Call {
	t.Helper()
	call := &Call{conn: c, begun: c.table.now.Load()}
	c.mu.Lock()
	c.calls.add(call)
	c.mu.Unlock()
	if err := call.Admit(Account{ID: name}); err != nil {
		t.Fatal(err)
	}
	return call
}

func TestConnectionsOfAnAddress(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		addresses []string
		counted   bool
	}{
		"IPv4":                   {[]string{"192.0.2.1", "192.0.2.1", "192.0.2.1"}, true},
		"IPv4 as IPv6":           {[]string{"192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"}, true},
		"the network of an IPv6": {[]string{"2001:db8::1", "2001:db8::2", "2001:db8::ffff:1"}, true},
		"others":                 {[]string{"192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"}, false},
		"a trusted proxy":        {[]string{"10.0.0.1", "10.0.0.1", "10.0.0.1"}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			table := New(testConfig())
			for i, from := range test.addresses {
				c := open(t, table, from)
				if full := test.counted && i == 2; (c == nil) != full {
					t.Fatalf("connection %d: %v", i, c)
				}
				c.Prove()
			}
		})
	}
}

// A connection without a good credential makes room for a new one, the oldest first; a
// caller's does not.
func TestUnauthenticatedMakeRoom(t *testing.T) {
	t.Parallel()
	table := New(testConfig())
	first, caller := open(t, table, "192.0.2.1"), open(t, table, "192.0.2.1")
	caller.Prove()
	second := open(t, table, "192.0.2.1")
	if second == nil || !first.closed.Load() || caller.closed.Load() || table.Len() != 2 {
		t.Fatalf("first closed %v, caller closed %v, %d open", first.closed.Load(), caller.closed.Load(), table.Len())
	}
	second.Prove()
	if open(t, table, "192.0.2.1") != nil {
		t.Error("there was room beside two callers")
	}
	caller.Close()
	caller.Close()
	if open(t, table, "192.0.2.1") == nil {
		t.Error("no room after one has gone")
	}
	second.Close()
	first.Close()
	table.sweep(0)
	if got := len(table.addresses); got != 1 {
		t.Errorf("%d addresses are known", got)
	}
}

// The bytes of an answer are its caller's until the transport has released it.
func TestAnswerBytes(t *testing.T) {
	t.Parallel()
	config := testConfig()
	config.MaxCallerAnswerBytes, config.MaxAnswerBytes = 100<<10, 150<<10
	table := New(config)
	c := open(t, table, "192.0.2.1")
	answer := func(name string, bytes int) mem.BufferSlice {
		call := begin(t, c, name)
		data := call.Answer(mem.BufferSlice{mem.SliceBuffer(make([]byte, bytes))})
		call.Answered()
		return data
	}
	refused := func(name string) bool { return errors.Is((&Call{conn: c}).Admit(Account{ID: name}), ErrUnread) }
	a := answer("a", 100<<10)
	if !refused("a") || refused("b") {
		t.Errorf("at its bound: a %v, b %v", refused("a"), refused("b"))
	}
	b := answer("b", 80<<10)
	if !refused("b") || refused("c") {
		t.Error("at the bound of all, only those who have their share of it are refused")
	}
	a.Ref()
	a.Free()
	if !refused("a") {
		t.Error("an answer that is still held counts no more")
	}
	a.Free()
	if refused("a") || refused("b") || table.AnswerBytes() != 80<<10 {
		t.Errorf("%d bytes are under way", table.AnswerBytes())
	}
	c.Close() // the transport forgets what it holds
	if table.AnswerBytes() != 0 {
		t.Errorf("%d bytes are under way on a closed connection", table.AnswerBytes())
	}
	b.Free()
	late := &Call{conn: c}
	if err := late.Admit(Account{ID: "b"}); err != nil {
		t.Fatal(err)
	}
	late.Charge(1000)
	if table.AnswerBytes() != 0 {
		t.Errorf("%d bytes after the end", table.AnswerBytes())
	}
}

// A call is its caller's until its handler is over and the transport has released its
// answer, or its connection is closed.
func TestCalls(t *testing.T) {
	t.Parallel()
	config := testConfig()
	config.MaxCallerCalls, config.MaxCalls = smallCalls+2, smallCalls+3
	table := New(config)
	c := open(t, table, "192.0.2.1")
	refused := func(name string) bool {
		call := &Call{conn: c}
		err := call.Admit(Account{ID: name})
		call.Close()
		return errors.Is(err, ErrCalls)
	}
	counted := func(what string, want int64) {
		t.Helper()
		if got := table.Calls(); got != want {
			t.Errorf("%s: %d calls under way, want %d", what, got, want)
		}
	}
	var calls []*Call
	for range smallCalls + 2 {
		calls = append(calls, begin(t, c, "a"))
	}
	if !refused("a") || refused("b") {
		t.Errorf("at its bound: a %v, b %v", refused("a"), refused("b"))
	}
	begin(t, c, "b").Close()
	calls[0].Close()
	others := []*Call{begin(t, c, "b"), begin(t, c, "b"), begin(t, c, "b")}
	if !refused("a") || refused("b") || refused("c") {
		t.Error("at the bound of all, only those who have their share of it are refused")
	}
	for _, call := range others {
		call.Close()
	}
	counted("some are over", smallCalls+1)

	data := calls[1].Answer(mem.BufferSlice{mem.SliceBuffer(make([]byte, 10))})
	calls[1].Answered()
	counted("an answer under way", smallCalls+1)
	data.Free()
	counted("an answer that was taken", smallCalls)
	calls[2].End()
	calls[2].End()
	counted("a failure", smallCalls-1)

	calls[3].Answer(nil)
	calls[3].Answered()
	c.Close()
	counted("a closed connection", smallCalls-2)
	calls[4].Answer(nil)
	calls[4].Answered()
	counted("a handler that outlives its connection", smallCalls-3)

	answered := &Call{conn: c}
	answered.Close()
	if err := answered.Admit(Account{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	counted("a request that was answered before it was admitted", smallCalls-3)
}

// An answer that nobody takes ends its connection, a call without an answer does
// not.
func TestUnreadAnswer(t *testing.T) {
	t.Parallel()
	table := New(testConfig())
	c := open(t, table, "192.0.2.1")
	c.Prove()
	stream := begin(t, c, "a")
	_ = stream.Follow(nil)
	unary := begin(t, c, "a")
	later := int64(2 * time.Minute)
	if _, unread := c.overdue(later); unread {
		t.Error("a stream that goes on counts as unread")
	}
	stream.End()
	unary.End()
	if _, unread := c.overdue(int64(time.Second)); unread {
		t.Error("an answer counts as unread at once")
	}
	if _, unread := c.overdue(later); !unread {
		t.Error("an answer lies there for ever")
	}
	if c.calls.first != stream || c.calls.last != stream {
		t.Error("a call without an answer is remembered")
	}
}

// An account that nobody uses is forgotten, and a connection that remembers it
// finds the new one.
func TestAccountsAreForgotten(t *testing.T) {
	t.Parallel()
	table := New(testConfig())
	c := open(t, table, "192.0.2.1")
	call := begin(t, c, "a")
	call.Charge(10)
	table.sweepAccountsLocked(int64(time.Hour))
	if len(table.accounts) != 1 {
		t.Fatal("an account with bytes was forgotten")
	}
	call.Refund()
	table.sweepAccountsLocked(int64(time.Hour))
	if len(table.accounts) != 1 {
		t.Fatal("an account with a call was forgotten")
	}
	call.Close()
	table.sweepAccountsLocked(int64(time.Hour))
	if len(table.accounts) != 0 {
		t.Fatal("an account with nothing under way is kept")
	}
	begin(t, c, "a").Charge(10)
	if got := table.accounts[Account{ID: "a"}]; got == nil || got.bytes.Load() != 10 {
		t.Errorf("the account is %v", got)
	}
}

// A client that does not take what is written to it is not read from, until it
// does.
func TestBlockedWritePausesReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := New(testConfig())
		here, there := net.Pipe()
		defer there.Close()
		c := table.add(remoteConn{here, "192.0.2.1"})
		defer c.Close()
		c.Prove()
		go c.Write([]byte("answer"))
		synctest.Wait()
		for now := int64(1); now < 4; now++ {
			c.sweep(now, 1)
		}
		if !c.paused.Load() {
			t.Fatal("it is read from")
		}
		read := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		if _, err := io.ReadFull(there, make([]byte, len("answer"))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.sweep(5, 1)
		if _, err := there.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil {
			t.Fatal(err)
		}
	})
}

// Failures are paid off by time, at the rate that is configured.
func TestFailuresArePaidOff(t *testing.T) {
	t.Parallel()
	table := New(testConfig())
	c, caller := open(t, table, "192.0.2.1"), open(t, table, "192.0.2.1")
	caller.Prove()
	for range 25 {
		c.Reject()
		caller.Reject()
	}
	if !c.paused.Load() || caller.paused.Load() {
		t.Fatalf("paused: unauthenticated %v, caller %v", c.paused.Load(), caller.paused.Load())
	}
	for tick := range int64(20) {
		table.payDebts(int64(time.Second) / 10)
		c.sweep(tick, 1)
		caller.sweep(tick, 1)
		if paused := c.paused.Load(); paused != (tick < 14) {
			t.Fatalf("after %d tenths of a second: paused %v", tick+1, paused)
		}
	}
	c.pause()
	c.Prove()
	if c.paused.Load() {
		t.Error("a caller is held up for what it sent before")
	}
}
