package server

import (
	"context"
	"fmt"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/apikeys-dev/apikeys/server/api"
)

// localConnection returns the connection inside the process to services, with the
// chain that guards them. REST is a client like any other, only without a wire
// between.
func localConnection(services *api.API) *inprocgrpc.Channel {
	local := new(inprocgrpc.Channel).
		WithServerUnaryInterceptor(chainUnary(services.Unary())).
		WithServerStreamInterceptor(chainStream(services.Stream())).
		WithCloner(handOver{})
	services.Register(local)
	return local
}

// handOver gives messages to the other side as they are: neither side changes one
// that it has sent, or received, so a copy of what is in it would serve nobody.
type handOver struct{}

var _ inprocgrpc.Cloner = handOver{}

// Clone returns in.
func (handOver) Clone(in any) (any, error) { return in, nil }

// Copy makes out hold what in holds, the same messages, lists and maps.
func (handOver) Copy(out, in any) error {
	to, ok := out.(proto.Message)
	from, also := in.(proto.Message)
	if !ok || !also || from.ProtoReflect().Descriptor() != to.ProtoReflect().Descriptor() {
		return fmt.Errorf("hand %T over as %T", in, out)
	}
	proto.Reset(to)
	m := to.ProtoReflect()
	from.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		m.Set(field, value)
		return true
	})
	return nil
}

// chainUnary composes interceptors, outermost first, for the connection inside
// the process, which takes one.
func chainUnary(interceptors []grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		for i := len(interceptors) - 1; i >= 0; i-- {
			next, intercept := handler, interceptors[i]
			handler = func(ctx context.Context, req any) (any, error) { return intercept(ctx, req, info, next) }
		}
		return handler(ctx, req)
	}
}

// chainStream is chainUnary for streams.
func chainStream(interceptors []grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		for i := len(interceptors) - 1; i >= 0; i-- {
			next, intercept := handler, interceptors[i]
			handler = func(srv any, stream grpc.ServerStream) error { return intercept(srv, stream, info, next) }
		}
		return handler(srv, stream)
	}
}
