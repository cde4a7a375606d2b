package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/tap"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/connection"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// chain is what every call passes, over gRPC and over REST:
//
//	identify      the call gets its ids, and memory for what is learned of it
//	report        an error of what follows becomes a status and a line of the log
//	recover       a panic becomes an unexpected error
//	authenticate  who calls, and may they? Up to here no message has been read
//	idempotency   does the call name an idempotency key?
//	receive       the message is read and decoded
//	validate      the message is checked against the rules of its proto
//	repeat        a call that was answered before gets that answer, and is made no more
//
// gRPC's own interceptors come too late for it: the library reads the message of a
// unary call before them. So the handlers of the services are wrapped.
type chain struct {
	methods methods
	store   *store.Store
	// idempotent are the methods that an idempotency key protects.
	idempotent map[string]idempotentMethod
	authn      *authn.Authenticator
	validator  *validator
	log        *slog.Logger
	refusals   *authn.Refusals
	rootUses   *rootUses
	// running ends when the server stops, with errStopping; streams end with it.
	running context.Context
	// observations is told of each call; nil for nobody.
	observations *Observations
	unknownCalls *MethodObservations // those of methods that there are not
}

// guard returns a service with its handlers behind the chain. A service that is not
// ours, health and reflection, needs no credential, and must not panic either.
func (c *chain) guard(desc *grpc.ServiceDesc) *grpc.ServiceDesc {
	guarded := *desc
	guarded.Methods, guarded.Streams = slices.Clone(desc.Methods), slices.Clone(desc.Streams)
	for i := range guarded.Methods {
		m := &guarded.Methods[i]
		if required, ours := c.methods[fullMethod(desc, m.MethodName)]; ours {
			m.Handler = c.unary(fullMethod(desc, m.MethodName), required, m.Handler)
		} else {
			m.Handler = c.otherUnary(fullMethod(desc, m.MethodName), m.Handler)
		}
	}
	for i := range guarded.Streams {
		s := &guarded.Streams[i]
		if required, ours := c.methods[fullMethod(desc, s.StreamName)]; ours {
			s.Handler = c.stream(fullMethod(desc, s.StreamName), required, s.Handler)
		} else {
			s.Handler = c.otherStream(fullMethod(desc, s.StreamName), s)
		}
	}
	return &guarded
}

func fullMethod(desc *grpc.ServiceDesc, method string) string {
	return "/" + desc.ServiceName + "/" + method
}

// unary returns a method's handler behind the chain. What is between here and the
// handler in the code that protoc generates is nothing but the call of decode, so
// that is where the message is read.
func (c *chain) unary(method string, required apikey.Requirement, serve grpc.MethodHandler) grpc.MethodHandler {
	seen := c.observations.method(method, false)
	return func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (resp any, err error) { //nolint:revive // The signature is grpc's.
		ctx, call := withCall(ctx)
		began := seen.begin()
		defer func() { resp, err = call.finish(resp, err) }()
		defer func() {
			err = c.report(ctx, method, err)
			seen.end(began, call.wire.IsRequest(), err)
		}()
		defer func() { catch(recover(), &err) }()
		if err := c.authenticate(ctx, call, required); err != nil {
			return nil, err
		}
		ctx = c.withIdempotency(ctx, call, method)
		resp, err = serve(srv, ctx, func(m any) error {
			if err := arrived(call, receive(ctx, call, m, decode)); err != nil {
				return err
			}
			if err := c.validate(call, m); err != nil {
				return err
			}
			return c.beginIdempotent(ctx, call, m)
		}, nil)
		resp, err = c.endIdempotent(ctx, call, resp, err)
		if err == nil && !call.wire.Fits(encodedSize(resp)) {
			return nil, apikey.ErrAnswersUnread
		}
		return resp, err
	}
}

// stream is unary for streams.
func (c *chain) stream(method string, required apikey.Requirement, serve grpc.StreamHandler) grpc.StreamHandler {
	seen := c.observations.method(method, true)
	return func(srv any, stream grpc.ServerStream) (err error) {
		ctx, call := withCall(stream.Context())
		defer call.wire.End()
		ctx, cancel := c.untilStop(ctx)
		defer cancel()
		defer func() {
			err = c.report(ctx, method, err)
			seen.end(0, call.wire.IsRequest(), err)
		}()
		defer func() { catch(recover(), &err) }()
		if err := c.authenticate(ctx, call, required); err != nil {
			return err
		}
		ended := c.observations.beginStream(ctx)
		defer func() { ended(err) }()
		call.recheck = func(ctx context.Context) (apikey.Caller, error) { return c.authn.Recheck(ctx, required) }
		return serve(srv, &guardedStream{ServerStream: stream, ctx: ctx, wire: call.wire, receive: func(m any) error {
			if err := arrived(call, receive(ctx, call, m, stream.RecvMsg)); err != nil {
				return err
			}
			return c.validate(call, m)
		}})
	}
}

