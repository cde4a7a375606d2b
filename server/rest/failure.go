package rest

import (
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// The parts of an envelope that are the same in many.
const (
	head    = `{"status":200,"data":`
	success = `,"error":null,"log":null,"validator":null,"support_id":null,"message":`
)

func quote(s string) string { return string(wirejson.AppendString(nil, s)) }

// A failure is what the envelope says of a request that failed. It is an error
// of the layers below, translated, or one that begins here.
type failure struct {
	status     int
	reason     string
	text       string                // a sentence a person can act on; "" for the fixed one of the status
	fields     []apikey.FieldProblem // the validator, nil for null
	facts      map[string]string     // further entries of the log
	retryAfter time.Duration
	cause      error // for our own log only

	// requestID and supportID are set when the failure has been logged already.
	requestID, supportID string
}

func (f *failure) Error() string { return f.reason + ": " + f.text }

// The failures that HTTP alone can have.
var (
	errNoRoute = &failure{status: http.StatusNotFound, reason: "ROUTE_NOT_FOUND",
		text: "There is nothing at this path. Check its spelling; a path has no slash at its end."}
	errTooManyHeaders = &failure{status: http.StatusRequestHeaderFieldsTooLarge, reason: "TOO_MANY_HEADERS",
		text: "The request has more than 2,048 headers."}
	// Those of a request that is being read pass through the gRPC face, which logs
	// them with the caller.
	errNotAcceptable = apikey.Errorf(apikey.KindInvalid, reasonNotAcceptable,
		"Answers are application/json, which the header Accept excludes.")
	errNoStream = apikey.Errorf(apikey.KindInvalid, reasonNotAcceptable,
		"Events come as application/x-ndjson or text/event-stream; the header Accept excludes both.")
	errTooLarge = apikey.Errorf(apikey.KindExhausted, apikey.ReasonTooLarge,
		"The body is larger than 1 MiB.")
	errUnreadBodies = &apikey.Error{
		Kind: apikey.KindExhausted, Reason: "ANSWERS_UNREAD", RetryAfter: 10 * time.Second,
		Message: "Too many requests and answers of this caller are under way; finish them before sending more.",
	}
	errNotJSON = apikey.Errorf(apikey.KindInvalid, reasonUnsupportedType,
		"Send the body as JSON in UTF-8, with the header Content-Type: application/json.")
	errCompressed = apikey.Errorf(apikey.KindInvalid, reasonUnsupportedType,
		"Send the body without Content-Encoding.")
	errMalformedQuery = apikey.Errorf(apikey.KindInvalid, "MALFORMED_QUERY",
		"The query is not valid: escape its values, and separate them with &.")
	errIncomplete = apikey.Errorf(apikey.KindInvalid, apikey.ReasonIncomplete,
		"The body did not arrive in full. Send the request again.")
)

const (
	reasonNotAcceptable   apikey.Reason = "NOT_ACCEPTABLE"
	reasonUnsupportedType apikey.Reason = "UNSUPPORTED_MEDIA_TYPE"
)

// sentences are what a caller reads of a failure that has no words of its own.
var sentences = map[int]string{
	http.StatusBadRequest:            "The request is not valid.",
	http.StatusUnauthorized:          "The request needs a valid credential.",
	http.StatusForbidden:             "The credential does not permit this.",
	http.StatusNotFound:              "There is no such resource.",
	http.StatusConflict:              "The resource has changed. Read it again and repeat the change.",
	http.StatusRequestEntityTooLarge: "The request is too large.",
	http.StatusTooManyRequests:       "Too many requests. Try again later.",
	http.StatusServiceUnavailable:    "The server cannot answer now. Try again in a moment.",
	http.StatusGatewayTimeout:        "The answer took too long. Try again.",
	http.StatusInternalServerError:   "Something went wrong on our side. Quote the support_id when you report it.",
}

// fail answers with an error.
func (c *call) fail(err error) {
	f := c.settle(err)
	header := c.w.Header()
	if c.r.ProtoMajor == 1 && c.hasBody() && !c.bodyRead {
		// Else the server would take the body in before it answers.
		header.Set("Connection", "close")
	}
	if f.status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", `Bearer realm="apikeys"`)
	}
	if f.status == http.StatusServiceUnavailable {
		f.retryAfter = max(f.retryAfter, time.Second) // time is all that helps
	}
	if f.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retryAfter.Seconds()))))
	}
	c.out = f.append(c.out[:0], c.h.tail)
	c.write(f.status)
}

