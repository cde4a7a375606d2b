package apikey

import "time"

// Code is the outcome of a verification.
type Code string

// The outcomes, in the order in which they are checked: the first check that
// fails is the answer.
const (
	CodeMalformed         Code = "malformed"
	CodeNotFound          Code = "not_found"
	CodeRevoked           Code = "revoked"
	CodeDisabled          Code = "disabled"
	CodeExpired           Code = "expired"
	CodeWrongOrganization Code = "wrong_organization" // of a caller's own key; VerifyApiKey never says it
	CodeIPNotAllowed      Code = "ip_not_allowed"
	CodeInsufficientScope Code = "insufficient_scope"
	CodeRateLimited       Code = "rate_limited"
	CodeQuotaExceeded     Code = "quota_exceeded"
	CodeValid             Code = "valid"
)

// Verification is what is known of a secret that was presented.
type Verification struct {
	Code Code
	// Key is the key that the secret belongs to, or nil where the one who asks is
	// not told of any. It is shared: it must not be changed.
	Key *Key
	// Encoded is what an answer says of the key that stays while the key does not
	// change, as whoever made the cache encodes it; empty where that was not asked for.
	Encoded string
	// Usage is the key's with this verification counted.
	Usage Usage
	// Limit is what is left of the key's rate limit; its zero value means that the
	// key has none.
	Limit LimitStatus
	// Quota is what is left of the key's quota; its zero value means that the key
	// has none.
	Quota QuotaStatus
	// Previous reports that the secret is the one before the last rotation.
	Previous bool
	// RetryAfter is how long to wait after CodeRateLimited, and after
	// CodeQuotaExceeded where the quota is refilled.
	RetryAfter time.Duration
	// At is when the key was checked; the zero time where none was found.
	At time.Time
}

// QuotaStatus is what is left of a quota.
type QuotaStatus struct {
	Limit, Remaining int64
	// RefillAt is when it is full again; the zero time for never of itself.
	RefillAt time.Time
}

// LimitStatus is what is left of a rate limit.
type LimitStatus struct {
	Limit, Remaining int
	// ResetAt is when the whole burst is there again.
	ResetAt time.Time
}
