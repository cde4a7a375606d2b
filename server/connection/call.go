package connection

import (
	"context"
	"sync/atomic"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// The phases of a call.
const (
	receiving int32 = iota // its message is not here yet
	running
	answered // its handler is over
	timedOut // its message did not arrive in time
)

// Waiter is whoever waits for the message of a call.
type Waiter interface {
	// TimeoutStatus returns what the client is told when its message does not
	// arrive in time. Another goroutine than the call's asks for it.
	TimeoutStatus() *status.Status
}

// statusWriter is a stream of grpc's server. Writing the status ends the stream,
// and with it a read that waits for its message. The interface that grpc shows
// lacks the method.
type statusWriter interface {
	WriteStatus(*status.Status) error
}

// Call is one call on a connection: from before its message is read until the
// transport has released its answer. Its zero value belongs to no connection, and
// nothing is bounded for it. It must not be copied after Begin.
type Call struct {
	conn *Conn
	// account is set by the services, which may still run when a request over REST
	// has been answered for them.
	account atomic.Pointer[account]
	stream  statusWriter
	waiter  Waiter
	begun   int64
	phase   atomic.Int32
	ended   atomic.Int64 // when its handler was over
	buffers atomic.Int32 // of its answer, not yet released
	bytes   atomic.Int64 // of its answer, charged to the account
	counted atomic.Bool  // whether it is one of the calls of the account
	over    atomic.Bool  // whether it is not to be counted any more
	// isRequest says that the call is a request over REST.
	isRequest bool

	// The places in the list of the connection. Guarded by Conn.mu.
	prev, next *Call
	listed     bool
}

type callKey struct{}

// NewCall returns the context of a request over REST whose call is c. The
// services find c there, since a request and its call inside the process are one.
func NewCall(ctx context.Context, c *Call) context.Context {
	c.conn, c.isRequest = Of(ctx), true
	c.phase.Store(running) // net/http has deadlines of its own
	return context.WithValue(ctx, callKey{}, c)
}

// Begin begins the call of a service's context and returns it: own, or for a call
// inside the process the one that came with its request. w is asked when the
// message does not arrive in time.
func Begin(ctx context.Context, own *Call, w Waiter) *Call {
	conn := remote(ctx)
	if conn == nil {
		if local := inprocgrpc.ClientContext(ctx); local != nil {
			if c, ok := local.Value(callKey{}).(*Call); ok {
				return c
			}
		}
		return own
	}
	own.conn = conn
	own.stream, _ = grpc.ServerTransportStreamFromContext(ctx).(statusWriter)
	own.waiter = w
	own.begun = conn.table.now.Load()
	conn.mu.Lock()
	if !conn.closed.Load() {
		conn.calls.add(own)
	}
	conn.mu.Unlock()
	return own
}

// IsRequest reports whether the call is a request over REST.
func (c *Call) IsRequest() bool { return c.isRequest }

// Conn returns the connection of the call, which may be nil.
func (c *Call) Conn() *Conn { return c.conn }

// Received ends the time that the message of the call has to arrive. It reports
// false where the message took too long and the client has been told so.
func (c *Call) Received() bool {
	return c.phase.CompareAndSwap(receiving, running) || c.phase.Load() != timedOut
}

// End ends a call whose handler is over. What is still to be sent of its answer
// has the time that answers have.
func (c *Call) End() {
	if c.conn == nil {
		return
	}
	c.ended.Store(c.conn.table.now.Load())
	c.phase.Store(answered)
	if c.isRequest {
		return // [Call.Close] ends it
	}
	if c.buffers.Load() == 0 {
		c.unlist()
		c.uncount()
	}
	c.uncountIfClosed()
}

// Close ends the call of a request over REST, whose answer is written.
func (c *Call) Close() {
	if c.conn != nil {
		c.refund()
		c.uncount()
	}
}

// uncountIfClosed ends a call, whose handler is over, for its caller if its connection
// is closed: the transport may never release the answer.
func (c *Call) uncountIfClosed() {
	if c.conn.closed.Load() {
		c.uncount()
	}
}

// Answered ends a unary call whose handler is over and whose answer is yet to be
// encoded.
func (c *Call) Answered() {
	if c.conn != nil {
		c.ended.Store(c.conn.table.now.Load())
		c.phase.Store(answered)
		if !c.isRequest {
			c.uncountIfClosed()
		}
	}
}

// Wired reports whether the call's answer is encoded for a connection, and is to be
// passed through [Call.Answer] or [Call.Follow]. A nil call is not.
func (c *Call) Wired() bool { return c != nil && c.stream != nil }

// Answer returns data, which is the encoded answer of a unary call, counted from
// here until the transport releases it.
func (c *Call) Answer(data mem.BufferSlice) mem.BufferSlice {
	if c.conn == nil {
		return data
	}
	c.Hold(data.Len())
	return append(data, c.buffer())
}

// Follow returns data, which is a message of a stream's answer, and notices when
// the transport releases it. Its bytes are not counted: grpc bounds what waits on
// a stream, and events are shared by all streams.
func (c *Call) Follow(data mem.BufferSlice) mem.BufferSlice {
	if c.conn == nil {
		return data
	}
	return append(data[:len(data):len(data)], c.buffer())
}

// buffer returns a buffer without data that tells of its release.
func (c *Call) buffer() mem.Buffer {
	c.buffers.Add(1)
	return mem.NewBuffer(&nothing, (*release)(c))
}

// Hold counts the bytes of the answer, in place of what was counted for it before.
func (c *Call) Hold(bytes int) { c.Charge(bytes - int(c.bytes.Load())) }

// Charge counts the bytes of an answer under way.
func (c *Call) Charge(bytes int) {
	if c.conn == nil {
		return
	}
	a := c.account.Load()
	if a == nil {
		return
	}
	n := int64(bytes)
	c.bytes.Add(n)
	a.bytes.Add(n)
	c.conn.table.answerBytes.Add(n)
	if c.conn.closed.Load() {
		c.refund() // the connection has done its accounts already
	}
}

// Refund takes the bytes of the answer out of the accounts.
func (c *Call) Refund() { c.refund() }

func (c *Call) refund() {
	if n := c.bytes.Swap(0); n != 0 {
		c.account.Load().bytes.Add(-n)
		c.conn.table.answerBytes.Add(-n)
	}
}

func (c *Call) unlist() {
	c.conn.mu.Lock()
	c.conn.calls.remove(c)
	c.conn.mu.Unlock()
}

// nothing is the data of a buffer that is there for its release alone. Its
// capacity is what makes grpc count references to it.
var nothing = make([]byte, 0, 4<<10)

// release is the pool that a call's buffers are given back to.
type release Call

var _ mem.BufferPool = (*release)(nil)

// Get returns memory that was never given back.
func (*release) Get(length int) *[]byte {
	data := make([]byte, length)
	return &data
}

// Put is called when the transport has released a message.
func (r *release) Put(*[]byte) {
	c := (*Call)(r)
	if c.buffers.Add(-1) > 0 {
		return
	}
	c.refund()
	if c.phase.Load() == answered {
		c.unlist()
		c.uncount()
	}
}

// callList is the calls of a connection in the order in which they began.
type callList struct{ first, last *Call }

func (l *callList) add(c *Call) {
	c.listed = true
	if c.prev = l.last; c.prev != nil {
		c.prev.next = c
	} else {
		l.first = c
	}
	l.last = c
}

func (l *callList) remove(c *Call) {
	if !c.listed {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.last = c.prev
	}
	c.prev, c.next, c.listed = nil, nil, false
}

func (l *callList) takeAll() (calls []*Call) {
	for l.first != nil {
		calls = append(calls, l.first)
		l.remove(l.first)
	}
	return calls
}
