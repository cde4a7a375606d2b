package api

import (
	"context"

	"google.golang.org/grpc"

	"github.com/apikeys-dev/apikeys/server/authn"
)

// stream returns the interceptors of streams, outermost first: the same parts as
// those of calls, in the same order.
func (c *chain) stream() []grpc.StreamServerInterceptor {
	return []grpc.StreamServerInterceptor{
		c.identifyStream, c.reportStream, c.recoverStream, c.authenticateStream, c.validateStream,
	}
}

// guardedStream is a stream with the context and the checks of the chain.
type guardedStream struct {
	grpc.ServerStream
	ctx   context.Context
	check func(req any) error // of what the client sends; nil for none
}

// Context returns the context of the stream, which ends with the server.
func (s *guardedStream) Context() context.Context { return s.ctx }

// RecvMsg receives a request and judges it.
func (s *guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil || s.check == nil {
		return err
	}
	return s.check(m)
}

func (c *chain) identifyStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, cancel := context.WithCancelCause(withCall(stream.Context()))
	defer cancel(nil)
	defer context.AfterFunc(c.running, func() { cancel(context.Cause(c.running)) })()
	return next(srv, &guardedStream{ServerStream: stream, ctx: ctx})
}

func (c *chain) reportStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	err := next(srv, stream)
	if err == nil {
		c.log.Debug("stream", "method", info.FullMethod)
		return nil
	}
	// What a stream was given up for is said, whatever noticed it first.
	if ctx := stream.Context(); ctx.Err() != nil && knownError(err) == canceledError {
		err = context.Cause(ctx)
	}
	return c.failure(stream.Context(), info.FullMethod, err)
}

func (c *chain) recoverStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() { catch(recover(), &err) }()
	return next(srv, stream)
}

func (c *chain) authenticateStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx := stream.Context()
	if err := c.admit(ctx, info.FullMethod); err != nil {
		return err
	}
	need := c.methods[info.FullMethod]
	callOf(ctx).recheck = func(ctx context.Context) (authn.Caller, error) { return c.authn.Recheck(ctx, need) }
	return next(srv, stream)
}

func (c *chain) validateStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return next(srv, &guardedStream{ServerStream: stream, ctx: stream.Context(), check: c.validator.check})
}
