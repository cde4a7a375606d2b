package connection

import (
	"container/list"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a connection of a [Table]. The methods of a nil Conn do nothing: it
// stands for a connection that nobody bounds, such as one of a test.
type Conn struct {
	net.Conn
	table   *Table
	address *address // nil where the address is not counted

	// proved says that a good credential was shown, rejected that a bad one was.
	proved, rejected atomic.Bool
	// since is when the connection began or last had a health check served.
	since atomic.Int64
	// openCalls counts the calls under way that need no credential.
	openCalls atomic.Int64
	// writes is odd while a write is under way.
	writes atomic.Uint64
	// account is that of the caller who used the connection last.
	account atomic.Pointer[account]

	// listed and addressListed are the places in the lists of unauthenticated
	// connections, nil once a good credential was shown. Guarded by Table.mu.
	listed, addressListed *list.Element

	// Of the sweep alone: the write that was under way, and since when.
	lastWrite    uint64
	blockedSince int64

	paused atomic.Bool // whether resume is set

	closed atomic.Bool

	mu     sync.Mutex
	resume chan struct{} // closed when reading may go on; nil for now
	calls  callList
}

var _ net.Conn = (*Conn)(nil)

// Prove records that the connection has shown a good credential.
func (c *Conn) Prove() {
	if c == nil || c.proved.Load() {
		return
	}
	t := c.table
	t.mu.Lock()
	t.unlistLocked(c)
	t.mu.Unlock()
	c.proved.Store(true)
	c.unpause()
}

// Reject records a call with a bad credential.
func (c *Conn) Reject() {
	if c == nil || c.proved.Load() {
		return
	}
	c.rejected.Store(true)
	if a := c.address; a != nil && a.debt.Add(1) > int64(c.table.config.MaxFailures) {
		c.pause()
	}
}

// Serve records that something was served which needs no credential, such as a
// health check: the time to show one begins anew.
func (c *Conn) Serve() {
	if c != nil {
		c.since.Store(c.table.now.Load())
	}
}

// Read reads, once nothing keeps the connection from being read.
func (c *Conn) Read(p []byte) (int, error) {
	if c.paused.Load() {
		c.mu.Lock()
		resume := c.resume
		c.mu.Unlock()
		if resume != nil {
			<-resume
		}
	}
	return c.Conn.Read(p)
}

// Write writes, and lets the sweep see that a write is under way.
func (c *Conn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	n, err := c.Conn.Write(p)
	c.writes.Add(1)
	return n, err
}

// SetReadDeadline sets the deadline of reads. One that waits is let go on, so that
// it meets the deadline.
func (c *Conn) SetReadDeadline(at time.Time) error {
	err := c.Conn.SetReadDeadline(at)
	c.unpause()
	return err
}

// SetDeadline sets the deadline of reads and writes.
func (c *Conn) SetDeadline(at time.Time) error {
	err := c.Conn.SetDeadline(at)
	c.unpause()
	return err
}

// Close closes the connection. What its answers held is given back.
func (c *Conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// end closes the connection at once, whatever is still to be sent over it.
func (c *Conn) end(why string) {
	c.leave()
	discard(c.Conn)
	c.table.config.Logger.Debug("connection closed", "address", c.RemoteAddr().String(), "reason", why)
}

// leave takes the connection out of the table and its calls out of the accounts.
func (c *Conn) leave() {
	c.closed.Store(true)
	c.table.remove(c)
	c.unpause()
	c.mu.Lock()
	calls := c.calls.takeAll()
	c.mu.Unlock()
	for _, call := range calls {
		call.refund()
		if call.phase.Load() == answered {
			call.uncount()
		}
	}
}

// pause makes reads wait for unpause.
func (c *Conn) pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resume == nil && !c.closed.Load() {
		c.resume = make(chan struct{})
		c.paused.Store(true)
	}
}

func (c *Conn) unpause() {
	if !c.paused.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resume != nil {
		close(c.resume)
		c.resume = nil
		c.paused.Store(false)
	}
}
