package client

import (
	"errors"
	"net/http"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// RefusedError says that a key may not do what was asked.
type RefusedError struct {
	// Code is the outcome of the verification. It is VERIFICATION_CODE_MALFORMED for a
	// request without a key, or with two, about which nobody was asked. It is for your
	// own log: the client learns less from Reason, which is the same for every key that
	// is not good.
	Code apikeysv1.VerificationCode
	// Status is the HTTP status: 401, 403 or 429.
	Status int
	// Reason and Message are what the holder is told: a stable name and a sentence.
	Reason, Message string
	// RetryAfter is how long to wait after 429; zero where waiting does not help.
	RetryAfter time.Duration
	// Verification is the whole answer. Its Key is nil where the key is unknown.
	Verification *Verification

	cause *apikey.Error
}

// Error returns the sentence that the holder is told.
func (e *RefusedError) Error() string { return e.Message }

// Challenge returns the value of WWW-Authenticate (RFC 6750, 3), "" for none: for 429, and
// for an error that no client made.
func (e *RefusedError) Challenge(realm string, scopes ...string) string {
	if e.cause == nil {
		return ""
	}
	return e.cause.Challenge(realm, scopes)
}

// GRPCStatus returns the status for a gRPC caller, so that an interceptor can return
// the error as it is.
func (e *RefusedError) GRPCStatus() *status.Status {
	st := status.New(grpcCode(e.Status), e.Message)
	if detailed, err := st.WithDetails(details(e.Reason, e.RetryAfter)...); err == nil {
		st = detailed
	}
	return st
}

// UnverifiedError says that there was no answer about a key, so that nobody is let in:
// the server is out of reach, or refused the client's own token.
type UnverifiedError struct {
	// Code is the gRPC code of the call.
	Code codes.Code
	// Reason is the server's name of the failure, "" where the server did not answer.
	Reason string
	// Message is the server's sentence, or what happened on the way.
	Message string
	// SupportID is under what the server's log has more.
	SupportID string
	// RetryAfter is how long the server asks to wait; zero if it does not.
	RetryAfter time.Duration

	field string // the first that the server found faulty
	cause error
}

// Error returns one line for a log. It holds neither the key nor the token.
func (e *UnverifiedError) Error() string {
	line := "verify: " + e.Message
	if e.Reason != "" {
		line += " (" + e.Reason
		if e.SupportID != "" {
			line += ", " + e.SupportID
		}
		line += ")"
	}
	return line
}

// Unwrap returns the error of gRPC.
func (e *UnverifiedError) Unwrap() error { return e.cause }

// GRPCStatus returns the status for a gRPC caller: UNAVAILABLE, whatever the cause is.
func (e *UnverifiedError) GRPCStatus() *status.Status {
	st := status.New(codes.Unavailable, unavailable)
	if detailed, err := st.WithDetails(details(string(apikey.ReasonUnavailable), max(e.RetryAfter, time.Second))...); err == nil {
		st = detailed
	}
	return st
}

// unavailable is what the caller of a service is told while no key can be verified.
const unavailable = "The key could not be checked; try again."

// refused returns the error of a refusal.
func refused(code apikeysv1.VerificationCode, cause *apikey.Error, v *Verification) *RefusedError {
	return &RefusedError{
		Code: code, Status: cause.Kind.HTTPStatus(), Reason: string(cause.Reason), Message: cause.Message,
		RetryAfter: cause.RetryAfter, Verification: v, cause: cause,
	}
}

// withoutKey returns the error of a request that carries no key, or two.
func withoutKey(err error) *RefusedError {
	cause := apikey.ErrBadCredential()
	_ = errors.As(err, &cause)
	return refused(apikeysv1.VerificationCode_VERIFICATION_CODE_MALFORMED, cause, &Verification{})
}

// unverified returns the error of a call that failed.
func unverified(err error) *UnverifiedError {
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	e := &UnverifiedError{Code: st.Code(), Message: st.Message(), RetryAfter: RetryAfter(st.Err()), cause: err}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == apikey.ErrorDomain {
				e.Reason = d.GetReason()
			}
		case *errdetails.BadRequest:
			if violations := d.GetFieldViolations(); len(violations) > 0 {
				e.field = violations[0].GetField()
			}
		case *errdetails.RequestInfo:
			e.SupportID = d.GetServingData()
		}
	}
	return e
}

func grpcCode(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	default:
		return codes.Unauthenticated
	}
}
