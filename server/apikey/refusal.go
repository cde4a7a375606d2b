package apikey

import (
	"net/http"
	"slices"
	"strings"
)

// HTTPStatus returns the status that a failure of kind k has over HTTP. Few reasons have
// one of their own, which the REST API knows.
func (k Kind) HTTPStatus() int {
	switch k {
	case KindInvalid, KindFailedPrecondition, KindOutOfRange:
		return http.StatusBadRequest
	case KindUnauthenticated:
		return http.StatusUnauthorized
	case KindPermissionDenied:
		return http.StatusForbidden
	case KindNotFound:
		return http.StatusNotFound
	case KindConflict, KindAlreadyExists:
		return http.StatusConflict
	case KindExhausted:
		return http.StatusTooManyRequests
	case KindUnavailable:
		return http.StatusServiceUnavailable
	case KindInternal:
		return http.StatusInternalServerError
	default:
		return http.StatusInternalServerError
	}
}

// Refusal returns what whoever presented the secret is told, where scopes were asked of
// its key: the kind of the failure, and so its status, its reason and its sentence. It is
// nil where the secret is good. Everything that lets a secret in or not answers by it:
// calls of this server, gateways, and the middlewares of clients.
func (v *Verification) Refusal(scopes []string) *Error {
	switch v.Code {
	case CodeValid:
		return nil
	case CodeInsufficientScope:
		return Refusal(v.Code, slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool {
			return v.Key != nil && v.Key.Scopes.Has(scope) && !IsOperatorScope(scope)
		})...)
	case CodeRateLimited:
		err := Errorf(KindExhausted, ReasonRateLimited,
			"The API key is over its rate limit of %d requests; wait before trying again.", v.Limit.Limit)
		err.RetryAfter = v.RetryAfter
		return err
	case CodeQuotaExceeded:
		err := Errorf(KindExhausted, ReasonQuotaExceeded, "The API key has used up its quota of %d.", v.Quota.Limit)
		err.RetryAfter = v.RetryAfter // zero where it does not refill
		return err
	default:
		return Refusal(v.Code)
	}
}

// Refusal returns what a caller is told whose credential was refused with a code that is
// not of a limit, for which it lacks the scopes lacking.
func Refusal(code Code, lacking ...string) *Error {
	switch code {
	case CodeWrongOrganization:
		return Errorf(KindPermissionDenied, ReasonWrongOrganization,
			"The credential acts in its own organizations only; leave X-Organization-Id out, or name one of them.")
	case CodeIPNotAllowed:
		return Errorf(KindPermissionDenied, ReasonIPNotAllowed, "The credential may not be used from this address.")
	case CodeInsufficientScope:
		return errInsufficientScope(lacking)
	default:
		return ErrBadCredential()
	}
}

// ErrCostTooHigh is what a holder is told where a request costs more than the limits of
// the key ever allow at once: no waiting helps.
var ErrCostTooHigh = Errorf(KindExhausted, ReasonRateLimited, "The request costs more than the limits of the API key ever allow.")

// MaxCost is the highest cost of a verification.
const MaxCost = 1_000_000

// Admit returns the rights of whoever called a method with the secret that was
// verified, or what the caller is told who may not.
func (v *Verification) Admit(asked *Requirement) (Rights, error) {
	switch err := v.Refusal(asked.Scopes); {
	case err != nil:
		return Rights{}, err
	case v.Previous && asked.CurrentSecret:
		return Rights{}, ErrPreviousSecret()
	}
	return v.Rights(), nil
}

// ErrBadCredential returns the one answer for a credential that proves nothing,
// whatever the cause is.
func ErrBadCredential() *Error {
	return Errorf(KindUnauthenticated, ReasonUnauthenticated, "The credential is not valid.")
}

func errInsufficientScope(scopes []string) *Error {
	return Errorf(KindPermissionDenied, ReasonInsufficientScope, "The credential lacks the scope %s.", strings.Join(scopes, ", "))
}

// ErrPreviousSecret returns what a caller with a previous secret is told of a call
// that needs the current one.
func ErrPreviousSecret() *Error {
	return Errorf(KindPermissionDenied, ReasonPreviousSecret,
		"This was called with a previous secret, which may neither update nor rotate the credential that it is of, nor make or change a webhook, nor replay events; call with the current one.")
}
