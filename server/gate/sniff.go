package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// http2Start begins every HTTP/2 connection (RFC 9113, 3.4). No method of HTTP/1.1 is
// PRI, so these four bytes tell.
const http2Start = "PRI "

// isHTTP2 reports whether a connection that begins with start speaks HTTP/2, and whether
// that can be told yet.
func isHTTP2(start []byte) (yes, known bool) {
	for i, c := range start {
		if i == len(http2Start) {
			break
		}
		if c != http2Start[i] {
			return false, true
		}
	}
	return len(start) >= len(http2Start), len(start) >= len(http2Start)
}

// Splitter tells the connections of a listener apart by their first bytes: those that
// speak HTTP/2 with prior knowledge, which is how gRPC is spoken, and all others, which
// are taken to speak HTTP/1.1.
type Splitter struct {
	// Listener is what is listened on. Required.
	Listener net.Listener
	// TLS is what is spoken first; nil for nothing. Its NextProtos decide what a client
	// that speaks both is asked to speak.
	TLS *tls.Config
	// Timeout bounds the handshake and the arrival of the first bytes. Required.
	Timeout time.Duration

	http1, http2 *half
	once         sync.Once
	done         chan struct{}
}

// Split returns the listeners of both kinds of connections. Closing one of them leaves
// the other be: Run, or closing the Listener, ends both.
func (s *Splitter) Split() (http1, http2 net.Listener) {
	s.done = make(chan struct{})
	s.http1 = &half{s.Listener.Addr(), make(chan net.Conn), make(chan struct{}), s.done, sync.Once{}}
	s.http2 = &half{s.Listener.Addr(), make(chan net.Conn), make(chan struct{}), s.done, sync.Once{}}
	return s.http1, s.http2
}

// Run accepts connections until the Listener is closed. How many there are at a time is
// bounded by the Listener, and so are the goroutines that look at them.
func (s *Splitter) Run() error {
	defer s.once.Do(func() { close(s.done) })
	for {
		conn, err := s.Listener.Accept()
		switch {
		case err == nil:
			go s.look(conn)
		case errors.Is(err, net.ErrClosed):
			return nil
		case isTemporary(err):
			time.Sleep(acceptPause) //nolint:forbidigo // Nothing tells when there are files again.
		default:
			return err
		}
	}
}

// acceptPause is how long no connections are accepted after one could not be, for want of
// files.
const acceptPause = 10 * time.Millisecond

func isTemporary(err error) bool {
	var temporary interface{ Temporary() bool }
	return errors.As(err, &temporary) && temporary.Temporary()
}

// look reads the first bytes of a connection and hands it on.
func (s *Splitter) look(raw net.Conn) {
	conn := &lookedAt{Conn: raw, under: raw}
	_ = raw.SetReadDeadline(time.Now().Add(s.Timeout)) // A closed connection says so when it is read.
	if s.TLS != nil {
		secured := tls.Server(raw, s.TLS)
		conn.Conn = secured
		ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
		defer cancel()
		if secured.HandshakeContext(ctx) != nil {
			_ = raw.Close() // The client is told nothing over it.
			return
		}
	}
	yes, err := conn.peek()
	if err != nil {
		_ = conn.Close() // Nobody waits for an answer.
		return
	}
	_ = raw.SetReadDeadline(time.Time{})
	to := s.http1
	if yes {
		to = s.http2
	}
	to.hand(conn)
}

// lookedAt is a connection whose first bytes have been read, and are read again.
type lookedAt struct {
	net.Conn          // what is spoken over
	under    net.Conn // what lies under it
	start    []byte
}

// peek reads until it is known what is spoken.
func (c *lookedAt) peek() (http2 bool, _ error) {
	var buf [len(http2Start)]byte
	for n := 0; ; {
		more, err := c.Conn.Read(buf[n:])
		n += more
		if yes, known := isHTTP2(buf[:n]); known {
			c.start = append(c.start, buf[:n]...)
			return yes, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// Read reads the first bytes again, and then the rest.
func (c *lookedAt) Read(p []byte) (int, error) {
	if len(c.start) > 0 {
		n := copy(p, c.start)
		c.start = c.start[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// NetConn returns the connection that lies under this one, without TLS.
func (c *lookedAt) NetConn() net.Conn { return c.under }

// half is one of the two listeners.
type half struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	done   <-chan struct{} // of the Splitter
	once   sync.Once
}

var _ net.Listener = (*half)(nil)

// hand waits until the connection is accepted.
func (h *half) hand(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close() // Nobody is there to serve it.
	case <-h.done:
		_ = c.Close()
	}
}

// Accept returns the next connection.
func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
	case <-h.done:
	}
	return nil, net.ErrClosed
}

// Close ends this listener.
func (h *half) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr returns the address of both.
func (h *half) Addr() net.Addr { return h.addr }
