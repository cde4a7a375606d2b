package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// NewConnection returns a connection inside the process, to register the services
// with that a [Handler] calls. REST is a client like any other, only without a
// wire between.
func NewConnection() *inprocgrpc.Channel {
	return new(inprocgrpc.Channel).WithCloner(noCopy{})
}

// noCopy gives messages to the other side as they are: neither side changes one
// that it has sent, or received, so a copy of what is in it would serve nobody.
type noCopy struct{}

var _ inprocgrpc.Cloner = noCopy{}

// Clone returns in.
func (noCopy) Clone(in any) (any, error) { return in, nil }

// Copy makes out hold what in holds, the same messages, lists and maps. It is
// where the services receive a request, and so where an unread one is read. One of
// which some fields cannot be read is handed over without them, with the error that
// names them.
func (noCopy) Copy(out, in any) error {
	var faults error
	if unread, ok := in.(*unreadRequest); ok {
		m, err := unread.read()
		if known := apikey.AsError(err); known != nil && len(known.Fields) > 0 {
			faults = err
		} else if err != nil {
			return err
		}
		in = m
	}
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
	return faults
}

// unreadRequest is a request of which only method and path have been looked at. It
// travels over the connection in place of its message: the services read it when
// they receive it, which is after they know who calls.
type unreadRequest struct {
	message proto.Message // holds what the path gave
	fill    func(proto.Message) error

	mu   sync.Mutex
	over bool
}

// read returns the message with all that the request says, as far as it could be
// read.
func (u *unreadRequest) read() (proto.Message, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over {
		return nil, context.Canceled
	}
	err := u.fill(u.message)
	return u.message, err
}

// abandon returns when nobody reads the request, and nobody will. The services run
// in a goroutine of their own, which may go on when the call has been given up.
func (u *unreadRequest) abandon() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.over = true
}

// fillingConn is the in-process connection as the router's stubs see it. A request
// message comes with what the path gave, and leaves with the way to read the rest.
type fillingConn struct {
	grpc.ClientConnInterface
}

// Invoke calls the gRPC API. Being the last step of the router it can return
// errors of any type: they arrive at Handler.failed as they are.
func (cc fillingConn) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	e := exchangeOf(ctx)
	m, ok := in.(proto.Message)
	if template, _ := runtime.HTTPPathPattern(ctx); !ok || template != e.route.template {
		return errors.New("call " + method + ": not the route of the path")
	}
	unread := &unreadRequest{message: m, fill: e.fill}
	defer unread.abandon()
	md := credentials(e.r.Header)
	if e.route.oauth { // Its clients know no other way than Basic.
		md["authorization"] = apikey.BearersOf(md["authorization"])
	}
	// What names a call matters to the methods of HTTP that can be called twice by mistake.
	if keys := e.r.Header["Idempotency-Key"]; len(keys) > 0 && (e.method == http.MethodPost || e.method == http.MethodPatch) {
		md["idempotency-key"] = keys
	}
	ctx = metadata.NewOutgoingContext(ctx, md)
	err := cc.ClientConnInterface.Invoke(ctx, method, unread, out, opts...)
	unread.abandon()
	if err != nil && e.bodyLate {
		return errIncomplete // net/http takes a late body for a client that has gone
	}
	return err
}

// credentials are the headers that become metadata, all their values as they
// came.
func credentials(header http.Header) metadata.MD {
	md := make(metadata.MD, 3)
	for _, h := range [...]struct{ name, key string }{
		{"Authorization", "authorization"}, {"X-Api-Key", "x-api-key"}, {"X-Organization-Id", "x-organization-id"},
		{"User-Agent", "user-agent"},
	} {
		if v := header[h.name]; len(v) > 0 {
			md[h.key] = v
		}
	}
	return md
}
