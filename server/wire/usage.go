package wire

import (
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// quotaMessage returns the message of q; a key without a quota has none.
func quotaMessage(q *apikey.Quota) *apikeysv1.Quota {
	if q.Limit == 0 {
		return nil
	}
	m := &apikeysv1.Quota{Limit: q.Limit, Remaining: &q.Remaining, Refill: refills.number[q.Refill]}
	if q.RefillDay != 0 {
		day := int32(q.RefillDay)
		m.RefillDay = &day
	}
	return m
}

// quota returns the quota that m asks for; an unset one is the zero Quota. What no
// quota can have stays something that none has, and is never taken for unset.
func quota(m *apikeysv1.Quota) apikey.Quota {
	if m == nil {
		return apikey.Quota{}
	}
	q := apikey.Quota{
		Limit: m.GetLimit(), Remaining: apikey.FullQuota,
		Refill: refills.word[m.GetRefill()], RefillDay: int(m.GetRefillDay()),
	}
	switch {
	case m.GetRefill() == apikeysv1.QuotaRefill_QUOTA_REFILL_UNSPECIFIED:
		q.Refill = apikey.RefillNone
	case q.Refill == "":
		q.Refill = "unknown"
	}
	if m.Remaining != nil {
		q.Remaining = m.GetRemaining()
		if q.Remaining < 0 {
			q.Remaining = apikey.FullQuota - 1
		}
	}
	if m.RefillDay != nil && q.RefillDay == 0 {
		q.RefillDay = -1
	}
	return q
}

// UsageBuckets returns the messages of buckets.
func UsageBuckets(buckets []apikey.Bucket) []*apikeysv1.UsageBucket {
	list := make([]*apikeysv1.UsageBucket, len(buckets))
	for i, b := range buckets {
		counts := UsageCounts(b.Counts)
		list[i] = &apikeysv1.UsageBucket{Start: Timestamp(b.Start), Total: counts.GetTotal(), Codes: counts.GetCodes()}
	}
	return list
}

// UsageCounts returns the message of counts by outcome.
func UsageCounts(counts map[apikey.Code]int64) *apikeysv1.UsageCounts {
	m := &apikeysv1.UsageCounts{Codes: make(map[string]int64, len(counts))}
	for code, n := range counts {
		m.Codes[string(code)] = n
		m.Total += n
	}
	return m
}

// UsageGroup returns the word of a group; the unspecified one stands for organizations.
func UsageGroup(e apikeysv1.UsageGroup) apikey.UsageGroup {
	if e == apikeysv1.UsageGroup_USAGE_GROUP_UNSPECIFIED {
		return apikey.ByOrganization
	}
	return usageGroups.word[e]
}

// UsageGroupMessage returns the number of a group.
func UsageGroupMessage(g apikey.UsageGroup) apikeysv1.UsageGroup { return usageGroups.number[g] }

// UsageGranularity returns the number of a granularity.
func UsageGranularity(g apikey.Granularity) apikeysv1.UsageGranularity {
	if g == apikey.Daily {
		return apikeysv1.UsageGranularity_USAGE_GRANULARITY_DAY
	}
	return apikeysv1.UsageGranularity_USAGE_GRANULARITY_HOUR
}

// UsageRow returns the message of a row of usage.
func UsageRow(group apikey.UsageGroup, r *apikey.UsageRow) *apikeysv1.UsageRow {
	m := &apikeysv1.UsageRow{
		Start: Timestamp(time.UnixMicro(r.Start).UTC()), OrganizationId: r.Organization, Calls: r.Calls, Units: r.Units,
	}
	switch group {
	case apikey.ByKey:
		m.ApiKeyId = r.Name
	case apikey.ByOwner:
		m.OwnerId = r.Name
	case apikey.ByOrganization:
	}
	return m
}