// authenticate finds out who calls and whether the method's rule lets them.
func (c *chain) authenticate(ctx context.Context, call *call, required apikey.Requirement) error {
	caller, err := c.authn.Authenticate(ctx, required)
	tell(call.wire.Conn(), err)
	if err != nil {
		c.observations.refuse(err)
		return err
	}
	call.caller, call.admitted = caller, true
	if caller.Root {
		c.rootUses.note(ctx, call)
	}
	switch err := call.wire.Admit(accountOf(&caller)); {
	case err == nil:
		return nil
	case errors.Is(err, connection.ErrCalls):
		return errTooManyCalls
	default:
		return apikey.ErrAnswersUnread
	}
}

// accountOf returns whom the answers of a caller are charged to: an operator, or the
// organization of a key or of a person. Of these there are as many as an organization
// makes, or its issuer has users, and each with a share of its own could have it all.
func accountOf(caller *apikey.Caller) connection.Account {
	kind := caller.Actor.Kind
	if caller.Organization != "" && (kind == apikey.ActorKey || kind == apikey.ActorPerson) {
		return connection.Account{Kind: string(kind), ID: caller.Organization}
	}
	return connection.Account{Kind: string(kind), ID: caller.Actor.ID}
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
		default: // It says nothing of the credential.
		}
	}
}

// validate checks the request against the rules of its proto. Some methods tell what is
// wrong themselves, with what they find.
func (c *chain) validate(call *call, m any) error {
	pasted, refused, err := c.validator.faults(m)
	if err != nil {
		return err
	}
	call.refused, call.faults = append(call.refused, pasted...), refused
	if len(call.refused)+len(refused) > 0 && !tellsFaults(m) {
		return call.refused.with(refused.err())
	}
	return nil
}

// guardedStream is a stream as the services see it.
type guardedStream struct {
	grpc.ServerStream
	ctx     context.Context
	wire    *connection.Call
	receive func(m any) error
	sending any // while it is sent: see Codec
}

// Context returns the context of the stream, which ends with the server.
func (s *guardedStream) Context() context.Context { return s.ctx }

// SendMsg sends a message, whose release by the transport is noticed.
func (s *guardedStream) SendMsg(m any) error {
	if !s.wire.Wired() {
		return s.ServerStream.SendMsg(m)
	}
	s.sending = m
	return s.ServerStream.SendMsg(s)
}

// RecvMsg receives the request and checks it.
func (s *guardedStream) RecvMsg(m any) error { return s.receive(m) }

// unknown answers a call of a method that there is not.
func (c *chain) unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	err := c.failure(withIDs(stream.Context()), c.validator.secrets.Excerpt(method), errUnknownMethod)
	c.unknownCalls.end(0, false, err)
	return err
}

// RefuseNoMethod refuses a path that is not /service/method, which the library would
// refuse in its own words and repeat whole. It is for grpc.InTapHandle.
func (a *API) RefuseNoMethod(ctx context.Context, info *tap.Info) (context.Context, error) {
	if name := info.FullMethodName; !strings.HasPrefix(name, "/") || strings.LastIndexByte(name, '/') < 1 {
		err := a.chain.failure(withIDs(ctx), a.chain.validator.secrets.Excerpt(name), errUnknownMethod)
		a.chain.unknownCalls.end(0, false, err)
		return nil, err
	}
	return ctx, nil
}

// otherUnary returns the handler of a service that is not ours. Its failures are told
// as ours are.
func (c *chain) otherUnary(method string, serve grpc.MethodHandler) grpc.MethodHandler {
	seen := c.observations.method(method, false)
	return func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (_ any, err error) { //nolint:revive // The signature is grpc's.
		ctx = withIDs(ctx)
		began := seen.begin()
		defer func() {
			err = c.report(ctx, method, otherFailure(err))
			seen.end(began, false, err)
		}()
		defer func() { catch(recover(), &err) }()
		return serve(srv, ctx, func(m any) error { return receive(ctx, callOf(ctx), m, decode) }, intercept)
	}
}

