package connection

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// The calls under way that need no credential: health checks and reflection.
const (
	maxOpenCallsPerConn = 4
	maxOpenCalls        = 1024
)

// OpenServices returns a registrar for services that need no credential. Their
// calls are few at a time, for a connection and in all, their messages arrive in
// time, and a connection that has one under way is not closed for want of a
// credential.
func (t *Table) OpenServices(s reflection.GRPCServer) reflection.GRPCServer {
	return openServices{s, t}
}

type openServices struct {
	reflection.GRPCServer
	table *Table
}

// RegisterService registers a service with every handler bounded.
func (o openServices) RegisterService(desc *grpc.ServiceDesc, impl any) {
	bounded := *desc
	bounded.Methods, bounded.Streams = nil, nil
	for _, m := range desc.Methods {
		handler := m.Handler
		m.Handler = func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			call, err := o.table.beginOpen(ctx)
			if err != nil {
				return nil, err
			}
			defer call.end()
			return handler(srv, ctx, func(m any) error { return call.receive(decode, m) }, intercept)
		}
		bounded.Methods = append(bounded.Methods, m)
	}
	for _, m := range desc.Streams {
		handler := m.Handler
		m.Handler = func(srv any, stream grpc.ServerStream) error {
			call, err := o.table.beginOpen(stream.Context())
			if err != nil {
				return err
			}
			defer call.end()
			return handler(srv, &openStream{stream, call})
		}
		bounded.Streams = append(bounded.Streams, m)
	}
	o.GRPCServer.RegisterService(&bounded, impl)
}

// openCall is a call that needs no credential.
type openCall struct {
	Call
	*Table
}

func (t *Table) beginOpen(ctx context.Context) (*openCall, error) {
	call := &openCall{Table: t}
	Begin(ctx, &call.Call, call)
	if !take(&t.openCalls, maxOpenCalls) {
		call.End()
		return nil, errOpenCalls
	}
	if call.conn != nil && !take(&call.conn.openCalls, maxOpenCallsPerConn) {
		t.openCalls.Add(-1)
		call.End()
		return nil, errOpenCalls
	}
	return call, nil
}

func (c *openCall) end() {
	c.Table.openCalls.Add(-1)
	if c.conn != nil {
		c.conn.openCalls.Add(-1)
		c.conn.Serve()
	}
	c.End()
}

// receive receives a message, and says so where the first one took too long.
func (c *openCall) receive(receive func(any) error, m any) error {
	err := receive(m)
	if !c.Received() {
		return c.TimeoutStatus().Err()
	}
	return err
}

// TimeoutStatus says that the message did not arrive.
func (c *openCall) TimeoutStatus() *status.Status {
	return status.New(codes.DeadlineExceeded, "The message did not arrive in time.")
}

var errOpenCalls = status.Error(codes.ResourceExhausted, "Too many calls without a credential are under way.")

// take counts one more, unless that would be more than most.
func take(n *atomic.Int64, most int64) bool {
	if n.Add(1) > most {
		n.Add(-1)
		return false
	}
	return true
}

type openStream struct {
	grpc.ServerStream
	call *openCall
}

// RecvMsg receives a message, the first one in time.
func (s *openStream) RecvMsg(m any) error { return s.call.receive(s.ServerStream.RecvMsg, m) }
