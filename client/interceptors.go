package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Interceptors let calls through to a gRPC server whose keys are good. Client and Scopes
// are required. It must not be changed once an interceptor was made.
//
// A call without a good key ends with UNAUTHENTICATED, PERMISSION_DENIED,
// RESOURCE_EXHAUSTED (with google.rpc.RetryInfo where there is a time) or, while the
// server of keys is out of reach, with UNAVAILABLE. google.rpc.ErrorInfo has the reason.
type Interceptors struct {
	// Client asks the server.
	Client *Client
	// Scopes are what each method needs, by its full name, such as
	// "/products.v1.Products/List". A method without an entry may be called by nobody;
	// one with an empty entry by every good key.
	Scopes map[string][]string
	// Public are the methods that need no key, such as
	// "/grpc.health.v1.Health/Check".
	Public []string
	// Headers are the metadata in which a call carries its key, as those of Middleware.
	Headers []string
	// TrustedProxies are the addresses of your own proxies, as those of Middleware.
	TrustedProxies []netip.Prefix
	// Cost is what a call costs of the key's limits, by its method. Nil means 1.
	Cost func(ctx context.Context, method string) int32
	// Logger hears why a key could not be verified. Nil means slog.Default().
	Logger *slog.Logger
}

// Unary returns the interceptor for unary calls. [FromContext] tells a handler of the
// key.
func (i Interceptors) Unary() grpc.UnaryServerInterceptor {
	i.prepare()
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := i.admit(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

// Stream returns the interceptor for streams. A stream is verified when it begins: where
// it must not outlive its key, the handler asks again with [Client.Verify] at a Cost of
// zero.
func (i Interceptors) Stream() grpc.StreamServerInterceptor {
	i.prepare()
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, err := i.admit(stream.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return handler(srv, &admittedStream{stream, ctx})
	}
}

// admittedStream is a stream whose context tells of its key.
type admittedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // it is the stream's
}

func (s *admittedStream) Context() context.Context { return s.ctx }

func (i *Interceptors) prepare() {
	if i.Client == nil {
		panic("client.Interceptors needs a Client")
	}
	if len(i.Headers) == 0 {
		i.Headers = defaultHeaders
	}
}

// errNoMethod is the answer for a method that has no entry in Scopes.
var errNoMethod = status.Error(codes.PermissionDenied, "No key may call this method.")

// admit returns the context of a call with what is known of its key.
func (i *Interceptors) admit(ctx context.Context, method string) (context.Context, error) {
	if slices.Contains(i.Public, method) {
		return ctx, nil
	}
	scopes, known := i.Scopes[method]
	if !known {
		return ctx, errNoMethod
	}
	key, err := keyOf(i.Headers, func(name string) []string { return metadata.ValueFromIncomingContext(ctx, name) })
	if err != nil {
		return ctx, withoutKey(err)
	}
	q := Request{Key: key, Scopes: scopes, Address: i.clientAddress(ctx)}
	if agents := metadata.ValueFromIncomingContext(ctx, "user-agent"); len(agents) > 0 {
		q.UserAgent = agents[0]
	}
	if i.Cost != nil {
		cost := i.Cost(ctx, method)
		q.Cost = &cost
	}
	v, err := i.Client.Verify(ctx, q)
	if err != nil {
		if _, failed := errors.AsType[*UnverifiedError](err); failed && ctx.Err() == nil {
			orDefault(i.Logger, slog.Default()).WarnContext(ctx, "A key could not be verified; the call is refused.", "error", err, "method", method)
		}
		return ctx, err
	}
	return NewContext(ctx, v), nil
}

// clientAddress returns where a call comes from; the zero Addr for unknown.
func (i *Interceptors) clientAddress(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	var from netip.Addr
	if tcp, ok := p.Addr.(*net.TCPAddr); ok {
		from = tcp.AddrPort().Addr()
	} else if parsed, err := netip.ParseAddrPort(p.Addr.String()); err == nil {
		from = parsed.Addr()
	}
	return apikey.ClientAddress(from, metadata.ValueFromIncomingContext(ctx, "x-forwarded-for"), i.TrustedProxies)
}
