package connection

import (
	"container/list"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Config holds the bounds. All fields are required but those that say otherwise.
type Config struct {
	// Max bounds the open connections of all listeners together.
	Max int
	// MaxPerAddress bounds those of one address.
	MaxPerAddress int
	// TrustedProxies are addresses that are not counted by themselves, since all
	// clients behind a proxy share its address. May be empty.
	TrustedProxies []netip.Prefix
	// CredentialTimeout is how long a connection may go without a good credential.
	CredentialTimeout time.Duration
	// MessageTimeout is how long the message of a call may take to arrive.
	MessageTimeout time.Duration
	// AnswerTimeout is how long an answer may lie unread.
	AnswerTimeout time.Duration
	// MaxFailures bounds the calls with a bad credential from one address, a
	// second, over connections that have shown no good one.
	MaxFailures int
	// MaxAnswerBytes bounds the bytes of answers under way for all callers.
	MaxAnswerBytes int64
	// MaxCallerAnswerBytes bounds those for one caller.
	MaxCallerAnswerBytes int64
	// MaxCalls bounds the calls under way of all callers, and MaxCallerCalls those of
	// one caller.
	MaxCalls, MaxCallerCalls int64
	// Logger hears of connections that are closed or refused.
	Logger *slog.Logger
}

// writeBuffer bounds what the system keeps of answers that a client does not read,
// in bytes. Linux doubles it. Left alone, it grows to megabytes.
const writeBuffer = 256 << 10

// Table is the open connections.
type Table struct {
	config Config
	start  time.Time
	// now is the time that calls are stamped with: nanoseconds since start, as of
	// the last sweep.
	now atomic.Int64
	// answerBytes counts the bytes of answers under way for all callers.
	answerBytes atomic.Int64
	// calls counts the calls under way of all callers.
	calls atomic.Int64
	// openCalls counts the calls under way that need no credential.
	openCalls atomic.Int64
	draining  atomic.Bool // whether the server stops

	mu              sync.Mutex
	conns           map[*Conn]struct{}
	unauthenticated list.List // *Conn that have shown no good credential, oldest first
	addresses       map[netip.Prefix]*address
	accounts        map[Account]*account
	// refused and displaced count connections since the last line in the log.
	refused, displaced int
	told               time.Duration
}

// address is what is known of the connections of one address.
type address struct {
	key             netip.Prefix
	count           int
	unauthenticated list.List // *Conn that have shown no good credential, oldest first
	// debt is the number of failures that are not yet paid off by time.
	debt atomic.Int64
	paid int64 // fraction of a failure, in nanoseconds times MaxFailures
}

// New returns an empty Table.
func New(c Config) *Table {
	return &Table{
		config:    c,
		start:     time.Now(),
		conns:     make(map[*Conn]struct{}),
		addresses: make(map[netip.Prefix]*address),
		accounts:  make(map[Account]*account),
		told:      -time.Hour,
	}
}

// Len returns how many connections are open.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

// AnswerBytes returns the bytes of answers under way.
func (t *Table) AnswerBytes() int64 { return t.answerBytes.Load() }

// Calls returns how many calls of callers are under way.
func (t *Table) Calls() int64 { return t.calls.Load() }

// Listener returns l with every connection that it accepts in the table.
func (t *Table) Listener(l net.Listener) net.Listener { return &listener{Listener: l, table: t} }

type listener struct {
	net.Listener
	table *Table
}

// Accept returns the next connection for which there is room.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.table.add(raw); c != nil {
			return c, nil
		}
		_ = raw.Close() // nothing was said over it
	}
}

// add puts a new connection into the table, or returns nil where there is no room.
func (t *Table) add(raw net.Conn) *Conn {
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(writeBuffer) // what the system gives then is as good
	}
	c := &Conn{Conn: raw, table: t}
	c.since.Store(int64(time.Since(t.start)))
	key, counted := t.addressOf(raw.RemoteAddr())
	var displaced []*Conn
	t.mu.Lock()
	if counted {
		a := t.addresses[key]
		if a == nil {
			a = &address{key: key}
			t.addresses[key] = a
		}
		c.address = a
		if a.count >= t.config.MaxPerAddress {
			displaced = t.displaceLocked(displaced, &a.unauthenticated)
		}
	}
	if len(displaced) == 0 && len(t.conns) >= t.config.Max {
		displaced = t.displaceLocked(displaced, &t.unauthenticated)
	}
	full := len(t.conns) >= t.config.Max || c.address != nil && c.address.count >= t.config.MaxPerAddress
	if full {
		t.refused++
		t.forgetAddressLocked(c.address)
	} else {
		t.conns[c] = struct{}{}
		c.listed = t.unauthenticated.PushBack(c)
		if c.address != nil {
			c.address.count++
			c.addressListed = c.address.unauthenticated.PushBack(c)
		}
	}
	t.mu.Unlock()
	for _, old := range displaced {
		old.end("it made room for another, having shown no good credential")
	}
	if full {
		return nil
	}
	return c
}

// displaceLocked takes the first connection of a list out of the table and adds it to
// displaced.
func (t *Table) displaceLocked(displaced []*Conn, from *list.List) []*Conn {
	oldest := from.Front()
	if oldest == nil {
		return displaced
	}
	c, ok := oldest.Value.(*Conn)
	if !ok {
		return displaced
	}
	t.removeLocked(c)
	t.displaced++
	return append(displaced, c)
}

// remove takes c out of the table. It may be called again.
func (t *Table) remove(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeLocked(c)
}

func (t *Table) removeLocked(c *Conn) {
	if _, open := t.conns[c]; !open {
		return
	}
	delete(t.conns, c)
	t.unlistLocked(c)
	if a := c.address; a != nil {
		a.count--
		t.forgetAddressLocked(a)
	}
}

// unlistLocked takes c out of the lists of unauthenticated connections.
func (t *Table) unlistLocked(c *Conn) {
	if c.listed == nil {
		return
	}
	t.unauthenticated.Remove(c.listed)
	c.listed = nil
	if c.address != nil {
		c.address.unauthenticated.Remove(c.addressListed)
	}
}

// forgetAddressLocked forgets an address that has neither connections nor debts.
func (t *Table) forgetAddressLocked(a *address) {
	if a != nil && a.count == 0 && a.debt.Load() <= 0 {
		delete(t.addresses, a.key)
	}
}

// addressOf returns what the connections from remote are counted by, and whether
// they are counted by address at all.
func (t *Table) addressOf(remote net.Addr) (netip.Prefix, bool) {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}, false
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, p := range t.config.TrustedProxies {
		if p.Contains(addr) {
			return netip.Prefix{}, false
		}
	}
	bits := 32
	if addr.Is6() {
		bits = 64 // who has one address of a network has them all
	}
	key, err := addr.Prefix(bits)
	return key, err == nil
}

// discard closes a connection without waiting for what was sent over it.
func discard(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // closed all the same
	}
	_ = c.Close() // nobody is told
}
