package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/apikeys-dev/apikeys/server/wire"
)

// maxBody is the size of the largest body that is read.
const maxBody = 1 << 20

// A conn is the in-process connection as the router's stubs see it. A request
// message comes with what the path gave and leaves with what query, body and
// headers add.
type conn struct {
	grpc.ClientConnInterface
	h *Handler
}

// Invoke fills the request message in and calls the gRPC face. Being the last
// step of the router it can return errors of any type: they arrive at
// Handler.failed as they are.
func (cc conn) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	c := callOf(ctx)
	template, _ := runtime.HTTPPathPattern(ctx)
	c.route = cc.h.routes[place{c.verb, template}]
	m, ok := in.(proto.Message)
	if !ok || c.route == nil {
		return errors.New("call " + method + ": not a route")
	}
	md, anonymous := credentials(c.r.Header)
	if !acceptsJSON(c.r.Header["Accept"]) {
		return errNotAcceptable
	}
	// Who names no credential is refused by the gRPC face, whatever it asks.
	// So nothing of it is read, and it learns nothing about its body.
	if !anonymous {
		if err := c.fill(m.ProtoReflect()); err != nil {
			return err
		}
	}
	return cc.ClientConnInterface.Invoke(metadata.NewOutgoingContext(ctx, md), method, in, out, opts...)
}

// credentials are the headers that become metadata, all their values as they
// came. anonymous reports that none of them is a credential.
func credentials(header http.Header) (md metadata.MD, anonymous bool) {
	md = make(metadata.MD, 2)
	if v := header["Authorization"]; len(v) > 0 {
		md["authorization"] = v
	}
	if v := header["X-Api-Key"]; len(v) > 0 {
		md["x-api-key"] = v
	}
	anonymous = len(md) == 0
	if v := header["X-Organization-Id"]; len(v) > 0 {
		md["x-organization-id"] = v
	}
	return md, anonymous
}

// fill adds query, body and If-Match to the request message.
func (c *call) fill(m protoreflect.Message) error {
	if err := c.readQuery(m.Interface()); err != nil {
		return err
	}
	if !c.route.body {
		return c.ifMatch(m)
	}
	data, err := c.readBody()
	if err != nil {
		return err
	}
	body := wire.Body{Bound: c.route.bound}
	if c.verb == http.MethodPut {
		body.Required, body.ReadOnly = []string{"label"}, wire.PassReadOnly
	}
	if err := wire.ReadRequest(data, m.Interface(), body); err != nil {
		return err
	}
	return c.ifMatch(m)
}

// readQuery reads the parameters into m. A route with a body has none.
func (c *call) readQuery(m proto.Message) error {
	if c.r.URL.RawQuery == "" {
		return nil
	}
	query, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return errMalformedQuery
	}
	if c.route.body {
		m = &emptypb.Empty{}
	}
	return wire.ReadQuery(query, m, c.route.bound...)
}

// readBody reads the body. What it returns is valid until the call ends.
func (c *call) readBody() ([]byte, error) {
	if c.r.ContentLength == 0 || c.r.Body == nil || c.r.Body == http.NoBody {
		return nil, nil
	}
	if c.r.ContentLength > maxBody {
		c.w.Header().Set("Connection", "close") // rather than reading all of it
		return nil, errTooLarge
	}
	if c.r.ContentLength > 0 { // else it may be empty, and then has no type
		if err := c.judgeType(); err != nil {
			return nil, err
		}
	}
	c.in.Reset()
	_, err := c.in.ReadFrom(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errTooLarge
	case err != nil:
		return nil, incomplete(err)
	case c.in.Len() > 0 && c.r.ContentLength < 0:
		err = c.judgeType()
	}
	return c.in.Bytes(), err
}

// incomplete is the failure of a body that could not be read to its end.
func incomplete(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the body is shorter than its Content-Length")
	}
	return &failure{status: http.StatusBadRequest, reason: "INCOMPLETE_BODY", text: "The body did not arrive in full. Send the request again.", cause: err}
}

// judgeType refuses a body that does not claim to be JSON. One that claims
// nothing is taken for it.
func (c *call) judgeType() error {
	if encoding := c.r.Header["Content-Encoding"]; len(encoding) > 0 && (len(encoding) > 1 || encoding[0] != "identity") {
		return errCompressed
	}
	types := c.r.Header["Content-Type"]
	if len(types) == 0 || len(types) == 1 && isJSON(types[0], c.verb) {
		return nil
	}
	return errNotJSON
}
