package api

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/server/authn"
)

// chain is what every call passes, whichever door it came through.
type chain struct {
	methods   methods
	authn     *authn.Authenticator
	validator *validator
	log       *slog.Logger
}

// unary returns the interceptors of calls, outermost first.
func (c *chain) unary() []grpc.UnaryServerInterceptor {
	return []grpc.UnaryServerInterceptor{c.identify, c.report, c.recover, c.authenticate, c.validate}
}

// identify gives the call the place where the others keep what they learn of it.
func (c *chain) identify(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	return next(context.WithValue(ctx, callKey{}, new(call)), req)
}

// report turns an error into the status that the caller sees, and logs what the
// caller does not.
func (c *chain) report(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := next(ctx, req)
	if err == nil {
		c.log.Debug("call", "method", info.FullMethod)
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
	level := slog.LevelInfo
	if code := st.Code(); code == codes.Internal || code == codes.Unavailable {
		level = slog.LevelError
	}
	c.log.Log(ctx, level, "call failed",
		"method", method, "code", st.Code().String(), "support_id", call.supportID(),
		"actor", string(call.caller.Actor.Kind), "actor_id", call.caller.Actor.ID, "error", err)
	return st.Err()
}

// recover turns a panic into an unexpected error.
func (c *chain) recover(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return next(ctx, req)
}

// authenticate finds out who calls and whether the method's rule lets them.
func (c *chain) authenticate(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	need, ours := c.methods[info.FullMethod]
	if !ours {
		if !open(info.FullMethod) {
			return nil, status.Error(codes.Unimplemented, "unknown method")
		}
		return next(ctx, req)
	}
	caller, err := c.authn.Authenticate(ctx, need)
	if err != nil {
		return nil, err
	}
	callOf(ctx).caller = caller
	return next(ctx, req)
}

// open reports whether a method needs no credential: health and reflection.
func open(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.")
}

// validate judges the request by the rules of its proto.
func (c *chain) validate(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := c.validator.check(req); err != nil {
		return nil, err
	}
	return next(ctx, req)
}
