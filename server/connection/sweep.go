package connection

import (
	"context"
	"time"
)

// maxDebt is how long an address pays for failures at most, in seconds.
const maxDebt = 30

// Run looks at all connections again and again, and ends those whose time is over,
// until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	tick := time.NewTicker(t.interval())
	defer tick.Stop()
	for sweeps := 0; ; sweeps++ {
		select {
		case <-ctx.Done():
			t.release()
			return nil
		case <-tick.C:
		}
		t.sweep(sweeps)
	}
}

// interval returns the time between two sweeps: short beside what is timed.
func (t *Table) interval() time.Duration {
	shortest := min(t.config.CredentialTimeout, t.config.MessageTimeout, t.config.AnswerTimeout)
	return min(max(shortest/8, 5*time.Millisecond), 250*time.Millisecond)
}

// Drain tells the table that the server stops: a connection that is not read from
// would be waited for, and is closed instead.
func (t *Table) Drain() {
	t.draining.Store(true)
	for _, c := range t.open(nil) {
		if c.paused.Load() {
			c.end("the server stops")
		}
	}
}

// release lets all connections be read, since nobody will look at them again.
func (t *Table) release() {
	for _, c := range t.open(nil) {
		c.unpause()
	}
}

// open appends the open connections to conns.
func (t *Table) open(conns []*Conn) []*Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		conns = append(conns, c)
	}
	return conns
}

// sweep looks at all connections once.
func (t *Table) sweep(number int) {
	now := int64(time.Since(t.start))
	passed := now - t.now.Swap(now)
	t.payDebts(passed)
	for _, c := range t.open(nil) {
		c.sweep(now, passed)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if number%64 == 0 {
		t.sweepAccountsLocked(now)
	}
	if t.refused+t.displaced > 0 && time.Duration(now)-t.told > time.Minute {
		t.config.Logger.Warn("connections are at their bound", "open", len(t.conns), "refused", t.refused, "displaced", t.displaced)
		t.refused, t.displaced, t.told = 0, 0, time.Duration(now)
	}
}

// payDebts takes off what the passed time pays of the failures of each address.
func (t *Table) payDebts(passed int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rate := int64(t.config.MaxFailures)
	for _, a := range t.addresses {
		debt := a.debt.Load()
		if debt <= 0 {
			t.forgetAddressLocked(a)
			continue
		}
		a.paid += rate * passed
		whole := a.paid / int64(time.Second)
		a.paid %= int64(time.Second)
		left := max(0, min(debt-whole, maxDebt*rate))
		a.debt.Add(left - debt)
	}
}

// sweep ends the connection if its time is over, and else decides whether it is
// to be read.
func (c *Conn) sweep(now, passed int64) {
	config := &c.table.config
	if !c.proved.Load() && c.openCalls.Load() == 0 && now-c.since.Load() > int64(config.CredentialTimeout) {
		c.end("it showed no good credential in time")
		return
	}
	blocked := c.blocked(now, passed)
	if blocked > int64(config.AnswerTimeout) {
		c.end("its client does not read")
		return
	}
	late, unread := c.overdue(now)
	if unread {
		c.end("its client left an answer unread")
		return
	}
	for _, call := range late {
		call.timeOut()
	}
	overdrawn := c.address != nil && c.address.debt.Load() > int64(config.MaxFailures)
	switch pause := blocked > passed || overdrawn && c.rejected.Load() && !c.proved.Load(); {
	case !pause:
		c.unpause()
	case c.table.draining.Load():
		c.end("the server stops")
	default:
		c.pause()
	}
}

// blocked returns for how long the write that is under way has been so.
func (c *Conn) blocked(now, passed int64) int64 {
	write := c.writes.Load()
	same := write == c.lastWrite
	c.lastWrite = write
	if write%2 == 0 || !same {
		c.blockedSince = 0
		return 0
	}
	if c.blockedSince == 0 {
		c.blockedSince = now - passed
	}
	return now - c.blockedSince
}

// overdue returns the calls whose message is late, and whether an answer has lain
// unread for too long.
func (c *Conn) overdue(now int64) (late []*Call, unread bool) {
	config := &c.table.config
	young := int64(min(config.MessageTimeout, config.AnswerTimeout))
	c.mu.Lock()
	defer c.mu.Unlock()
	for call := c.calls.first; call != nil && now-call.begun > young; call = call.next {
		switch call.phase.Load() {
		case receiving:
			if now-call.begun > int64(config.MessageTimeout) {
				late = append(late, call)
			}
		case answered:
			if now-call.ended.Load() > int64(config.AnswerTimeout) && call.buffers.Load() > 0 {
				return nil, true
			}
		}
	}
	return late, false
}

// timeOut ends a call whose message has not arrived.
func (c *Call) timeOut() {
	if c.stream == nil || !c.phase.CompareAndSwap(receiving, timedOut) {
		return
	}
	_ = c.stream.WriteStatus(c.waiter.TimeoutStatus()) // the client may have gone
}
