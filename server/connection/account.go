package connection

import (
	"errors"
	"sync/atomic"
	"time"
)

// Why a call is refused.
var (
	// ErrUnread says that too many bytes of answers are under way.
	ErrUnread = errors.New("too many bytes of answers are under way")
	// ErrCalls says that too many calls are under way.
	ErrCalls = errors.New("too many calls are under way")
)

// What a caller may have under way although all callers together are at their bound:
// callers that read their answers are not refused for those that do not.
const (
	smallShare = 64 << 10 // bytes
	smallCalls = 64
)

// accountTTL is how long an account without bytes is kept.
const accountTTL = time.Minute

// Account names a caller.
type Account struct{ Kind, ID string }

// account is what a caller has under way.
type account struct {
	caller Account
	bytes  atomic.Int64
	calls  atomic.Int64
	// used is when it was asked for last, and dead is set once it is given up.
	used atomic.Int64
	dead atomic.Bool
}

// Admit names the caller of the call, to whom the call and its answer are charged. It
// returns [ErrUnread] where the caller, or all callers together, leave too much unread,
// and [ErrCalls] where they have too many calls under way.
func (c *Call) Admit(caller Account) error {
	if c.conn == nil {
		return nil
	}
	t := c.conn.table
	a := c.conn.account.Load()
	if a == nil || a.caller != caller || a.dead.Load() {
		a = t.accountOf(caller)
		c.conn.account.Store(a)
	}
	if now := t.now.Load(); a.used.Load() != now {
		a.used.Store(now)
	}
	c.account.Store(a)
	bytes := a.bytes.Load()
	if bytes >= t.config.MaxCallerAnswerBytes || bytes >= smallShare && t.answerBytes.Load() >= t.config.MaxAnswerBytes {
		return ErrUnread
	}
	return c.count(a)
}

// count adds the call to those under way of its caller, until [Call.uncount].
func (c *Call) count(a *account) error {
	t := c.conn.table
	calls, all := a.calls.Add(1), t.calls.Add(1)
	if calls > t.config.MaxCallerCalls || calls > smallCalls && all > t.config.MaxCalls {
		a.calls.Add(-1)
		t.calls.Add(-1)
		return ErrCalls
	}
	c.counted.Store(true)
	if c.over.Load() {
		c.uncount() // a request over REST was answered meanwhile
	}
	return nil
}

// uncount ends the call for its caller. What follows does nothing.
func (c *Call) uncount() {
	c.over.Store(true)
	if c.counted.CompareAndSwap(true, false) {
		c.account.Load().calls.Add(-1)
		c.conn.table.calls.Add(-1)
	}
}

// largeMessage is the size from which a message counts that is yet to arrive. A
// smaller one fits into what a stream may hold unread.
const largeMessage = 64 << 10

// Reserve counts the bytes of a message that is yet to arrive, until [Call.Refund],
// or returns [ErrUnread] where the caller, or all callers together, would have more
// under way than half of the bound: the other half is left to small calls.
func (c *Call) Reserve(bytes int64) error {
	if c.conn == nil || bytes <= largeMessage {
		return nil
	}
	a := c.account.Load()
	if a == nil {
		return nil
	}
	t := c.conn.table
	half := func(bound int64) int64 { return max(bound/2, bytes) } // one message always
	if a.bytes.Load()+bytes > half(t.config.MaxCallerAnswerBytes) || t.answerBytes.Load()+bytes > half(t.config.MaxAnswerBytes) {
		return ErrUnread
	}
	c.Charge(int(bytes))
	return nil
}

// Fits counts the bytes of an answer that is there and yet to be encoded, or reports
// false where too much is under way by now: thousands of calls can be admitted
// before the first of them has its answer. A small answer always fits, since it may
// be the only one to tell what a change has made.
func (c *Call) Fits(bytes int) bool {
	if c.conn == nil || bytes <= smallShare {
		return true
	}
	a := c.account.Load()
	if a == nil {
		return true
	}
	t, n := c.conn.table, int64(bytes)
	c.Charge(bytes)
	others, all := a.bytes.Load()-n, t.answerBytes.Load()-n
	if others >= t.config.MaxCallerAnswerBytes || others >= smallShare && all >= t.config.MaxAnswerBytes {
		c.refund()
		return false
	}
	return true
}

func (t *Table) accountOf(caller Account) *account {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.accounts[caller]
	if a == nil {
		a = &account{caller: caller}
		a.used.Store(t.now.Load())
		t.accounts[caller] = a
	}
	return a
}

// sweepAccountsLocked gives up the accounts that nobody uses.
func (t *Table) sweepAccountsLocked(now int64) {
	for caller, a := range t.accounts {
		if a.bytes.Load() == 0 && a.calls.Load() == 0 && now-a.used.Load() > int64(accountTTL) {
			a.dead.Store(true)
			delete(t.accounts, caller)
		}
	}
}