// settle is the failure of an error as the client will see it, its line in the
// log written.
func (c *call) settle(err error) *failure {
	f := *c.failureOf(err)
	if f.text == "" {
		f.text = sentences[f.status]
	}
	f.text, f.fields = c.h.Secrets.Redact(f.text), slices.Clone(f.fields)
	for i, p := range f.fields {
		f.fields[i] = apikey.FieldProblem{Field: c.h.Secrets.Redact(p.Field), Problem: c.h.Secrets.Redact(p.Problem)}
	}
	if f.supportID == "" {
		f.requestID, f.supportID = "request_"+c.h.NewID(), "support_"+c.h.NewID()
		c.log(&f)
	}
	return &f
}

// append appends the failure's envelope.
func (f *failure) append(dst []byte, tail string) []byte {
	dst = strconv.AppendInt(append(dst, `{"status":`...), int64(f.status), 10)
	dst = wirejson.AppendString(append(dst, `,"data":null,"error":`...), f.text)
	dst = wirejson.AppendString(append(dst, `,"log":{"reason":`...), f.reason)
	dst = wirejson.AppendString(append(dst, `,"request_id":`...), f.requestID)
	for _, name := range slices.Sorted(maps.Keys(f.facts)) {
		if name != "reason" && name != "request_id" {
			dst = append(wirejson.AppendString(append(dst, ','), name), ':')
			dst = wirejson.AppendString(dst, f.facts[name])
		}
	}
	dst = append(dst, `},"validator":`...)
	dst = appendValidator(dst, f.fields)
	dst = wirejson.AppendString(append(dst, `,"support_id":`...), f.supportID)
	return append(append(dst, `,"message":null`...), tail...)
}

func appendValidator(dst []byte, fields []apikey.FieldProblem) []byte {
	if len(fields) == 0 {
		return append(dst, "null"...)
	}
	sep := byte('{')
	for _, p := range fields {
		dst = append(wirejson.AppendString(append(dst, sep), p.Field), ':')
		dst = wirejson.AppendString(dst, p.Problem)
		sep = ','
	}
	return append(dst, '}')
}

// log writes the line that the failure's support id is for. A query is not
// logged, nor any part of a path that could be a secret.
func (c *call) log(f *failure) {
	attrs := []slog.Attr{
		slog.String("support_id", f.supportID),
		slog.String("request_id", f.requestID),
		slog.String("reason", f.reason),
		slog.Int("status", f.status),
		slog.String("method", c.h.Secrets.Excerpt(c.r.Method)),
		slog.String("path", c.loggedPath()),
	}
	if f.cause != nil {
		attrs = append(attrs, slog.String("error", f.cause.Error()))
	}
	const message = "rest: request failed"
	ctx := c.r.Context()
	switch {
	case f.reason == reasonNotReady, f.reason == reasonCanceled, ctx.Err() != nil: // the client has gone
		c.h.Logger.LogAttrs(ctx, slog.LevelDebug, message, attrs...)
	case f.status >= http.StatusInternalServerError:
		c.h.Logger.LogAttrs(ctx, slog.LevelError, message, attrs...)
	default:
		c.h.Refusals.Log(ctx, clientOf(c.r).Addr, f.reason, message, attrs...)
	}
}

// loggedPath is the path of the request as a line of the log may repeat it: ids
// whole, and of every other segment an excerpt, since a secret can end up in a path
// by mistake.
func (c *call) loggedPath() string {
	if c.h.Secrets.In(c.r.URL.Path) {
		return apikey.Redacted
	}
	segments := strings.Split(c.r.URL.Path, "/")
	if len(segments) > 8 {
		segments = append(segments[:8], "...")
	}
	for i, segment := range segments {
		if !isID(segment) {
			segments[i] = c.h.Secrets.Excerpt(segment)
		}
	}
	return strings.Join(segments, "/")
}

// isID reports whether s is the name of a type and a UUID.
func isID(s string) bool {
	i := strings.LastIndexByte(s, '_')
	name, id := s[:i+1], s[i+1:]
	if len(name) > 20 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" || len(id) != 36 {
		return false
	}
	for at, part := range strings.Split(id, "-") {
		if at > 4 || len(part) != [...]int{8, 4, 4, 4, 12}[at] || strings.Trim(part, "0123456789abcdef") != "" {
			return false
		}
	}
	return true
}
