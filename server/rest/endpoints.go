package rest

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// An Endpoint is one way to call the API, as the Handler serves it. Whoever describes
// the API makes the description of these.
type Endpoint struct {
	// Method is GET, POST, PUT, PATCH or DELETE. HEAD goes with GET, and OPTIONS with
	// every path.
	Method string
	// Path has {names} for the segments that vary.
	Path string
	// RPC is nil for a path whose handler is written by hand; About is for these.
	RPC   protoreflect.MethodDescriptor
	About About

	// HasBody reports whether the fields of the request come in a body, of which
	// Body says more; else they come in the query. Body.Bound they never name.
	HasBody bool
	Body    wirejson.Body
	// OAuth reports whether the request is a form, and the answer comes without an
	// envelope: as OAuth 2.0 has them.
	OAuth bool
	// Data is the field of the answer that the envelope shows; nil for all of it.
	Data protoreflect.FieldDescriptor
	// ETag, Pages, Total and IfMatch report whether there are the headers ETag, the two
	// of a next page, X-Total-Count, and If-Match.
	ETag, Pages, Total, IfMatch bool
}

// About is what is said of a path whose handler is written by hand. Of a zero About
// nothing is told but that the path is there.
type About struct {
	// ID names the operation, in lower camel case.
	ID string
	// Summary is a sentence, and Text what else there is to say.
	Summary, Text string
	// Data is the JSON Schema of what the envelope holds.
	Data string
	// MediaType is the type of an answer that comes without an envelope; else empty.
	MediaType string
	// Status is what a success answers. Default: 200.
	Status int
	// Cached reports whether the answer has an etag, by which a client asks for it again.
	Cached bool
	// Headers are the names of headers of a success, and Fails the statuses of its own
	// failures.
	Headers []string
	Fails   []int
}

// Endpoints lists what the API can be called by, in the order in which it is
// declared.
func Endpoints() ([]Endpoint, error) {
	var list []Endpoint
	for _, s := range services() {
		declared := new(routes)
		if err := declared.addService(s.desc, ""); err != nil {
			return nil, err
		}
		for _, r := range declared.all {
			list = append(list, Endpoint{
				Method: r.method, Path: oneWord(r.template), RPC: r.rpc,
				HasBody: r.body, Body: r.bodyRules(), OAuth: r.oauth, Data: r.data,
				ETag: r.etag != nil, Pages: r.next != nil, Total: r.total != nil, IfMatch: r.match != nil,
			})
		}
	}
	for _, b := range builtins() {
		if b.path != watchPath {
			list = append(list, Endpoint{Method: b.method, Path: b.path, About: b.about})
		}
	}
	return list, nil
}

// oneWord writes a segment of a path that gives a field and can be one word only as
// that word.
func oneWord(template string) string {
	segments := strings.Split(template, "/")
	for i, segment := range segments {
		if _, word, ok := strings.Cut(strings.Trim(segment, "{}"), "="); ok {
			segments[i] = word
		}
	}
	return strings.Join(segments, "/")
}

// StatusOf returns the HTTP status of a failure with a gRPC code and a reason.
func StatusOf(code codes.Code, reason string) int {
	return cmp.Or(reasonStatuses[apikey.Reason(reason)], statuses[code].status, http.StatusInternalServerError)
}

// A Fallback is the failure of a gRPC code that brings no reason and no words.
type Fallback struct {
	Status       int
	Reason, Text string
}

// Fallbacks lists what failures without a reason are answered with.
func Fallbacks() []Fallback {
	list := []Fallback{{http.StatusInternalServerError, reasonInternal, sentences[http.StatusInternalServerError]}}
	for _, row := range statuses {
		list = append(list, Fallback{row.status, row.reason, sentences[row.status]})
	}
	slices.SortFunc(list, func(a, b Fallback) int { return cmp.Or(a.Status-b.Status, strings.Compare(a.Reason, b.Reason)) })
	return list
}
