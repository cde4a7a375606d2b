package rest

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// A service is a service of the protos that has paths.
type service struct {
	desc     protoreflect.ServiceDescriptor
	register func(context.Context, *runtime.ServeMux, grpc.ClientConnInterface) error
}

// services lists the services that have paths. Of two routes that match a path, the
// later one wins.
func services() []service {
	return []service{
		{
			apikeysv1.File_apikeys_v1_api_keys_proto.Services().ByName("ApiKeysService"),
			registration(apikeysv1.RegisterApiKeysServiceHandlerClient, apikeysv1.NewApiKeysServiceClient),
		},
		{
			apikeysv1.File_apikeys_v1_events_proto.Services().ByName("EventsService"),
			registration(apikeysv1.RegisterEventsServiceHandlerClient, apikeysv1.NewEventsServiceClient),
		},
		{
			apikeysv1.File_apikeys_v1_webhooks_proto.Services().ByName("WebhooksService"),
			registration(apikeysv1.RegisterWebhooksServiceHandlerClient, apikeysv1.NewWebhooksServiceClient),
		},
		{
			apikeysv1.File_apikeys_v1_operator_tokens_proto.Services().ByName("OperatorTokensService"),
			registration(apikeysv1.RegisterOperatorTokensServiceHandlerClient, apikeysv1.NewOperatorTokensServiceClient),
		},
		{
			apikeysv1.File_apikeys_v1_callers_proto.Services().ByName("CallersService"),
			registration(apikeysv1.RegisterCallersServiceHandlerClient, apikeysv1.NewCallersServiceClient),
		},
		{
			apikeysv1.File_apikeys_v1_usage_proto.Services().ByName("UsageService"),
			registration(apikeysv1.RegisterUsageServiceHandlerClient, apikeysv1.NewUsageServiceClient),
		},
	}
}

// registration joins the two functions that are generated of a service.
func registration[Client any](
	register func(context.Context, *runtime.ServeMux, Client) error, client func(grpc.ClientConnInterface) Client,
) func(context.Context, *runtime.ServeMux, grpc.ClientConnInterface) error {
	return func(ctx context.Context, mux *runtime.ServeMux, cc grpc.ClientConnInterface) error {
		return register(ctx, mux, client(cc))
	}
}

// register gives the router everything that has a path: the services of the protos,
// and the handlers that are written by hand.
func (h *Handler) register() error {
	for _, s := range services() {
		if err := h.routes.addService(s.desc, h.tail); err != nil {
			return fmt.Errorf("make the REST handler: %w", err)
		}
		if err := s.register(context.Background(), h.mux, fillingConn{h.Conn}); err != nil {
			return fmt.Errorf("register %s: %w", s.desc.Name(), err)
		}
	}
	for _, b := range builtins() {
		if served := h.files[documentPath] != nil; b.path == documentPath && !served {
			continue
		}
		if served := h.files[pagePath] != nil; strings.HasPrefix(b.path, pagePath) && !served {
			continue
		}
		if b.path != watchPath { // which has one by its annotations
			h.routes.add(&route{method: b.method, template: b.path})
		}
		err := h.mux.HandlePath(b.method, b.path, func(_ http.ResponseWriter, r *http.Request, _ map[string]string) {
			b.serve(exchangeOf(r.Context()))
		})
		if err != nil {
			return fmt.Errorf("register %s: %w", b.path, err)
		}
	}
	return nil
}

// A route is one way to an RPC, as its annotations describe it.
type route struct {
	method   string   // GET for HEAD too
	template string   // the path, with {names} for the segments that vary
	bound    []string // the fields that the path gives
	body     bool     // whether all other fields come in a body
	oauth    bool     // whether it speaks as OAuth does: see oauth.go
	tail     string   // what follows data in the envelope of a success

	rpc   protoreflect.MethodDescriptor // nil for what is written by hand
	data  protoreflect.FieldDescriptor  // what the envelope shows of the answer; nil for all
	etag  protoreflect.FieldDescriptor  // of data, nil if it has none
	next  protoreflect.FieldDescriptor  // the answer's next_page_token, nil if it has none
	total protoreflect.FieldDescriptor  // the answer's total beside a list, nil if it has none
	csv   protoreflect.FieldDescriptor  // the list of the answer that can be had as CSV, nil if it has none

	// match is the field of the request that If-Match is for, nil where that
	// header means nothing. resource is the name of the field that carries the
	// resource there, with a dot: callers do not see that level.
	match    protoreflect.FieldDescriptor
	resource string
}

// routes are the routes by their paths: a tree with a level for each segment.
type routes struct {
	word  map[string]*routes // what follows a segment that is this word
	other *routes            // what follows a segment that is none of them, an id
	path  *pathRoutes        // what is at this path; nil where nothing is
	all   []*route           // of the root: every route, in the order of their addition
}

// pathRoutes are the routes of one path.
type pathRoutes struct {
	byMethod map[string]*route
	allow    string // the methods, as the header Allow has them
}

