package rest

import (
	"log/slog"
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
	// Those of a request that is being read pass through the gRPC API, which logs
	// them with the caller.
	errNotAcceptable = apikey.Errorf(apikey.KindInvalid, reasonNotAcceptable,
		"Answers are application/json, which the header Accept excludes.")
	errNoStream = apikey.Errorf(apikey.KindInvalid, reasonNotAcceptable,
		"Events come as application/x-ndjson or text/event-stream; the header Accept excludes both.")
	errTooLarge = apikey.Errorf(apikey.KindExhausted, apikey.ReasonTooLarge,
		"The body is larger than 1 MiB.")
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
func (e *exchange) fail(err error) {
	f := e.settle(err)
	header := e.w.Header()
	if e.r.ProtoMajor == 1 && e.hasBody() && !e.bodyRead {
		// Else the server would take the body in before it answers.
		header.Set("Connection", "close")
	}
	if f.status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", e.challenge())
	}
	if f.status == http.StatusServiceUnavailable {
		f.retryAfter = max(f.retryAfter, time.Second) // time is all that helps
	}
	if f.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retryAfter.Seconds()))))
	}
	if e.route != nil && e.route.oauth {
		e.out = f.appendOAuth(e.out[:0])
	} else {
		e.out = f.append(e.out[:0], e.h.tail)
	}
	e.write(f.status)
}

// challenge returns what WWW-Authenticate says: besides how to authenticate, whether the
// request has tried to (RFC 6750, 3).
func (e *exchange) challenge() string {
	const challenge = `Bearer realm="apikeys"`
	if e.r.Header.Get("Authorization") == "" && e.r.Header.Get("X-Api-Key") == "" {
		return challenge
	}
	return challenge + `, error="invalid_token"`
}

// settle is the failure of an error as the client will see it, its line in the
// log written.
func (e *exchange) settle(err error) *failure {
	f := *e.failureOf(err)
	if f.text == "" {
		f.text = sentences[f.status]
	}
	f.text, f.fields = e.h.Secrets.Redact(f.text), slices.Clone(f.fields)
	for i, p := range f.fields {
		f.fields[i] = apikey.FieldProblem{Field: e.h.Secrets.Redact(p.Field), Problem: e.h.Secrets.Redact(p.Problem)}
	}
	if f.supportID == "" {
		f.requestID, f.supportID = "request_"+e.h.NewID(), "support_"+e.h.NewID()
		e.log(&f)
	}
	return &f
}

// append appends the failure's envelope.
func (f *failure) append(dst []byte, tail string) []byte {
	told := wirejson.Failure{
		Status: f.status, Reason: f.reason, Text: f.text, Fields: f.fields, Facts: f.facts, RequestID: f.requestID, SupportID: f.supportID,
	}
	return append(told.AppendEnvelope(dst), tail...)
}

// log writes the line that the failure's support id is for. A query is not
// logged, nor any part of a path that could be a secret.
func (e *exchange) log(f *failure) {
	attrs := []slog.Attr{
		slog.String("support_id", f.supportID),
		slog.String("request_id", f.requestID),
		slog.String("reason", f.reason),
		slog.Int("status", f.status),
		slog.String("method", e.h.Secrets.Excerpt(e.r.Method)),
		slog.String("path", e.loggedPath()),
	}
	if f.cause != nil {
		attrs = append(attrs, slog.String("error", f.cause.Error()))
	}
	const message = "rest: request failed"
	ctx := e.r.Context()
	switch {
	case f.reason == reasonNotReady, f.reason == reasonCanceled, ctx.Err() != nil: // the client has gone
		e.h.Logger.LogAttrs(ctx, slog.LevelDebug, message, attrs...)
	case f.status >= http.StatusInternalServerError:
		e.h.Logger.LogAttrs(ctx, slog.LevelError, message, attrs...)
	default:
		e.h.Refusals.Log(ctx, clientOf(e.r).Addr, f.reason, message, attrs...)
	}
}

// loggedPath is the path of the request as a line of the log may repeat it: ids
// whole, and of every other segment an excerpt, since a secret can end up in a path
// by mistake.
func (e *exchange) loggedPath() string {
	if e.h.Secrets.In(e.r.URL.Path) {
		return apikey.Redacted
	}
	segments := strings.Split(e.r.URL.Path, "/")
	if len(segments) > 8 {
		segments = append(segments[:8], "...")
	}
	for i, segment := range segments {
		if !isID(segment) {
			segments[i] = e.h.Secrets.Excerpt(segment)
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
