package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// maxBody is the size of the largest body that is read.
const maxBody = 1 << 20

// A conn is the in-process connection as the router's stubs see it. A request
// message comes with what the path gave, and leaves with the way to read the rest.
type conn struct {
	grpc.ClientConnInterface
}

// Invoke calls the gRPC face. Being the last step of the router it can return
// errors of any type: they arrive at Handler.failed as they are.
func (cc conn) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	c := callOf(ctx)
	m, ok := in.(proto.Message)
	if template, _ := runtime.HTTPPathPattern(ctx); !ok || template != c.route.template {
		return errors.New("call " + method + ": not the route of the path")
	}
	unread := &unreadRequest{message: m, fill: c.fill}
	defer unread.abandon()
	ctx = metadata.NewOutgoingContext(ctx, credentials(c.r.Header))
	err := cc.ClientConnInterface.Invoke(ctx, method, unread, out, opts...)
	unread.abandon()
	if err != nil && c.bodyLate {
		return errIncomplete // net/http takes a late body for a client that has gone
	}
	return err
}

// credentials are the headers that become metadata, all their values as they
// came.
func credentials(header http.Header) metadata.MD {
	md := make(metadata.MD, 2)
	for _, h := range [...]struct{ name, key string }{
		{"Authorization", "authorization"}, {"X-Api-Key", "x-api-key"}, {"X-Organization-Id", "x-organization-id"},
	} {
		if v := header[h.name]; len(v) > 0 {
			md[h.key] = v
		}
	}
	return md
}

// fill reads all that the request says into m, which holds what its path gave. It
// is called once the caller is known; the order of the checks is the contract's.
func (c *call) fill(m proto.Message) error {
	if !acceptsJSON(c.r.Header["Accept"]) {
		return errNotAcceptable
	}
	if c.route.body && c.hasBody() {
		if err := c.judgeBody(); err != nil {
			return err
		}
	}
	var problems []apikey.FieldProblem
	if err := collect(&problems, c.readQuery(m)); err != nil {
		return err
	}
	if c.route.body {
		if err := collect(&problems, c.readBody(m)); err != nil {
			return err
		}
	}
	problems = append(problems, c.ifMatch(m.ProtoReflect())...)
	if len(problems) > 0 {
		return apikey.InvalidFields(problems)
	}
	return nil
}

// collect adds the faulty fields that err names to problems, and returns err where
// it is of another kind, as the caller may know it.
func collect(problems *[]apikey.FieldProblem, err error) error {
	if syntax, ok := errors.AsType[*wirejson.SyntaxError](err); ok {
		text := syntax.Error()
		return apikey.Errorf(apikey.KindInvalid, "MALFORMED_JSON", "%s.", strings.ToUpper(text[:1])+text[1:])
	}
	if known := apikey.AsError(err); known != nil && len(known.Fields) > 0 {
		*problems = append(*problems, known.Fields...)
		return nil
	}
	return err
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
	return wirejson.ReadQuery(query, m, c.route.bound...)
}

// hasBody reports whether there is a body, as far as the headers tell.
func (c *call) hasBody() bool {
	return c.r.ContentLength != 0 && c.r.Body != nil && c.r.Body != http.NoBody
}

// judgeBody refuses a body for what its headers say of it: its coding, its type,
// its size.
func (c *call) judgeBody() error {
	if !isIdentity(c.r.Header["Content-Encoding"]) {
		return errCompressed
	}
	// One that claims to be nothing is taken for JSON.
	if types := c.r.Header["Content-Type"]; len(types) > 1 || len(types) == 1 && !isJSON(types[0], c.verb) {
		return errNotJSON
	}
	if c.r.ContentLength > maxBody {
		return errTooLarge
	}
	return nil
}

// reserveBody counts a body that is yet to arrive among what its caller has under
// way: as large as it may be where it does not say.
func (c *call) reserveBody() error {
	length := c.r.ContentLength
	if length < 0 {
		length = maxBody
	}
	if c.onConnection.Reserve(length) != nil {
		return errUnreadBodies
	}
	return nil
}

// readBody reads the body into m.
func (c *call) readBody(m proto.Message) error {
	c.in.Reset()
	if c.hasBody() {
		if err := c.reserveBody(); err != nil {
			return err
		}
		defer c.onConnection.Refund()
		c.bodyRead = true
		_, err := c.in.ReadFrom(http.MaxBytesReader(c.w, c.r.Body, maxBody))
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			return errTooLarge
		case err != nil:
			c.bodyLate = errors.Is(err, os.ErrDeadlineExceeded)
			return fmt.Errorf("%w: %w", errIncomplete, err)
		}
	}
	body := wirejson.Body{Bound: c.route.bound}
	if c.verb == http.MethodPut {
		body.Required, body.ReadOnly = []string{"label"}, wirejson.PassReadOnly
	}
	return wirejson.ReadRequest(c.in.Bytes(), m, body)
}
