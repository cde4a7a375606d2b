// Package network is a network for tests: a [Proxy] between a server and its database,
// or any two programs on this machine, that can be cut, stopped and slowed down.
package network

import (
	"context"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Proxy forwards TCP connections to a target. Its methods are safe for concurrent use.
type Proxy struct {
	listener net.Listener
	all      sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond // told of changes of the fields below
	target  string
	cut     bool
	held    bool
	delay   time.Duration
	jitter  time.Duration // most that is added to delay, by chance
	conns   map[net.Conn]bool
	closed  bool
}

// NewProxy starts a proxy to the address target until the test ends.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, conns: make(map[net.Conn]bool)}
	p.changed = sync.NewCond(&p.mu)
	p.all.Go(p.accept)
	tb.Cleanup(p.close)
	return p
}

// NewDatabaseProxy starts a proxy to the database of a URL until the test ends, and
// returns it with the URL of the database through it.
func NewDatabaseProxy(tb testing.TB, database string) (*Proxy, string) {
	tb.Helper()
	u, err := url.Parse(database)
	if err != nil {
		tb.Fatal("the database has no URL") // Which may hold a password.
	}
	p := NewProxy(tb, u.Host)
	u.Host = p.Addr()
	return p, u.String()
}

// Addr returns the address of the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut ends all connections, and every new one at once.
func (p *Proxy) Cut() {
	p.set(func() { p.cut = true; p.endLocked() })
}

// Redirect forwards every new connection to another target.
func (p *Proxy) Redirect(target string) { p.set(func() { p.target = target }) }

// Hold lets nothing through and tells nobody, as a network that loses everything.
func (p *Proxy) Hold() { p.set(func() { p.held = true }) }

// Delay holds each piece of data back for d, on each way.
func (p *Proxy) Delay(d time.Duration) { p.set(func() { p.delay = d }) }

// Jitter holds each piece of data back for up to most, each by chance, so that
// connections overtake each other. Zero ends it.
func (p *Proxy) Jitter(most time.Duration) { p.set(func() { p.jitter = most }) }

// Restore lets everything through again that was not lost, at once.
func (p *Proxy) Restore() {
	p.set(func() { p.cut, p.held, p.delay, p.jitter = false, false, 0, 0 })
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.changed.Broadcast()
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.set(func() { p.closed = true; p.endLocked() })
	p.all.Wait()
}

func (p *Proxy) endLocked() {
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.serve(client) })
	}
}

// address returns the address of the target.
func (p *Proxy) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

// keep notes a connection; it is closed where there is none to be.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.cut {
		_ = c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

func (p *Proxy) serve(client net.Conn) {
	if !p.keep(client) {
		return
	}
	defer p.drop(client)
	if !p.pass() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	target, err := new(net.Dialer).DialContext(ctx, "tcp", p.address())
	if err != nil || !p.keep(target) {
		return
	}
	p.all.Go(func() { p.forward(target, client) })
	p.forward(client, target)
}

// forward sends what comes from one connection to another, until either ends.
func (p *Proxy) forward(to, from net.Conn) {
	defer p.drop(to, from)
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.pass() {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass returns when a piece of data may go on; false where its connection ends.
func (p *Proxy) pass() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.delay
	if p.jitter > 0 {
		d += rand.N(p.jitter) //nolint:gosec // Chance is enough.
	}
	if d > 0 {
		p.mu.Unlock()
		time.Sleep(d) //nolint:forbidigo // The delay is what the test asks for.
		p.mu.Lock()
	}
	for p.held && !p.closed && !p.cut {
		p.changed.Wait()
	}
	return !p.closed && !p.cut
}
