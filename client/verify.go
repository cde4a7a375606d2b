package client

import (
	"context"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Request is what a verification is about: a key, and what it is to be good for.
type Request struct {
	// Key is the secret as the caller of your service sent it. Any text is taken.
	Key string
	// Scopes are what the key must hold, all of them: 100 at most. Empty asks for none.
	Scopes []string
	// Address is the client's. The zero Addr is unknown, so that a key with an
	// ip_allow_list is refused.
	Address netip.Addr
	// Cost is what the request costs of the key's limits. Nil means 1; 0 checks
	// everything and spends and counts nothing, and 1,000,000 is the most.
	Cost *int32
	// UserAgent is the client's program, its header User-Agent. It decides nothing.
	UserAgent string
}

// maxUserAgent bounds what is sent of a client's program.
const maxUserAgent = 1024

// Verification is what the server says of a key.
type Verification struct {
	// Key is the key, with its secret masked; nil where it is unknown.
	Key *apikeysv1.ApiKey
	// RateLimit and Quota are what is left; nil for a key without.
	RateLimit *apikeysv1.RateLimitStatus
	Quota     *apikeysv1.QuotaStatus
	// PreviousSecret says that the secret is the one before the last rotation: its
	// holder still has to take the new one.
	PreviousSecret bool

	limits apikey.LimitFields
}

// Verify asks about a key. The error is nil only where the key is good: it is a
// [*RefusedError] where the key is not, and an [*UnverifiedError] where there was no
// answer within the timeout. What the server cannot answer now is tried again, after as
// long as it asks to wait, while there is time.
//
// A verification that was tried again can have been counted twice.
func (c *Client) Verify(ctx context.Context, q Request) (*Verification, error) {
	key := apikey.BareSecret(strings.TrimSpace(q.Key))
	switch {
	case key == "":
		return nil, withoutKey(apikey.ErrNoKey)
	case len(key) > apikey.MaxSecretLength || !utf8.ValidString(key):
		return nil, withoutKey(apikey.ErrBadCredential())
	}
	req := &apikeysv1.VerifyApiKeyRequest{Key: key, Scopes: q.Scopes, Cost: q.Cost}
	req.UserAgent = strings.ToValidUTF8(q.UserAgent[:min(len(q.UserAgent), maxUserAgent)], "")
	if q.Address.IsValid() {
		req.Ip = q.Address.Unmap().WithZone("").String()
	}
	answer, err := c.ask(ctx, req)
	if err != nil {
		failed := unverified(err)
		if failed.field == "cost" && q.Cost != nil && *q.Cost >= 0 && *q.Cost <= apikey.MaxCost {
			return nil, refused(apikeysv1.VerificationCode_VERIFICATION_CODE_RATE_LIMITED, apikey.ErrCostTooHigh, &Verification{})
		}
		return nil, failed
	}
	v := &Verification{
		Key: answer.GetApiKey(), RateLimit: answer.GetRateLimit(), Quota: answer.GetQuota(), PreviousSecret: answer.GetPreviousSecret(),
	}
	verified := c.verification(answer)
	v.limits = verified.LimitFields()
	if refusal := verified.Refusal(q.Scopes); refusal != nil {
		return nil, refused(answer.GetCode(), refusal, v)
	}
	return v, nil
}

// ask calls, again where that helps.
func (c *Client) ask(ctx context.Context, req *apikeysv1.VerifyApiKeyRequest) (*apikeysv1.VerifyApiKeyResponse, error) {
	deadline := c.now().Add(c.timeout)
	// The call is made as the client: what the context says of other calls is none of it.
	ctx = metadata.NewOutgoingContext(ctx, nil)
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for attempt, delay := 1, shortestRetry; ; attempt, delay = attempt+1, delay*2 {
		answer, err := c.keys.VerifyApiKey(ctx, req)
		if status.Code(err) != codes.Unavailable || attempt == c.attempts {
			return answer, err
		}
		pause := max(jittered(delay, c.random()), RetryAfter(err))
		if c.now().Add(pause).After(deadline) {
			return nil, err
		}
		c.wait(ctx, pause)
		if ctx.Err() != nil {
			return nil, err // It says more than that there is no time left.
		}
	}
}

// codesOf are the outcomes as the rules have them. What is not here is a refusal.
var codesOf = map[apikeysv1.VerificationCode]apikey.Code{
	apikeysv1.VerificationCode_VERIFICATION_CODE_MALFORMED:          apikey.CodeMalformed,
	apikeysv1.VerificationCode_VERIFICATION_CODE_NOT_FOUND:          apikey.CodeNotFound,
	apikeysv1.VerificationCode_VERIFICATION_CODE_REVOKED:            apikey.CodeRevoked,
	apikeysv1.VerificationCode_VERIFICATION_CODE_DISABLED:           apikey.CodeDisabled,
	apikeysv1.VerificationCode_VERIFICATION_CODE_EXPIRED:            apikey.CodeExpired,
	apikeysv1.VerificationCode_VERIFICATION_CODE_IP_NOT_ALLOWED:     apikey.CodeIPNotAllowed,
	apikeysv1.VerificationCode_VERIFICATION_CODE_INSUFFICIENT_SCOPE: apikey.CodeInsufficientScope,
	apikeysv1.VerificationCode_VERIFICATION_CODE_RATE_LIMITED:       apikey.CodeRateLimited,
	apikeysv1.VerificationCode_VERIFICATION_CODE_QUOTA_EXCEEDED:     apikey.CodeQuotaExceeded,
	apikeysv1.VerificationCode_VERIFICATION_CODE_VALID:              apikey.CodeValid,
}

// verification returns an answer as the rules know it.
func (c *Client) verification(answer *apikeysv1.VerifyApiKeyResponse) *apikey.Verification {
	v := &apikey.Verification{Code: codesOf[answer.GetCode()], At: c.now(), Previous: answer.GetPreviousSecret()}
	if v.Code == apikey.CodeValid && !answer.GetValid() {
		v.Code = "" // The two must agree.
	}
	if seconds := answer.RetryAfterSeconds; seconds != nil {
		v.RetryAfter = time.Duration(*seconds) * time.Second
	}
	if key := answer.GetApiKey(); key != nil {
		v.Key = &apikey.Key{Scopes: key.GetScopes()}
		v.Key.RateLimit.WindowSeconds = int(key.GetRateLimit().GetWindowSeconds())
		if key.GetQuota().GetRefill() == apikeysv1.QuotaRefill_QUOTA_REFILL_DAILY {
			v.Key.Quota.Refill = apikey.RefillDaily
		}
	}
	if l := answer.GetRateLimit(); l != nil {
		v.Limit = apikey.LimitStatus{Limit: int(l.GetLimit()), Remaining: int(l.GetRemaining()), ResetAt: l.GetResetAt().AsTime()}
	}
	if q := answer.GetQuota(); q != nil {
		v.Quota = apikey.QuotaStatus{Limit: q.GetLimit(), Remaining: q.GetRemaining()}
		if q.GetRefillAt() != nil {
			v.Quota.RefillAt = q.GetRefillAt().AsTime()
		}
	}
	return v
}

// details are what the status of a refusal carries for machines.
func details(reason string, wait time.Duration) []protoadapt.MessageV1 {
	all := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: apikey.ErrorDomain}}
	if wait > 0 {
		all = append(all, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	}
	return all
}

type contextKey struct{}

// NewContext returns a context that carries what is known of the caller's key, as the
// middlewares make it. It is for tests of handlers.
func NewContext(ctx context.Context, v *Verification) context.Context {
	return context.WithValue(ctx, contextKey{}, v)
}

// FromContext returns what is known of the key that the request was let in with, nil
// where no middleware has verified any.
func FromContext(ctx context.Context) *Verification {
	v, _ := ctx.Value(contextKey{}).(*Verification)
	return v
}
