package wire

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Time returns the time of t; an unset one is the zero time.
func Time(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// Timestamp returns the message of t; the zero time is unset.
func Timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// Key returns the message of k as it is at now, its secret masked.
func Key(k *apikey.Key, now time.Time) *apikeysv1.ApiKey {
	m := staticKey(k)
	completeKey(m, k, &k.Usage, now)
	return m
}

// staticKey returns what the message of k says that stays while k does not change:
// all but what [completeKey] sets.
func staticKey(k *apikey.Key) *apikeysv1.ApiKey {
	m := &apikeysv1.ApiKey{
		Id:             k.ID,
		OrganizationId: k.OrganizationID,
		Label:          k.Label,
		Description:    k.Description,
		Secret:         k.Secret.Mask,
		Scopes:         k.Scopes,
		ExpiresAt:      Timestamp(k.ExpiresAt),
		CreatedAt:      Timestamp(k.CreatedAt),
		UpdatedAt:      Timestamp(k.UpdatedAt),
		CreatedBy:      actorMessage(k.CreatedBy),
		Enabled:        k.Enabled,
		Mode:           modes.number[k.Mode],
		KeyFormat:      k.Format,
		OwnerId:        k.OwnerID,
		Metadata:       k.Metadata,
		RevokedAt:      Timestamp(k.RevokedAt),
		Etag:           k.ETag(),
	}
	for _, p := range k.IPAllowList {
		m.IpAllowList = append(m.IpAllowList, apikey.FormatAllowed(p))
	}
	if k.RateLimit != (apikey.RateLimit{}) {
		m.RateLimit = &apikeysv1.RateLimit{
			Requests: int32(k.RateLimit.Requests), WindowSeconds: int32(k.RateLimit.WindowSeconds),
		}
	}
	if !k.RevokedAt.IsZero() {
		m.RevokeReason = revokeReasons.number[k.RevokeReason].Enum()
	}
	return m
}

// completeKey sets what time and use change of the message of k. The encoder has the
// same fields once more.
func completeKey(m *apikeysv1.ApiKey, k *apikey.Key, used *apikey.Usage, now time.Time) {
	m.State = states.number[k.State(now)]
	usePrevious(m, k, used, now)
	m.Metrics = &apikeysv1.ApiKeyMetrics{
		ApiKeyId: k.ID, TotalRequests: used.TotalRequests, LastUsedAt: Timestamp(used.LastUsedAt),
	}
	m.Quota = quotaMessage(&k.Quota)
}

// usePrevious sets what m, the message of k, tells of its previous secret, where
// that works at now.
func usePrevious(m *apikeysv1.ApiKey, k *apikey.Key, usage *apikey.Usage, now time.Time) {
	if !k.PreviousWorks(now) {
		return
	}
	use := k.PreviousUse(usage)
	m.PreviousSecretExpiresAt = Timestamp(k.PreviousExpiresAt)
	m.PreviousSecretLastUsedAt, m.PreviousSecretRequests = Timestamp(use.LastUsedAt), &use.Requests
}

// Verification returns the message of v.
func Verification(v *apikey.Verification) *apikeysv1.VerifyApiKeyResponse {
	m := &apikeysv1.VerifyApiKeyResponse{
		Valid:          v.Code == apikey.CodeValid,
		Code:           codes.number[v.Code],
		PreviousSecret: v.Previous,
	}
	if v.Key != nil {
		m.ApiKey = staticKey(v.Key)
		completeKey(m.ApiKey, v.Key, &v.Usage, v.At)
	}
	if v.Limit.Limit > 0 {
		m.RateLimit = &apikeysv1.RateLimitStatus{
			Limit: int32(v.Limit.Limit), Remaining: int32(v.Limit.Remaining), ResetAt: Timestamp(v.Limit.ResetAt),
		}
	}
	if v.Quota.Limit > 0 {
		m.Quota = &apikeysv1.QuotaStatus{Limit: v.Quota.Limit, Remaining: v.Quota.Remaining, RefillAt: Timestamp(v.Quota.RefillAt)}
		m.ApiKey.Quota.Remaining = &m.Quota.Remaining
	}
	if seconds := retryAfter(v); seconds > 0 {
		m.RetryAfterSeconds = &seconds
	}
	return m
}

// retryAfter returns how many seconds to wait, rounded up; zero where waiting
// would not help.
func retryAfter(v *apikey.Verification) int32 {
	return int32((v.RetryAfter + time.Second - 1) / time.Second)
}
