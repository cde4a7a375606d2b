package rest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/gofrs/uuid/v5"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/connection"
	"github.com/apikeys-dev/apikeys/server/reference"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// Config is what a Handler is made of.
type Config struct {
	// Conn leads to the gRPC API in this process. Required.
	Conn grpc.ClientConnInterface
	// Env is what the envelope says of the server, development or production.
	// Default: development.
	Env string
	// Logger takes a line for each failure that begins and ends here. Those of
	// the gRPC API have been logged there. Default: slog.Default().
	Logger *slog.Logger
	// Secrets finds secrets in what a failure repeats of its request. Nil knows those
	// alone that have a form. Default: nil.
	Secrets *apikey.SecretFinder
	// Refusals takes the lines of refused requests, of which anybody can make as many
	// as they like. Default: one of its own, over Logger.
	Refusals *authn.Refusals
	// AnswerTimeout is how long a client may take nothing of an answer. Required.
	AnswerTimeout time.Duration
	// Ready reports why the server cannot serve now, or nil. It is asked at
	// every GET /readyz, and says what the caller may read with a NotReady.
	// Default: always ready.
	Ready func(context.Context) error
	// Warnings returns what is not as it should be while the server is ready, in
	// sentences for everybody. Defaults to nothing.
	Warnings func() []string
	// Document is the OpenAPI document, which is served at /openapi.json. Nil serves
	// none.
	Document []byte
	// Page is the page at /docs. Nil serves none.
	Page []reference.File
	// NewID makes the part of an id that follows its type: a UUID of version 7.
	// It is called by many goroutines at once. Default: such a UUID.
	NewID func() string
}

// A Handler is the REST API as an http.Handler. It sets no timeouts: those
// belong to the http.Server.
type Handler struct {
	Config
	mux    *runtime.ServeMux
	routes *routes
	tail   string // the end of an envelope: env and the closing brace
	files  map[string]*file
	none   url.Values // what the router sees of a query; never written to
}

var _ http.Handler = (*Handler)(nil)

// New makes a Handler. It fails when a service has an HTTP annotation of a kind
// that is not handled here.
func New(config Config) (*Handler, error) {
	if config.Conn == nil {
		return nil, errors.New("make the REST handler: no connection")
	}
	if config.AnswerTimeout <= 0 {
		return nil, errors.New("make the REST handler: no timeout of answers")
	}
	config.Env = cmp.Or(config.Env, "development")
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Refusals == nil {
		config.Refusals = &authn.Refusals{Logger: config.Logger}
	}
	if config.Warnings == nil {
		config.Warnings = func() []string { return nil }
	}
	if config.Ready == nil {
		config.Ready = func(context.Context) error { return nil }
	}
	if config.NewID == nil {
		config.NewID = func() string { return uuid.Must(uuid.NewV7()).String() }
	}
	h := &Handler{
		Config: config,
		routes: new(routes),
		tail:   string(wirejson.AppendEnvelopeEnd(nil, config.Env)),
		none:   url.Values{},
	}
	var err error
	if h.files, err = newFiles(config.Document, config.Page); err != nil {
		return nil, fmt.Errorf("make the REST handler: %w", err)
	}
	nothing := func(string) (string, bool) { return "", false }
	h.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, passthroughMarshaler{}),
		runtime.WithForwardResponseRewriter(h.rewrite),
		runtime.WithErrorHandler(h.failed),
		runtime.WithRoutingErrorHandler(h.unrouted),
		runtime.WithWriteContentLength(),
		runtime.WithIncomingHeaderMatcher(nothing),
		runtime.WithOutgoingHeaderMatcher(nothing),
		runtime.WithOutgoingTrailerMatcher(nothing),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithDisablePathLengthFallback(),
	)
	if err := h.register(); err != nil {
		return nil, err
	}
	return h, nil
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := h.begin(w, r)
	defer e.end()
	defer e.onConnection.Close()
	path := h.routes.find(r.URL)
	switch {
	case connection.TooManyHeaders(r.Header):
		e.fail(errTooManyHeaders)
	case path == nil:
		e.fail(errNoRoute)
	case r.Method == http.MethodOptions:
		e.options(path.allow)
	case path.byMethod[e.method] == nil:
		e.refuseMethod(path.allow)
	default:
		e.route = path.byMethod[e.method]
		h.mux.ServeHTTP(unfailing{w}, h.stripped(e))
	}
}

// unfailing is a ResponseWriter whose writes never fail, for the router: it would
// print a line to standard error for each client that has gone.
type unfailing struct{ http.ResponseWriter }

// Write writes as far as that can be done.
func (w unfailing) Write(data []byte) (int, error) {
	_, _ = w.ResponseWriter.Write(data) // the client has gone; there is nobody to tell
	return len(data), nil
}

// stripped is the request as the router may see it. Its context is the one that
// reaches the gRPC API: see authn.WithClient.
func (h *Handler) stripped(e *exchange) *http.Request {
	ctx := context.WithValue(e.context(), exchangeKey{}, e)
	r := e.r.WithContext(ctx)
	r.Method = e.method
	r.Header = nil
	r.Body = http.NoBody
	r.Host, r.RemoteAddr = "", ""
	r.Form, r.PostForm = h.none, h.none
	return r
}

// passthroughMarshaler is what the router reads and writes messages with. It reads
// nothing, since the router has nothing to read, and writes envelopes that are there
// already.
type passthroughMarshaler struct{}

var _ runtime.Marshaler = passthroughMarshaler{}

func (passthroughMarshaler) Marshal(v any) ([]byte, error) { return v.(*exchange).out, nil }
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
	e := exchangeOf(ctx)
	if md, ok := runtime.ServerMetadataFromContext(ctx); ok && len(md.HeaderMD.Get("idempotency-replayed")) > 0 {
		e.w.Header().Set("Idempotency-Replayed", "true")
	}
	e.success(m)
	return e, nil
}

// failed answers a call that failed, in the router or behind it.
func (h *Handler) failed(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, _ http.ResponseWriter, r *http.Request, err error) {
	exchangeOf(r.Context()).fail(err)
}

// unrouted answers a request that the router finds no route for, which is after
// the Handler has found one: see routes.
func (h *Handler) unrouted(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, _ http.ResponseWriter, r *http.Request, status int) {
	exchangeOf(r.Context()).fail(fmt.Errorf("the router answers %d to a known path", status))
}
