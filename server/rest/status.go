package rest

import (
	"cmp"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// statuses are the HTTP codes of the gRPC codes, which are those of the kinds of
// failures, with the reason of an error that brings none. Any other code is 500.
var statuses = map[codes.Code]struct {
	status int
	reason string
}{
	codes.InvalidArgument:    {apikey.KindInvalid.HTTPStatus(), "INVALID_ARGUMENT"},
	codes.FailedPrecondition: {apikey.KindFailedPrecondition.HTTPStatus(), "FAILED_PRECONDITION"},
	codes.OutOfRange:         {apikey.KindOutOfRange.HTTPStatus(), "OUT_OF_RANGE"},
	codes.Unauthenticated:    {apikey.KindUnauthenticated.HTTPStatus(), "UNAUTHENTICATED"},
	codes.PermissionDenied:   {apikey.KindPermissionDenied.HTTPStatus(), "PERMISSION_DENIED"},
	codes.NotFound:           {apikey.KindNotFound.HTTPStatus(), "NOT_FOUND"},
	codes.Unimplemented:      {http.StatusNotFound, "ROUTE_NOT_FOUND"},
	codes.Aborted:            {apikey.KindConflict.HTTPStatus(), "CONFLICT"},
	codes.AlreadyExists:      {apikey.KindAlreadyExists.HTTPStatus(), "ALREADY_EXISTS"},
	codes.ResourceExhausted:  {apikey.KindExhausted.HTTPStatus(), "RESOURCE_EXHAUSTED"},
	codes.Unavailable:        {apikey.KindUnavailable.HTTPStatus(), "UNAVAILABLE"},
	codes.Canceled:           {http.StatusServiceUnavailable, reasonCanceled}, // the client has gone, or we are stopping
	codes.DeadlineExceeded:   {http.StatusGatewayTimeout, "DEADLINE_EXCEEDED"},
}

// reasonInternal is the reason of a failure that nobody expected.
const reasonInternal = "INTERNAL"

// reasonCanceled is the reason of a call that its client gave up.
const reasonCanceled = "CANCELLED"

// reasonStatuses are the reasons that HTTP has a code of its own for, whatever
// their gRPC code is.
var reasonStatuses = map[apikey.Reason]int{
	apikey.ReasonTooLarge:  http.StatusRequestEntityTooLarge, // RESOURCE_EXHAUSTED
	reasonNotAcceptable:    http.StatusNotAcceptable,
	reasonUnsupportedType:  http.StatusUnsupportedMediaType,
	apikey.ReasonKeyReused: http.StatusUnprocessableEntity, // FAILED_PRECONDITION
}

// failureOf translates an error.
func (e *exchange) failureOf(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if known := apikey.AsError(err); known != nil { // of a connection without a chain
		return &failure{
			status: cmp.Or(reasonStatuses[known.Reason], http.StatusBadRequest), reason: string(known.Reason),
			text: known.Message, fields: known.Fields, cause: err,
		}
	}
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	f := e.failureOfStatus(st)
	if f.supportID == "" {
		f.cause = err
	}
	return f
}

// failureOfStatus translates a gRPC status. Only one with an ErrorInfo of ours
// has words that are meant for the caller; the text of any other may say what
// is none of its business.
func (e *exchange) failureOfStatus(st *status.Status) *failure {
	row, ok := statuses[st.Code()]
	if !ok {
		row.status, row.reason = http.StatusInternalServerError, reasonInternal
	}
	f := &failure{status: row.status}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == apikey.ErrorDomain {
				f.reason, f.facts, f.text = d.GetReason(), d.GetMetadata(), st.Message()
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				f.fields = append(f.fields, apikey.FieldProblem{Field: e.fieldName(v.GetField()), Problem: v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			f.retryAfter = d.GetRetryDelay().AsDuration()
		case *errdetails.RequestInfo:
			f.requestID, f.supportID = d.GetRequestId(), d.GetServingData()
		}
	}
	f.status = cmp.Or(reasonStatuses[apikey.Reason(f.reason)], f.status)
	if f.reason == "" {
		f.reason, f.facts, f.fields = row.reason, nil, nil
	}
	return f
}

// fieldName is a field of a request message as REST callers know it: a patch
// has no level for the resource.
func (e *exchange) fieldName(name string) string {
	if e.route == nil || e.route.match == nil {
		return name
	}
	return strings.TrimPrefix(name, e.route.resource)
}
