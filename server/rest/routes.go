package rest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// register lists everything that has a path: the services of the protos, and
// the handlers that are written by hand. Of two routes that match a path, the
// later one wins.
func (h *Handler) register() error {
	ctx, cc := context.Background(), grpc.ClientConnInterface(conn{h.Conn, h})
	services := []struct {
		file     protoreflect.FileDescriptor
		name     protoreflect.Name
		register func() error
	}{
		{apikeysv1.File_apikeys_v1_api_keys_proto, "ApiKeysService", func() error {
			return apikeysv1.RegisterApiKeysServiceHandlerClient(ctx, h.mux, apikeysv1.NewApiKeysServiceClient(cc))
		}},
		{apikeysv1.File_apikeys_v1_events_proto, "EventsService", func() error {
			return apikeysv1.RegisterEventsServiceHandlerClient(ctx, h.mux, apikeysv1.NewEventsServiceClient(cc))
		}},
		{apikeysv1.File_apikeys_v1_webhooks_proto, "WebhooksService", func() error {
			return apikeysv1.RegisterWebhooksServiceHandlerClient(ctx, h.mux, apikeysv1.NewWebhooksServiceClient(cc))
		}},
	}
	plain := []struct {
		verb, path string
		serve      func(*call)
	}{
		{http.MethodGet, "/healthz", (*call).health},
		{http.MethodGet, "/readyz", (*call).readiness},
		{http.MethodGet, watchPath, (*call).watch}, // in place of the router's own
	}
	for _, s := range services {
		if err := h.routes.addService(s.file.Services().ByName(s.name), h.tail); err != nil {
			return fmt.Errorf("make the REST face: %w", err)
		}
		if err := s.register(); err != nil {
			return fmt.Errorf("register %s: %w", s.name, err)
		}
	}
	for _, p := range plain {
		h.routes.add(&route{place: place{p.verb, p.path}})
		err := h.mux.HandlePath(p.verb, p.path, func(_ http.ResponseWriter, r *http.Request, _ map[string]string) {
			p.serve(callOf(r.Context()))
		})
		if err != nil {
			return fmt.Errorf("register %s: %w", p.path, err)
		}
	}
	return nil
}

// A place is where a route stands: a method, GET for HEAD too, and a path with
// {names} for the segments that vary.
type place struct{ verb, template string }

// A route is one way to an RPC, as its annotations describe it.
type route struct {
	place
	segments []string // "" for one that varies
	bound    []string // the fields that the path gives
	body     bool     // whether all other fields come in a body
	tail     string   // what follows data in the envelope of a success

	data protoreflect.FieldDescriptor // what the envelope shows of the answer; nil for all
	etag protoreflect.FieldDescriptor // of data, nil if it has none
	next protoreflect.FieldDescriptor // the answer's next_page_token, nil if it has none

	// match is the field of the request that If-Match is for, nil where that
	// header means nothing. resource is the name of the field that carries the
	// resource there, with a dot: callers do not see that level.
	match    protoreflect.FieldDescriptor
	resource string
}

type routes map[place]*route

func (rs routes) add(r *route) {
	for segment := range strings.SplitSeq(r.template[1:], "/") {
		if strings.HasPrefix(segment, "{") { // {name} or {name=word}
			var name string
			name, segment, _ = strings.Cut(strings.Trim(segment, "{}"), "=")
			r.bound = append(r.bound, name)
		}
		r.segments = append(r.segments, segment)
	}
	rs[r.place] = r
}

// addService adds the routes that a service's annotations name.
func (rs routes) addService(service protoreflect.ServiceDescriptor, tail string) error {
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
			r.tail = success + quote(rule.GetMessage()) + tail
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
	r := &route{}
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		r.place = place{http.MethodGet, p.Get}
	case *annotations.HttpRule_Post:
		r.place = place{http.MethodPost, p.Post}
	case *annotations.HttpRule_Put:
		r.place = place{http.MethodPut, p.Put}
	case *annotations.HttpRule_Patch:
		r.place = place{http.MethodPatch, p.Patch}
	case *annotations.HttpRule_Delete:
		r.place = place{http.MethodDelete, p.Delete}
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
	r.next = out.ByName("next_page_token")
	if r.verb == http.MethodPut || r.verb == http.MethodPatch {
		r.match = in.ByName("etag")
		for i := range in.Len() {
			if fd := in.Get(i); fd.Message() != nil && fd.Name() != "update_mask" {
				r.resource = string(fd.Name()) + "."
			}
		}
	}
	return r, nil
}

// verbs are the methods that a path takes, nil if there is no such path.
func (rs routes) verbs(path string) []string {
	segments := strings.Split(path[1:], "/")
	var found []string
	for _, verb := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		for place, r := range rs {
			if place.verb == verb && r.matches(segments) {
				found = append(found, verb)
				break
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	if found[0] == http.MethodGet {
		found = slices.Insert(found, 1, http.MethodHead)
	}
	return append(found, http.MethodOptions)
}

func (r *route) matches(segments []string) bool {
	return slices.EqualFunc(r.segments, segments, func(want, got string) bool { return want == "" || want == got })
}
