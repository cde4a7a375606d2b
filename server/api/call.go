package api

import (
	"context"
	"sync"

	"github.com/gofrs/uuid/v5"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/connection"
)

// call is what the chain knows of one call.
type call struct {
	caller apikey.Caller
	// admitted is set once the caller has proved itself and may call.
	admitted bool
	// refused are the faults of the request that nothing takes away: fields that cannot
	// be read, and texts that hold a secret. faults are those that the proto refuses.
	refused, faults faults
	// idempotency is of a call that names an idempotency key; nil for any other.
	idempotency *idempotency
	// recheck checks the credential of a stream that is under way.
	recheck func(context.Context) (apikey.Caller, error)

	once sync.Once
	uuid string

	header [headerLength]byte // of the message, while it is read

	// wire is what the connection knows of the call: own, or that of the request over
	// REST that made it.
	wire *connection.Call
	own  connection.Call
	// answer is the answer of a call whose bytes are counted: see Codec.
	answer any
}

type callKey struct{}

// withCall returns a new call and its context.
func withCall(ctx context.Context) (context.Context, *call) {
	c := new(call)
	c.wire = connection.Begin(ctx, &c.own, c)
	return context.WithValue(ctx, callKey{}, c), c
}

// withIDs returns the context of a call of which nothing but its ids is needed: its
// connection does not know of it.
func withIDs(ctx context.Context) context.Context {
	c := new(call)
	c.wire = &c.own
	return context.WithValue(ctx, callKey{}, c)
}

// TimeoutStatus returns what the caller is told whose message does not arrive.
func (c *call) TimeoutStatus() *status.Status { return statusOf(errMessageTimeout, c) }

// finish returns what the library is given of a unary call that is over: its answer
// such that its bytes are counted, or its failure.
func (c *call) finish(resp any, err error) (any, error) {
	switch {
	case err != nil:
		c.wire.End()
		return nil, err
	case !c.wire.Wired():
		return resp, nil
	}
	c.wire.Answered()
	c.answer = resp
	return c, nil
}

// callOf returns the call of a context that has passed the chain.
func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// callerOf returns who makes the call.
func callerOf(ctx context.Context) *apikey.Caller { return &callOf(ctx).caller }

// id returns the UUID that request id and support id share. It is made when it is
// first asked for, since most calls neither fail nor change anything.
func (c *call) id() string {
	c.once.Do(func() { c.uuid = uuid.Must(uuid.NewV7()).String() })
	return c.uuid
}

// requestID names the call in the events that it makes and in its failures.
func (c *call) requestID() string { return "request_" + c.id() }

// supportID names a failure, for whoever reads the log.
func (c *call) supportID() string { return "support_" + c.id() }

// authorOf returns who makes the changes of a call, as events tell it.
func authorOf(ctx context.Context) *apikey.Caller {
	c := callOf(ctx)
	c.caller.RequestID = c.requestID()
	return &c.caller
}
