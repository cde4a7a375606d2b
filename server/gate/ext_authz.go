package gate

import (
	"context"
	"slices"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/connection"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// ServiceName is the name of the service that Envoy asks.
const ServiceName = "envoy.service.auth.v3.Authorization"

// Service describes that service. Its server must use [NewCodec].
func (g *Gate) Service() *grpc.ServiceDesc {
	desc := authv3.Authorization_ServiceDesc
	desc.HandlerType = (*any)(nil)
	desc.Methods = slices.Clone(desc.Methods)
	for i := range desc.Methods {
		desc.Methods[i].Handler = g.check // There is one, Check.
	}
	return &desc
}

// check is a call of Check: its question, its answer, and what the connection knows of it.
// What it works with is given back once the answer is there, which may lie unread.
type check struct {
	*exchange
	encoded []byte
	call    connection.Call
}

// TimeoutStatus says that the question did not arrive.
func (c *check) TimeoutStatus() *status.Status {
	return status.New(codes.DeadlineExceeded, "The message did not arrive in time.")
}

var (
	errTooMany = status.Error(codes.ResourceExhausted, "Too many calls of gateways are under way.")
	errNoHTTP  = status.Error(codes.InvalidArgument, "The attributes hold no HTTP request.")
)

// check answers Check.
func (g *Gate) check(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // The signature is grpc's.
	c := new(check)
	connection.Begin(ctx, &c.call, c)
	if c.call.Admit(account) != nil {
		c.call.End()
		return nil, errTooMany
	}
	c.exchange = g.newExchange()
	err := decode(c)
	if !c.call.Received() {
		err = c.TimeoutStatus().Err()
	}
	if err == nil && !c.question.http {
		err = errNoHTTP
	}
	if err != nil {
		g.release(c.exchange)
		c.call.End()
		return nil, err
	}
	c.call.Conn().Prove()
	c.encoded = g.answerOf(ctx, c.exchange)
	g.release(c.exchange)
	c.exchange = nil
	c.call.Answered()
	return c, nil
}

// answerOf returns the encoded answer to the question of x.
func (g *Gate) answerOf(ctx context.Context, x *exchange) (encoded []byte) {
	q, asked, a := &x.question, &x.request, &x.answer
	defer func() {
		if p := recover(); p != nil {
			g.panicked(p, a)
			encoded = g.encodeDenied(a)
		}
	}()
	asked.way, asked.headers = verify.WayExtAuthz, q
	g.fromEnvoy(ctx, q, asked)
	need, err := g.routes.parse(q)
	if err != nil {
		a.misunderstood(err)
	} else {
		asked.need = need
		g.decide(ctx, asked, a)
	}
	if a.refusal != nil {
		g.tell(ctx, asked, a)
		return g.encodeDenied(a)
	}
	return encodeAllowed(a, q)
}

// fromEnvoy fills in what a question tells of its request. The address from which the
// request came to Envoy is the last hop, after all that X-Forwarded-For names.
func (g *Gate) fromEnvoy(ctx context.Context, q *question, asked *request) {
	asked.methods, asked.uris = q.method[:], q.path[:]
	client := authn.Client{Addr: authn.Peer(ctx).Unmap().WithZone(""), ForwardedFor: q.values(forwardedFor)}
	source := q.source
	if source == "" {
		source = "unknown" // Then what comes before it is not to be believed.
	}
	client.ForwardedFor = append(client.ForwardedFor, source)
	asked.gateway, asked.client = client.Addr, client.Forwarded(g.TrustedProxies)
}

var forwardedFor = newField("X-Forwarded-For")