// otherStream is otherUnary for streams, which end with the server too. The messages
// of a stream of requests are left to the library.
func (c *chain) otherStream(method string, desc *grpc.StreamDesc) grpc.StreamHandler {
	serve, many := desc.Handler, desc.ClientStreams
	seen := c.observations.method(method, true)
	return func(srv any, stream grpc.ServerStream) (err error) {
		ctx, cancel := c.untilStop(withIDs(stream.Context()))
		defer cancel()
		defer func() {
			err = c.report(ctx, method, otherFailure(err))
			seen.end(0, false, err)
		}()
		defer func() { catch(recover(), &err) }()
		guarded := &guardedStream{ServerStream: stream, ctx: ctx, receive: stream.RecvMsg}
		if !many {
			guarded.receive = func(m any) error { return receive(ctx, callOf(ctx), m, stream.RecvMsg) }
		}
		return serve(srv, guarded)
	}
}

// untilStop returns a context that ends with the server too.
func (c *chain) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.running, func() { cancel(context.Cause(c.running)) })
	return ctx, func() { stop(); cancel(nil) }
}

// errPanic is in the chain of the error that a panic becomes.
var errPanic = errors.New("panic")

// catch makes the panic p, if there was one, the error of whoever panicked.
func catch(p any, err *error) {
	if p != nil {
		*err = fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
	}
}

// report turns an error into the status that the caller sees, and logs what the
// caller does not.
func (c *chain) report(ctx context.Context, method string, err error) error {
	if err != nil {
		return c.failure(ctx, method, err)
	}
	// Asked first, since the arguments of a line that nobody reads are made too.
	if c.log.Enabled(ctx, slog.LevelDebug) {
		c.log.Debug("call", "method", method)
	}
	return nil
}

// failure logs err under the call's support id and returns its status.
func (c *chain) failure(ctx context.Context, method string, err error) error {
	call := callOf(ctx)
	known := c.redacted(knownError(ctx, err))
	st := statusOf(known, call)
	const message = "call failed"
	attrs := []slog.Attr{
		slog.String("method", method), slog.String("code", st.Code().String()), slog.String("reason", string(known.Reason)),
		slog.String("support_id", call.supportID()), slog.Any("error", err),
	}
	level := levelOf(st.Code(), known)
	switch {
	case call.admitted:
		if known.Reason == apikey.ReasonPreviousSecret {
			c.authn.RefusePrevious(ctx, &call.caller)
		}
		attrs = append(attrs, slog.String("actor", string(call.caller.Actor.Kind)), slog.String("actor_id", call.caller.Actor.ID))
		c.log.LogAttrs(ctx, level, message, attrs...)
	case level == slog.LevelInfo:
		c.refusals.Log(ctx, c.authn.Address(ctx), string(known.Reason), message, attrs...)
	default:
		c.log.LogAttrs(ctx, level, message, append(attrs, slog.String("address", c.authn.Address(ctx).String()))...)
	}
	return st.Err()
}

// redacted returns known with the secrets masked that are in what it repeats of the
// request: the names of fields, such as the keys of a map, and what is wrong with them.
func (c *chain) redacted(known *apikey.Error) *apikey.Error {
	if len(known.Fields) == 0 {
		return known
	}
	clean := *known
	clean.Message, clean.Fields = c.validator.secrets.Redact(known.Message), slices.Clone(known.Fields)
	for i, f := range clean.Fields {
		clean.Fields[i] = apikey.FieldProblem{Field: c.validator.secrets.Redact(f.Field), Problem: c.validator.secrets.Redact(f.Problem)}
	}
	return &clean
}

// levelOf returns how loudly a failure is told. A client that goes away, and a
// stream that ends with the server, are how things go; errors are for what an
// operator can mend.
func levelOf(code codes.Code, known *apikey.Error) slog.Level {
	switch {
	case code == codes.Canceled || known == errStopping || known.Reason == apikey.ReasonIncomplete:
		return slog.LevelDebug
	case known == authn.ErrIssuerUnavailable: // Anybody can bring it on; that the issuer is away is told already.
		return slog.LevelInfo
	case known.Reason == webhook.ReasonFanOutBehind: // What one organization brings on itself.
		return slog.LevelInfo
	case code == codes.Internal || code == codes.Unavailable:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}
