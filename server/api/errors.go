package api

import (
	"context"
	"errors"
	"maps"
	"time"

	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// unexpectedMessage is all that a caller is told of an unexpected error.
const unexpectedMessage = "Something went wrong on our side; the support id names it."

// codeOf is the one table of failures of this API.
var codeOf = map[apikey.Kind]codes.Code{
	apikey.KindInternal:           codes.Internal,
	apikey.KindInvalid:            codes.InvalidArgument,
	apikey.KindFailedPrecondition: codes.FailedPrecondition,
	apikey.KindOutOfRange:         codes.OutOfRange,
	apikey.KindUnauthenticated:    codes.Unauthenticated,
	apikey.KindPermissionDenied:   codes.PermissionDenied,
	apikey.KindNotFound:           codes.NotFound,
	apikey.KindConflict:           codes.Aborted,
	apikey.KindAlreadyExists:      codes.AlreadyExists,
	apikey.KindExhausted:          codes.ResourceExhausted,
	apikey.KindUnavailable:        codes.Unavailable,
	kindDeadline:                  codes.DeadlineExceeded,
	kindCanceled:                  codes.Canceled,
	kindUnimplemented:             codes.Unimplemented,
}

// statusOf returns what the caller of c is told of a failure.
func statusOf(known *apikey.Error, c *call) *status.Status {
	st := status.New(codeOf[known.Kind], known.Message)
	info := &errdetails.ErrorInfo{Reason: string(known.Reason), Domain: apikey.ErrorDomain, Metadata: maps.Clone(known.Details)}
	details := []protoadapt.MessageV1{
		info,
		&errdetails.RequestInfo{RequestId: c.requestID(), ServingData: c.supportID()},
	}
	if len(known.Fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, f := range known.Fields {
			bad.FieldViolations = append(bad.FieldViolations,
				&errdetails.BadRequest_FieldViolation{Field: f.Field, Description: f.Problem})
		}
		details = append(details, bad)
	}
	wait := known.RetryAfter
	if known.Kind == apikey.KindUnavailable {
		wait = max(wait, time.Second) // time is all that helps
	}
	if wait > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	}
	if detailed, err := st.WithDetails(details...); err == nil {
		return detailed
	}
	return st
}

// otherFailure returns the failure of a service that is not ours. It has a status
// alone, whose code is then its reason.
func otherFailure(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	for kind, code := range codeOf {
		switch {
		case code != st.Code():
		case kind == kindCanceled:
			return canceledError
		default:
			return apikey.Errorf(kind, apikey.Reason(rpccode.Code(code).String()), "%s", st.Message())
		}
	}
	return err
}

// knownError returns the failure that err is, as far as the caller of ctx may know
// it. A call that was given up failed for that, whatever noticed it first. One that
// was not, and whose database did not answer, may be made again.
func knownError(ctx context.Context, err error) *apikey.Error {
	known := apikey.AsError(err)
	given := context.Cause(ctx)
	if given != nil && (known == nil || known == canceledError) && !errors.Is(err, errPanic) {
		err, known = given, apikey.AsError(given)
	}
	switch {
	case known != nil:
		return known
	case given == nil && store.Unavailable(err):
		return unavailableError
	case errors.Is(err, context.DeadlineExceeded):
		return deadlineError
	case errors.Is(err, context.Canceled):
		return canceledError
	}
	return internalError
}

// What has no error of the domain.
var (
	internalError = apikey.Errorf(apikey.KindInternal, apikey.ReasonInternal, unexpectedMessage)
	// unavailableError is of a read; a change tells whether it was made.
	unavailableError = apikey.Errorf(apikey.KindUnavailable, apikey.ReasonUnavailable, "The database does not answer; try again.")
	deadlineError    = apikey.Errorf(kindDeadline, "DEADLINE_EXCEEDED", "The call took longer than its deadline.")
	// errStopping ends the streams of a server that stops.
	errStopping = apikey.Errorf(apikey.KindUnavailable, "SERVER_STOPPING",
		"The server is stopping; go on after the last cursor, here or elsewhere.")
	errTooManyCalls = &apikey.Error{
		Kind: apikey.KindExhausted, Reason: "TOO_MANY_CALLS", RetryAfter: time.Second,
		Message: "Too many calls of this caller are under way; wait for their answers before sending more.",
	}
	errUnknownMethod = apikey.Errorf(kindUnimplemented, "ROUTE_NOT_FOUND",
		"There is no such method. Ask for the methods by reflection.")
	canceledError = apikey.Errorf(kindCanceled, "CANCELLED", "The caller gave the call up.")
)

// The kinds that only a transport knows.
const (
	kindDeadline apikey.Kind = -1 - iota
	kindCanceled
	kindUnimplemented
)
