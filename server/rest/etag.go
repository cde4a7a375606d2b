package rest

import (
	"net/http"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// ifMatch puts the etag of an If-Match header into the request. One that
// stands in the body as well must be the same.
func (e *exchange) ifMatch(m protoreflect.Message) []apikey.FieldProblem {
	values := e.r.Header["If-Match"]
	if len(values) == 0 || e.method == http.MethodGet {
		return nil
	}
	if e.route.match == nil {
		// A guard that is not looked at is worse than none.
		return []apikey.FieldProblem{{Field: "If-Match", Problem: "is taken by PUT and PATCH alone"}}
	}
	etag, problem := parseIfMatch(strings.Join(values, ","))
	if problem != "" {
		return []apikey.FieldProblem{{Field: "If-Match", Problem: problem}}
	}
	body := m.Get(e.route.match).String()
	switch {
	case etag == "":
		return nil
	case body != "" && body != etag:
		return []apikey.FieldProblem{{Field: "etag", Problem: "is not the one of If-Match"}}
	}
	m.Set(e.route.match, protoreflect.ValueOfString(etag))
	return nil
}

// parseIfMatch reads an If-Match header (RFC 9110, 13.1.1) and returns the
// etag that the resource must have, "" for *, which any has. A weak etag never
// matches here, nor does an empty one; they come back as they are written,
// which no etag of ours looks like.
//
// More than one etag is a problem, since a request of the gRPC API has room
// for one.
func parseIfMatch(header string) (etag, problem string) {
	const want = `must be one etag in double quotes, or *`
	s := strings.Trim(header, " \t")
	if s == "*" {
		return "", ""
	}
	opaque := strings.TrimPrefix(s, "W/")
	if len(opaque) < 2 || opaque[0] != '"' || opaque[len(opaque)-1] != '"' {
		return "", want
	}
	etag = opaque[1 : len(opaque)-1]
	for i := range len(etag) {
		if e := etag[i]; e <= ' ' || e == '"' || e >= 0x7f {
			return "", want
		}
	}
	if etag == "" || len(opaque) < len(s) {
		return s, ""
	}
	return etag, ""
}
