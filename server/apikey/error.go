package apikey

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind is the class of a failure; each transport has one table that turns kinds
// into its codes.
type Kind int

// The kinds of failure. The zero Kind is an unexpected one.
const (
	KindInternal           Kind = iota
	KindInvalid                 // the request is wrong whatever the state is
	KindFailedPrecondition      // the resource's state forbids it
	KindOutOfRange              // a position that is no longer kept
	KindUnauthenticated         // no credential, or a bad one
	KindPermissionDenied        // the caller may not
	KindNotFound                // unknown to this caller
	KindConflict                // something else came first: another change, or one that is not over
	KindAlreadyExists           // what is asked for is there already, or as many of it as may be
	KindExhausted               // a limit; RetryAfter says when to come back
	KindUnavailable             // not now: the caller may try again
)

// Reason is the stable, machine-readable name of a failure that a client can
// see (google.rpc.ErrorInfo.reason).
type Reason string

// The reasons that the rules of this package give. The transports add those of
// their own layer.
const (
	ReasonInvalidArgument   Reason = "INVALID_ARGUMENT"
	ReasonUnauthenticated   Reason = "UNAUTHENTICATED"
	ReasonPermissionDenied  Reason = "PERMISSION_DENIED"
	ReasonWrongOrganization Reason = "WRONG_ORGANIZATION"
	ReasonIPNotAllowed      Reason = "IP_NOT_ALLOWED"
	ReasonInsufficientScope Reason = "INSUFFICIENT_SCOPE"
	ReasonRateLimited       Reason = "RATE_LIMITED"
	ReasonQuotaExceeded     Reason = "QUOTA_EXCEEDED"
	ReasonExceedsCaller     Reason = "EXCEEDS_CALLER"
	ReasonOwnLimits         Reason = "OWN_LIMITS"
	ReasonPreviousSecret    Reason = "PREVIOUS_SECRET"
	ReasonNotFound          Reason = "API_KEY_NOT_FOUND"
	ReasonRevoked           Reason = "API_KEY_REVOKED"
	ReasonExpired           Reason = "API_KEY_EXPIRED"
	ReasonNoKeyFormat       Reason = "NO_KEY_FORMAT"
	ReasonTooManyKeys       Reason = "TOO_MANY_KEYS"
	ReasonExternalIDTaken   Reason = "EXTERNAL_ID_TAKEN"
	ReasonETagMismatch      Reason = "ETAG_MISMATCH"
	ReasonRotating          Reason = "ROTATION_IN_PROGRESS"
	ReasonUnavailable       Reason = "UNAVAILABLE"
	ReasonInternal          Reason = "INTERNAL"

	ReasonKeyReused   Reason = "IDEMPOTENCY_KEY_REUSED"
	ReasonKeyInUse    Reason = "IDEMPOTENCY_IN_PROGRESS"
	ReasonAnswerLimit Reason = "IDEMPOTENCY_LIMIT"

	ReasonTooLarge   Reason = "REQUEST_TOO_LARGE"
	ReasonIncomplete Reason = "INCOMPLETE_BODY"
)

// FieldProblem says what is wrong with one field, in words that end the
// sentence "<field> ...".
type FieldProblem struct {
	Field   string
	Problem string
}

// Error is a failure that a caller is told of. Every other error is unexpected:
// its text goes to the log and the caller reads one fixed sentence.
type Error struct {
	Kind    Kind
	Reason  Reason
	Message string // a sentence a person can act on
	// Fields are the faulty fields of a KindInvalid.
	Fields []FieldProblem
	// RetryAfter is how long to wait before the same call can succeed. Zero means that
	// waiting does not help or that the time is unknown; of a KindUnavailable it means
	// a second.
	RetryAfter time.Duration
	// Details are further facts for machines, under keys of lower_snake form.
	Details map[string]string
}

// Error returns the message or, where there are any, every faulty field.
func (e *Error) Error() string {
	if len(e.Fields) == 0 {
		return e.Message
	}
	problems := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		problems[i] = f.Field + " " + f.Problem
	}
	return strings.Join(problems, "; ")
}

// Errorf returns an Error with a formatted message.
func Errorf(kind Kind, reason Reason, format string, args ...any) *Error {
	return &Error{Kind: kind, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// InvalidField returns the Error of one faulty field.
func InvalidField(field, format string, args ...any) *Error {
	return InvalidFields([]FieldProblem{{field, fmt.Sprintf(format, args...)}})
}

// MaxFields is how many faulty fields one answer names. A request can hold a
// hundred thousand, and over gRPC they come in a header, which has a bound.
const MaxFields = 64

// InvalidFields returns the Error of all faulty fields, or nil where there are
// none. A field is named once, with the first of its problems, and the elements of
// a list that is refused as a whole are not named.
func InvalidFields(problems []FieldProblem) *Error {
	if len(problems) == 0 {
		return nil
	}
	named := make(map[string]bool, len(problems))
	var fields []FieldProblem
	for _, p := range problems {
		if list, _, isElement := strings.Cut(p.Field, "["); isElement && named[list] {
			continue
		}
		if !named[p.Field] && len(fields) < MaxFields {
			fields = append(fields, p)
		}
		named[p.Field] = true
	}
	message := fields[0].Field + " " + fields[0].Problem
	switch n := len(named) - 1; {
	case n == 0:
		message += "."
	case n == 1:
		message += "; 1 more field is not valid."
	case n >= MaxFields-1: // whoever reads a request stops to collect them
		message += fmt.Sprintf("; at least %d more fields are not valid.", MaxFields-1)
	default:
		message += fmt.Sprintf("; %d more fields are not valid.", n)
	}
	return &Error{Kind: KindInvalid, Reason: ReasonInvalidArgument, Message: message, Fields: fields}
}

// ErrNotFound is the answer for a key that does not exist, and for one that the
// caller may not know of: the words are the same.
var ErrNotFound = Errorf(KindNotFound, ReasonNotFound, "There is no API key with this id.")

// ErrExternalIDTaken returns the answer for a key whose external_id is that of another
// key of its organization, which has id.
func ErrExternalIDTaken(id string) *Error {
	e := Errorf(KindAlreadyExists, ReasonExternalIDTaken, "The API key %s has this external_id already; choose another.", id)
	e.Details = map[string]string{"api_key_id": id}
	return e
}

// AsError returns the Error in err's chain, or nil.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return nil
}

// What the transports have in common.
const (
	// ErrorDomain is the domain of every google.rpc.ErrorInfo.
	ErrorDomain = "apikeys"
	// MaxRequest bounds a request in bytes: a message over gRPC, a body over REST.
	MaxRequest = 1 << 20
	// MaxPage bounds the rows of a page of a list in bytes: as JSON, which is the larger
	// of the two forms, and as they are read from storage. A client of gRPC takes 4 MiB
	// unless it is told otherwise.
	MaxPage = 1 << 20
)

// ErrAnswersUnread refuses the requests of a caller who does not read the answers.
var ErrAnswersUnread = &Error{
	Kind: KindExhausted, Reason: "ANSWERS_UNREAD", RetryAfter: 10 * time.Second,
	Message: "Too many requests and answers of this caller are under way; finish them before sending more.",
}
