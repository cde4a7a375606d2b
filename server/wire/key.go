package wire

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The words of the domain and the numbers of the protos, in both directions.
var (
	stateEnum = map[apikey.State]apikeysv1.ApiKeyState{
		apikey.StateActive:   apikeysv1.ApiKeyState_API_KEY_STATE_ACTIVE,
		apikey.StateDisabled: apikeysv1.ApiKeyState_API_KEY_STATE_DISABLED,
		apikey.StateExpired:  apikeysv1.ApiKeyState_API_KEY_STATE_EXPIRED,
		apikey.StateRevoked:  apikeysv1.ApiKeyState_API_KEY_STATE_REVOKED,
	}
	modeEnum = map[apikey.Mode]apikeysv1.ApiKeyMode{
		apikey.ModeLive: apikeysv1.ApiKeyMode_API_KEY_MODE_LIVE,
		apikey.ModeTest: apikeysv1.ApiKeyMode_API_KEY_MODE_TEST,
	}
	reasonEnum = map[apikey.RevokeReason]apikeysv1.RevokeReason{
		apikey.RevokeUnspecified:        apikeysv1.RevokeReason_REVOKE_REASON_UNSPECIFIED,
		apikey.RevokeKeyCompromise:      apikeysv1.RevokeReason_REVOKE_REASON_KEY_COMPROMISE,
		apikey.RevokeSuperseded:         apikeysv1.RevokeReason_REVOKE_REASON_SUPERSEDED,
		apikey.RevokeNoLongerNeeded:     apikeysv1.RevokeReason_REVOKE_REASON_NO_LONGER_NEEDED,
		apikey.RevokePrivilegeWithdrawn: apikeysv1.RevokeReason_REVOKE_REASON_PRIVILEGE_WITHDRAWN,
	}
	codeEnum = map[apikey.Code]apikeysv1.VerificationCode{
		apikey.CodeMalformed:         apikeysv1.VerificationCode_VERIFICATION_CODE_MALFORMED,
		apikey.CodeNotFound:          apikeysv1.VerificationCode_VERIFICATION_CODE_NOT_FOUND,
		apikey.CodeRevoked:           apikeysv1.VerificationCode_VERIFICATION_CODE_REVOKED,
		apikey.CodeDisabled:          apikeysv1.VerificationCode_VERIFICATION_CODE_DISABLED,
		apikey.CodeExpired:           apikeysv1.VerificationCode_VERIFICATION_CODE_EXPIRED,
		apikey.CodeIPNotAllowed:      apikeysv1.VerificationCode_VERIFICATION_CODE_IP_NOT_ALLOWED,
		apikey.CodeInsufficientScope: apikeysv1.VerificationCode_VERIFICATION_CODE_INSUFFICIENT_SCOPE,
		apikey.CodeRateLimited:       apikeysv1.VerificationCode_VERIFICATION_CODE_RATE_LIMITED,
		apikey.CodeQuotaExceeded:     apikeysv1.VerificationCode_VERIFICATION_CODE_QUOTA_EXCEEDED,
		apikey.CodeValid:             apikeysv1.VerificationCode_VERIFICATION_CODE_VALID,
	}

	stateWord  = inverse(stateEnum)
	modeWord   = inverse(modeEnum)
	reasonWord = inverse(reasonEnum)
)

func inverse[K, V comparable](m map[K]V) map[V]K {
	inv := make(map[V]K, len(m))
	for k, v := range m {
		inv[v] = k
	}
	return inv
}

// State returns the word of a state; the unspecified one has none.
func State(e apikeysv1.ApiKeyState) apikey.State { return stateWord[e] }

// Mode returns the word of a mode; the unspecified one has none.
func Mode(e apikeysv1.ApiKeyMode) apikey.Mode { return modeWord[e] }

// RevokeReason returns the word of a reason.
func RevokeReason(e apikeysv1.RevokeReason) apikey.RevokeReason { return reasonWord[e] }

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
		Mode:           modeEnum[k.Mode],
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
		m.RevokeReason = reasonEnum[k.RevokeReason].Enum()
	}
	return m
}

// completeKey sets what time and use change of the message of k. The encoder has the
// same fields once more.
func completeKey(m *apikeysv1.ApiKey, k *apikey.Key, used *apikey.Usage, now time.Time) {
	m.State = stateEnum[k.State(now)]
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
		Code:           codeEnum[v.Code],
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
