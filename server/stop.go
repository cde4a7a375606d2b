package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// idleTimeoutAtStop is how long idle connections of REST may stay open for a request
// that their client may have sent already. Such a request is answered, with
// Connection: close, and so is not cut off.
const idleTimeoutAtStop = time.Second

// announceStop says that the server is not ready, and gives those who ask about
// that ShutdownDelay to send their calls elsewhere. Until it returns everything is
// served as before.
func (s *Server) announceStop() {
	s.readiness.stop()
	if s.config.ShutdownDelay > 0 {
		s.config.Logger.Info("stopping soon", "delay", s.config.ShutdownDelay.String())
		<-time.After(s.config.ShutdownDelay)
	}
}

// drain closes the listeners of callers: no new connections, and calls under way have
// ShutdownTimeout to finish. Streams would never finish, so they are ended first.
func (s *Server) drain() {
	limit, cancel := context.WithTimeout(context.Background(), s.config.ShutdownTimeout)
	defer cancel()
	s.services.EndStreams()
	s.listeners.conns.Drain()
	var all errgroup.Group
	all.Go(func() error { return s.gracefulClose.drain(limit, s.listeners.rest, s.http) })
	all.Go(func() error { stopGRPC(limit, s.grpc); return nil })
	all.Go(func() error { return s.drainGate(limit) })
	if err := all.Wait(); err != nil {
		s.config.Logger.Warn("calls were cut off", "error", err)
	}
}

// stopGRPC sends GOAWAY, which clients obey without losing a call, and waits for
// the calls under way.
func stopGRPC(limit context.Context, server *grpc.Server) {
	done := make(chan struct{})
	go func() { server.GracefulStop(); close(done) }()
	select {
	case <-done:
	case <-limit.Done():
		server.Stop()
		<-done
	}
}

// drain closes the connections of server in order. http.Server.Shutdown closes
// idle ones at once, and a client that is just sending its next request sees a
// reset. So the clients are told first, each by the answer to its next request; over
// HTTP/2 that sends GOAWAY.
func (g *gracefulClose) drain(limit context.Context, listener net.Listener, server *http.Server) error {
	// Before the clients are told: who is told to connect again must not reach a
	// listener that is about to close.
	if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	g.begin(limit)
	if server.Shutdown(limit) != nil {
		return server.Close()
	}
	return nil
}

// gracefulClose tells the clients of a server that speaks HTTP to close their
// connections.
type gracefulClose struct {
	begun atomic.Bool
	open  atomic.Int64
	// closed has an element when a connection has been closed since the last look.
	closed chan struct{}
}

func newGracefulClose() *gracefulClose { return &gracefulClose{closed: make(chan struct{}, 1)} }

// count is the ConnState of an http.Server.
func (g *gracefulClose) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		g.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		g.open.Add(-1)
		select {
		case g.closed <- struct{}{}:
		default:
		}
	case http.StateActive, http.StateIdle:
	}
}

// handler returns next with Connection: close in the answers, once that has begun.
func (g *gracefulClose) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.begun.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// begin tells the clients, and returns when all connections are closed or have had
// their time.
func (g *gracefulClose) begin(limit context.Context) {
	g.begun.Store(true)
	limit, cancel := context.WithTimeout(limit, idleTimeoutAtStop)
	defer cancel()
	for g.open.Load() > 0 {
		select {
		case <-g.closed:
		case <-limit.Done():
			return
		}
	}
}
