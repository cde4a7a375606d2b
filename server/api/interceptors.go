package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/connection"
)

// chain is what every call passes, whichever door it came through.
type chain struct {
	methods   methods
	authn     *authn.Authenticator
	validator *validator
	log       *slog.Logger
	// running ends when the server stops, with errStopping; streams end with it.
	running context.Context
}

// unary returns the interceptors of calls, outermost first.
func (c *chain) unary() []grpc.UnaryServerInterceptor {
	return []grpc.UnaryServerInterceptor{c.identify, c.report, c.recover, c.authenticate, c.validate}
}

// identify gives the call the place where the others keep what they learn of it.
func (c *chain) identify(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	return next(withCall(ctx), req)
}

// report turns an error into the status that the caller sees, and logs what the
// caller does not.
func (c *chain) report(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := next(ctx, req)
	if err == nil {
		// Asked first, since the arguments of a line that nobody reads are made too.
		if c.log.Enabled(ctx, slog.LevelDebug) {
			c.log.Debug("call", "method", info.FullMethod)
		}
		return resp, nil
	}
	return nil, c.failure(ctx, info.FullMethod, err)
}

// failure logs err under the call's support id and returns its status. A method
// that stands in no table keeps its own status: it is not ours.
func (c *chain) failure(ctx context.Context, method string, err error) error {
	if _, ours := c.methods[method]; !ours {
		return err
	}
	call := callOf(ctx)
	st := statusOf(err, call)
	c.log.Log(ctx, levelOf(st.Code(), err), "call failed",
		"method", method, "code", st.Code().String(), "support_id", call.supportID(),
		"actor", string(call.caller.Actor.Kind), "actor_id", call.caller.Actor.ID, "error", err)
	return st.Err()
}

// levelOf returns how loudly a failure is told. A client that goes away, and a
// stream that ends with the server, are how things go.
func levelOf(code codes.Code, err error) slog.Level {
	switch {
	case code == codes.Canceled || errors.Is(err, errStopping):
		return slog.LevelDebug
	case code == codes.Internal || code == codes.Unavailable:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// recover turns a panic into an unexpected error.
func (c *chain) recover(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
	defer func() { catch(recover(), &err) }()
	return next(ctx, req)
}

// catch makes the panic p, if there was one, the error of whoever panicked.
func catch(p any, err *error) {
	if p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// authenticate finds out who calls and whether the method's rule lets them.
func (c *chain) authenticate(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := c.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// admit keeps who makes the call, or says why it is refused.
func (c *chain) admit(ctx context.Context, method string) error {
	need, ours := c.methods[method]
	if !ours {
		if !open(method) {
			return status.Error(codes.Unimplemented, "unknown method")
		}
		return nil
	}
	caller, err := c.authn.Authenticate(ctx, need)
	tell(connection.OfCall(ctx), err)
	if err != nil {
		return err
	}
	callOf(ctx).caller = caller
	return nil
}

// tell tells a connection what a credential shown over it was worth, by the error of
// authentication. A good one may lack rights, or be over its limit.
func tell(c *connection.Conn, err error) {
	if err == nil {
		c.Prove()
		return
	}
	if known := apikey.AsError(err); known != nil {
		switch known.Kind {
		case apikey.KindUnauthenticated:
			c.Reject()
		case apikey.KindPermissionDenied, apikey.KindExhausted:
			c.Prove()
		}
	}
}

// open reports whether a method needs no credential: health and reflection.
func open(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.")
}

// validate judges the request by the rules of its proto.
func (c *chain) validate(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	found, err := c.validator.faults(req)
	if err == nil && !tellsFaults(req) {
		err = found.err()
	}
	if err != nil {
		return nil, err
	}
	callOf(ctx).faults = found
	return next(ctx, req)
}
