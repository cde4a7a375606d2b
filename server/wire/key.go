package wire

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Time returns the time of t as it can be stored and compared; an unset one is the
// zero time. problem says what is wrong with t, "" if nothing is. What cannot be read
// becomes a time that no resource has: an update must not take it for the one that is
// there.
func Time(t *timestamppb.Timestamp) (_ time.Time, problem string) {
	switch {
	case t == nil:
		return time.Time{}, ""
	case !t.IsValid() || t.GetSeconds() < 0:
		return time.Unix(-1, 0), "must be a time of the years 1970 to 9999"
	default:
		return apikey.StoredTime(t.AsTime()), ""
	}
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
	m.LastUse = lastUse(k, now)
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
		ExternalId:     k.ExternalID,
		Metadata:       k.Metadata,
		RevokedAt:      Timestamp(k.RevokedAt),
		Etag:           k.ETag(),
	}
	m.IpAllowList = ranges(k.IPAllowList)
	if k.RateLimit != (apikey.RateLimit{}) {
		m.RateLimit = &apikeysv1.RateLimit{
			Requests: int32(k.RateLimit.Requests), WindowSeconds: int32(k.RateLimit.WindowSeconds),
			Mode: apikeysv1.RateLimitMode_RATE_LIMIT_MODE_LOCAL,
		}
		if k.RateLimit.Exact {
			m.RateLimit.Mode = apikeysv1.RateLimitMode_RATE_LIMIT_MODE_EXACT
		}
	}
	if !k.RevokedAt.IsZero() {
		m.RevokeReason = revokeReasons.number[k.RevokeReason].Enum()
	}
	return m
}

// completeKey sets what time and use change of the message of k. The encoder writes
// the same fields once more, without a message: were one of them made from the other's
// result, each key of a batch, or each single verification, would be encoded and read
// once more. TestAppendVerification finds a field that only one of the two has.
func completeKey(m *apikeysv1.ApiKey, k *apikey.Key, used *apikey.Usage, now time.Time) {
	m.State = states.number[k.State(now)]
	usePrevious(m, k, used, now)
	m.Metrics = &apikeysv1.ApiKeyMetrics{
		ApiKeyId: k.ID, TotalRequests: used.TotalRequests, LastUsedAt: Timestamp(used.LastUsedAt),
	}
	m.Quota = quotaMessage(&k.Quota)
}

// lastUse returns the message of from where k was used last, nil where it never was.
func lastUse(k *apikey.Key, now time.Time) *apikeysv1.ApiKeyLastUse {
	if k.Usage.LastUsedAt.IsZero() {
		return nil
	}
	m := &apikeysv1.ApiKeyLastUse{At: Timestamp(k.Usage.LastUsedAt)}
	if k.LastUse == nil {
		return m
	}
	m.Ip, m.UserAgent = k.LastUse.IP, k.LastUse.UserAgent
	if k.LastUse.AddressDay == apikey.AddressDay(now) {
		m.AddressesToday = k.LastUse.Addresses
	}
	return m
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

// RequestedKey returns the key that a request asks for, in an organization, and what is
// wrong with the fields that no key can have. [apikey.Rules.Create] checks and completes
// the key.
func RequestedKey(r *apikeysv1.CreateApiKeyRequest, organization string) (apikey.Key, []apikey.FieldProblem) {
	k, problems := requestedKey(r)
	k.OrganizationID = organization
	k.Mode = modes.word[r.GetMode()]
	k.Format, k.ExternalID = r.GetKeyFormat(), r.GetExternalId()
	k.Enabled = r.Enabled == nil || r.GetEnabled()
	if r.GetRateLimit() != nil && k.RateLimit == (apikey.RateLimit{}) {
		problems = append(problems, k.RateLimit.Problems()...)
	}
	return k, problems
}

// KeyPatch returns the change that a request for an update asks for, and what is wrong
// with the fields that no key can have.
func KeyPatch(r *apikeysv1.UpdateApiKeyRequest) (apikey.Patch, []apikey.FieldProblem) {
	values, problems := requestedKey(r.GetApiKey())
	values.Enabled = r.GetApiKey().GetEnabled()
	var paths []string
	for _, path := range r.GetUpdateMask().GetPaths() {
		// A limit that is there is told by its parts, so that one of zeros is not
		// taken for none.
		if path == "rate_limit" && r.GetApiKey().GetRateLimit() != nil {
			paths = append(paths, "rate_limit.requests", "rate_limit.window_seconds", "rate_limit.mode")
			continue
		}
		paths = append(paths, path)
	}
	return apikey.Patch{Paths: paths, Values: values}, problems
}

// requestedKey returns the fields that creations and updates have alike.
func requestedKey(m interface {
	GetLabel() string
	GetDescription() string
	GetScopes() []string
	GetIpAllowList() []string
	GetExpiresAt() *timestamppb.Timestamp
	GetOwnerId() string
	GetMetadata() map[string]string
	GetRateLimit() *apikeysv1.RateLimit
	GetQuota() *apikeysv1.Quota
},
) (k apikey.Key, problems []apikey.FieldProblem) {
	k = apikey.Key{
		Label: m.GetLabel(), Description: m.GetDescription(), Scopes: m.GetScopes(), OwnerID: m.GetOwnerId(), Metadata: m.GetMetadata(),
		RateLimit: apikey.RateLimit{
			Requests: int(m.GetRateLimit().GetRequests()), WindowSeconds: int(m.GetRateLimit().GetWindowSeconds()),
			Exact: m.GetRateLimit().GetMode() == apikeysv1.RateLimitMode_RATE_LIMIT_MODE_EXACT,
		},
		Quota: quota(m.GetQuota()),
	}
	k.IPAllowList, problems = allowList(m.GetIpAllowList())
	var problem string
	if k.ExpiresAt, problem = Time(m.GetExpiresAt()); problem != "" {
		problems = append(problems, apikey.FieldProblem{Field: "expires_at", Problem: problem})
	}
	return k, problems
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
