package rest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/server/wire"
)

// domain is the one of the ErrorInfo that the gRPC face gives.
const domain = "apikeys"

// statuses are the HTTP codes of the gRPC codes, with the reason of an error
// that brings none. Any other code is 500.
var statuses = map[codes.Code]struct {
	status int
	reason string
}{
	codes.InvalidArgument:    {http.StatusBadRequest, "INVALID_ARGUMENT"},
	codes.FailedPrecondition: {http.StatusBadRequest, "FAILED_PRECONDITION"},
	codes.OutOfRange:         {http.StatusBadRequest, "OUT_OF_RANGE"},
	codes.Unauthenticated:    {http.StatusUnauthorized, "UNAUTHENTICATED"},
	codes.PermissionDenied:   {http.StatusForbidden, "PERMISSION_DENIED"},
	codes.NotFound:           {http.StatusNotFound, "NOT_FOUND"},
	codes.Unimplemented:      {http.StatusNotFound, "ROUTE_NOT_FOUND"},
	codes.Aborted:            {http.StatusConflict, "CONFLICT"},
	codes.ResourceExhausted:  {http.StatusTooManyRequests, "RESOURCE_EXHAUSTED"},
	codes.Unavailable:        {http.StatusServiceUnavailable, "UNAVAILABLE"},
	codes.Canceled:           {http.StatusServiceUnavailable, "CANCELLED"}, // the client has gone, or we are stopping
	codes.DeadlineExceeded:   {http.StatusGatewayTimeout, "DEADLINE_EXCEEDED"},
}

// failureOf translates an error.
func (c *call) failureOf(err error) *failure {
	var f *failure
	var fields *wire.FieldsError
	var syntax *wire.SyntaxError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &fields):
		return &failure{status: http.StatusBadRequest, reason: "INVALID_ARGUMENT", text: summary(fields.Problems), fields: fields.Problems}
	case errors.As(err, &syntax):
		text := syntax.Error()
		return &failure{status: http.StatusBadRequest, reason: "MALFORMED_JSON", text: strings.ToUpper(text[:1]) + text[1:] + "."}
	}
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	f = c.failureOfStatus(st)
	if f.supportID == "" {
		f.cause = err
	}
	return f
}

// summary is a sentence about problems that the validator lists.
func summary(problems []wire.Problem) string {
	first := problems[0].Field + " " + problems[0].Text
	switch n := len(problems) - 1; n {
	case 0:
		return first + "."
	case 1:
		return first + "; 1 more field is not valid."
	default:
		return fmt.Sprintf("%s; %d more fields are not valid.", first, n)
	}
}

// failureOfStatus translates a gRPC status. Only one with an ErrorInfo of ours
// has words that are meant for the caller; the text of any other may say what
// is none of its business.
func (c *call) failureOfStatus(st *status.Status) *failure {
	row, ok := statuses[st.Code()]
	if !ok {
		row.status, row.reason = http.StatusInternalServerError, "INTERNAL"
	}
	f := &failure{status: row.status}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == domain {
				f.reason, f.facts, f.text = d.GetReason(), d.GetMetadata(), st.Message()
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				f.fields = append(f.fields, wire.Problem{Field: c.fieldName(v.GetField()), Text: v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			f.retryAfter = d.GetRetryDelay().AsDuration()
		case *errdetails.RequestInfo:
			f.requestID, f.supportID = d.GetRequestId(), d.GetServingData()
		}
	}
	if f.reason == "REQUEST_TOO_LARGE" && st.Code() == codes.ResourceExhausted {
		f.status = http.StatusRequestEntityTooLarge
	}
	if f.reason == "" {
		f.reason, f.facts, f.fields = row.reason, nil, nil
	}
	return f
}

// fieldName is a field of a request message as REST callers know it: a patch
// has no level for the resource.
func (c *call) fieldName(name string) string {
	if c.route == nil || c.route.match == nil {
		return name
	}
	return strings.TrimPrefix(name, c.route.resource)
}
