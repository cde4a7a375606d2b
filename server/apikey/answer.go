package apikey

import (
	"strconv"
	"strings"
	"time"
)

// Challenge returns what WWW-Authenticate says of a refusal (RFC 6750, 3) where scopes
// were asked for, "" for nothing.
func (e *Error) Challenge(realm string, scopes []string) string {
	start := `Bearer realm="` + quotable(realm) + `"`
	switch {
	case e == ErrNoCredential, e == ErrNoKey:
		return start
	case e == ErrTwoCredentials:
		return start + `, error="invalid_request", error_description="` + quotable(e.Message) + `"`
	case e.Kind == KindUnauthenticated:
		return start + `, error="invalid_token", error_description="` + quotable(e.Message) + `"`
	case e.Reason == ReasonInsufficientScope:
		return start + `, error="insufficient_scope", error_description="The API key lacks a scope.", scope="` + quotable(strings.Join(scopes, " ")) + `"`
	}
	return ""
}

// quotable returns text as RFC 6750 has it between quotes: any character that may not
// stand there is left out.
func quotable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, text)
}

// LimitFields are the headers that tell of a key's limits. All are empty for a key
// without any.
type LimitFields struct {
	// RateLimit and Policy are RateLimit and RateLimit-Policy, as
	// draft-ietf-httpapi-ratelimit-headers has them: what is left, and what there is.
	RateLimit, Policy string
	// Limit, Remaining and Reset are the older X-RateLimit-Limit and so on, of the rate
	// limit or, without one, of the quota. Reset is in seconds from now, and empty where
	// nothing is refilled.
	Limit, Remaining, Reset string
}

// LimitFields returns the headers that tell of the limits of the key that was verified.
func (v *Verification) LimitFields() (f LimitFields) {
	if v.Key == nil || v.Limit.Limit == 0 && v.Quota.Limit == 0 {
		return f
	}
	left, policy := make([]byte, 0, 64), make([]byte, 0, 64)
	if v.Limit.Limit > 0 {
		left = strconv.AppendInt(append(left, `"rate";r=`...), int64(v.Limit.Remaining), 10)
		left = strconv.AppendInt(append(left, `;t=`...), v.until(v.Limit.ResetAt), 10)
		policy = strconv.AppendInt(append(policy, `"rate";q=`...), int64(v.Limit.Limit), 10)
		policy = strconv.AppendInt(append(policy, `;w=`...), int64(v.Key.RateLimit.WindowSeconds), 10)
	}
	if v.Quota.Limit > 0 {
		if len(left) > 0 {
			left, policy = append(left, ", "...), append(policy, ", "...)
		}
		left = strconv.AppendInt(append(left, `"quota";r=`...), v.Quota.Remaining, 10)
		if !v.Quota.RefillAt.IsZero() {
			left = strconv.AppendInt(append(left, `;t=`...), v.until(v.Quota.RefillAt), 10)
		}
		policy = strconv.AppendInt(append(policy, `"quota";q=`...), v.Quota.Limit, 10)
		if v.Key.Quota.Refill == RefillDaily {
			policy = append(policy, `;w=86400`...)
		}
	}
	f.RateLimit, f.Policy = string(left), string(policy)
	limit, remaining, at := int64(v.Limit.Limit), int64(v.Limit.Remaining), v.Limit.ResetAt
	if limit == 0 {
		limit, remaining, at = v.Quota.Limit, v.Quota.Remaining, v.Quota.RefillAt
	}
	f.Limit, f.Remaining = strconv.FormatInt(limit, 10), strconv.FormatInt(remaining, 10)
	if !at.IsZero() {
		f.Reset = strconv.FormatInt(v.until(at), 10)
	}
	return f
}

// until returns the whole seconds from when the key was checked until a time.
func (v *Verification) until(at time.Time) int64 { return WholeSeconds(at.Sub(v.At)) }

// WholeSeconds returns the whole seconds of a wait: enough of them, and none before none.
func WholeSeconds(wait time.Duration) int64 {
	return max(int64((wait+time.Second-1)/time.Second), 0)
}