func (rs *routes) add(r *route) {
	rs.all = append(rs.all, r)
	at := rs
	for segment := range strings.SplitSeq(r.template[1:], "/") {
		if strings.HasPrefix(segment, "{") { // {name} or {name=word}
			var name string
			name, segment, _ = strings.Cut(strings.Trim(segment, "{}"), "=")
			r.bound = append(r.bound, name)
		}
		at = at.next(segment)
	}
	if at.path == nil {
		at.path = &pathRoutes{byMethod: make(map[string]*route)}
	}
	at.path.byMethod[r.method] = r
	at.path.allow = allowed(at.path.byMethod)
}

// next returns what follows a segment, "" for one that varies.
func (rs *routes) next(segment string) *routes {
	if segment == "" {
		if rs.other == nil {
			rs.other = new(routes)
		}
		return rs.other
	}
	if rs.word == nil {
		rs.word = make(map[string]*routes)
	}
	if rs.word[segment] == nil {
		rs.word[segment] = new(routes)
	}
	return rs.word[segment]
}

// allowed lists the methods that a path takes.
func allowed(found map[string]*route) string {
	var methods []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if found[method] == nil {
			continue
		}
		if methods = append(methods, method); method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	return strings.Join(append(methods, http.MethodOptions), ", ")
}

// find returns what is at a path, nil for nothing. A word counts as itself before
// it counts as an id: where /keys/verify takes POST, GET /keys/verify does not ask
// for a key of that name.
func (rs *routes) find(u *url.URL) *pathRoutes {
	if !canonicalPath(u) {
		return nil
	}
	return rs.at(u.Path[1:])
}

func (rs *routes) at(path string) *pathRoutes {
	segment, rest, more := strings.Cut(path, "/")
	for _, next := range [...]*routes{rs.word[segment], rs.other} {
		switch {
		case next == nil:
		case !more && next.path != nil:
			return next.path
		case more:
			if found := next.at(rest); found != nil {
				return found
			}
		}
	}
	return nil
}

// addService adds the routes that a service's annotations name.
func (rs *routes) addService(service protoreflect.ServiceDescriptor, tail string) error {
	for i := range service.Methods().Len() {
		method := service.Methods().Get(i)
		rule, ok := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
		if !ok || rule == nil {
			continue
		}
		var ways []*route
		var bound []string
		for _, binding := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			r, err := newRoute(method, binding)
			if err != nil {
				return fmt.Errorf("%s: %w", method.FullName(), err)
			}
			rule, _ := proto.GetExtension(method.Options(), apikeysv1.E_Rule).(*apikeysv1.MethodRule)
			r.tail, r.oauth = success+quote(rule.GetMessage())+tail, rule.GetOauth()
			if name := rule.GetCsv(); name != "" {
				if r.csv = method.Output().Fields().ByName(protoreflect.Name(name)); r.csv == nil {
					return fmt.Errorf("%s: the list %q of its CSV is not a field", method.FullName(), name)
				}
			}
			rs.add(r)
			ways = append(ways, r)
			bound = append(bound, r.bound...)
		}
		// What one path says no caller says in a body, on another path either.
		for _, r := range ways {
			r.bound = bound
		}
	}
	return nil
}

func newRoute(method protoreflect.MethodDescriptor, rule *annotations.HttpRule) (*route, error) {
	r := &route{rpc: method}
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		r.method, r.template = http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		r.method, r.template = http.MethodPost, p.Post
	case *annotations.HttpRule_Put:
		r.method, r.template = http.MethodPut, p.Put
	case *annotations.HttpRule_Patch:
		r.method, r.template = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		r.method, r.template = http.MethodDelete, p.Delete
	default:
		return nil, fmt.Errorf("a route of an unknown kind")
	}
	if strings.ContainsAny(r.template, "*:.") {
		return nil, fmt.Errorf("the path %s has more than names", r.template)
	}
	switch body := rule.GetBody(); body {
	case "*":
		r.body = true
	case "":
	default:
		return nil, fmt.Errorf("the body %q is neither all nor nothing", body)
	}
	in, out := method.Input().Fields(), method.Output().Fields()
	data := method.Output()
	if name := rule.GetResponseBody(); name != "" {
		if r.data = out.ByName(protoreflect.Name(name)); r.data == nil {
			return nil, fmt.Errorf("the response body %q is not a field", name)
		}
		data = r.data.Message()
	}
	if data != nil && (r.data == nil || r.data.Cardinality() != protoreflect.Repeated) {
		r.etag = data.Fields().ByName("etag")
	}
	if r.method == http.MethodGet { // What follows a POST is no link; the token is in its data.
		r.next = out.ByName("next_page_token")
	}
	if r.next != nil && r.data != nil {
		r.total = out.ByName("total")
	}
	if r.method == http.MethodPut || r.method == http.MethodPatch {
		r.match = in.ByName("etag")
		for i := range in.Len() {
			if fd := in.Get(i); fd.Message() != nil && fd.Name() != "update_mask" {
				r.resource = string(fd.Name()) + "."
			}
		}
	}
	return r, nil
}
