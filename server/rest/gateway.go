package rest

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"
)

// A passthroughMarshaler is what the router reads and writes messages with: it reads nothing,
// since the router has nothing to read, and writes envelopes that are there
// already.
type passthroughMarshaler struct{}

var _ runtime.Marshaler = passthroughMarshaler{}

func (passthroughMarshaler) Marshal(v any) ([]byte, error) { return v.(*call).out, nil }
func (passthroughMarshaler) Unmarshal([]byte, any) error   { return nil }
func (passthroughMarshaler) NewDecoder(io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(any) error { return nil })
}
func (passthroughMarshaler) NewEncoder(io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(any) error { return nil })
}
func (passthroughMarshaler) ContentType(any) string { return "application/json" }

// rewrite turns an answer into its envelope.
func (h *Handler) rewrite(ctx context.Context, m proto.Message) (any, error) {
	c := callOf(ctx)
	c.success(m)
	return c, nil
}

// failed answers a call that failed, in the router or behind it.
func (h *Handler) failed(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, _ http.ResponseWriter, r *http.Request, err error) {
	callOf(r.Context()).fail(err)
}

// unrouted answers a request that the router finds no route for, which is after
// the Handler has found one: see routes.
func (h *Handler) unrouted(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, _ http.ResponseWriter, r *http.Request, status int) {
	callOf(r.Context()).fail(fmt.Errorf("the router answers %d to a known path", status))
}
