package apikey

import "time"

// UsageCount is what is to be added to one key's usage or, without a key, to what
// its organization has asked about secrets that belong to none.
type UsageCount struct {
	KeyID          string
	OrganizationID string
	// Count is added to the key's total of valid verifications, and LastUsedAt is
	// the time of the latest; the zero time where there was none.
	Count      int64
	LastUsedAt time.Time
	// IP and UserAgent are from where that latest one was, empty where it is not known.
	IP, UserAgent string
	// Addresses is what was counted of the addresses on the day AddressDay: see
	// [Addresses.Bytes]. Nil where nothing is new.
	Addresses  []byte
	AddressDay int64
	// Previous is added to what the key's previous secret was used, unless a later
	// rotation has ended that secret.
	Previous PreviousUsage
	// Outcomes are what all verifications came to, by hour.
	Outcomes []OutcomeCount
	// Refused is how many uses of the key were refused, and Refusals are the newest of
	// them, oldest first, MaxRefusals at most.
	Refused  int64
	Refusals []RefusedUse
	// Units are what the valid ones cost, by hour and by owner.
	Units []UnitCount
}

// UnitCount is how many valid verifications of one hour there were while the key had an
// owner, and what they cost.
type UnitCount struct {
	Hour         time.Time
	Owner        string
	Calls, Units int64
}

// OutcomeCount is how many verifications of one hour had one outcome.
type OutcomeCount struct {
	Hour  time.Time
	Code  Code
	Count int64
}

// Granularity is the width of the buckets that usage is kept in. Its zero value
// is no granularity.
type Granularity time.Duration

// The granularities. Buckets begin at full hours, and days at 00:00 UTC.
const (
	Hourly = Granularity(time.Hour)
	Daily  = Granularity(24 * time.Hour)
)

// Start returns the start of the bucket that t lies in.
func (g Granularity) Start(t time.Time) time.Time {
	return t.UTC().Truncate(time.Duration(g))
}

// MaxBuckets bounds how many buckets one answer holds.
const MaxBuckets = 1000

// lastYear is the last one that the times of answers can be in.
const lastYear = 9999

// Period is a span of whole buckets: from Since on, before Until.
type Period struct {
	Granularity  Granularity
	Since, Until time.Time
}

// NewPeriod returns the buckets of g that hold any moment from since on and before
// until. A zero until is the end of the bucket of now, a zero since 24 buckets of
// hours or 30 of days before the end. It is an error where that is nothing, or
// more than MaxBuckets, or ends later than an answer can say.
func NewPeriod(g Granularity, since, until, now time.Time) (Period, error) {
	width := time.Duration(g)
	if !until.IsZero() && !since.Before(until) { // buckets would make something of nothing
		return Period{}, InvalidField("since", "must be before until")
	}
	p := Period{Granularity: g, Since: g.Start(since), Until: until}
	if until.IsZero() {
		p.Until = now.Add(1)
	}
	if end := g.Start(p.Until); end.Before(p.Until) {
		p.Until = end.Add(width)
	} else {
		p.Until = end
	}
	if since.IsZero() {
		span := 24 * time.Hour
		if g == Daily {
			span = 30 * 24 * time.Hour
		}
		p.Since = p.Until.Add(-span)
	}
	switch n := p.Until.Sub(p.Since) / width; {
	case n < 1:
		return p, InvalidField("since", "must be before until")
	case n > MaxBuckets:
		return p, InvalidField("since", "must be at most %d hours or days before until", MaxBuckets)
	case p.Until.Year() > lastYear:
		return p, InvalidField("until", "must be before the last hour or day of the year %d", lastYear)
	}
	return p, nil
}

// Parts returns the period in as few buckets as hold all of it: its whole days, and
// the hours before and after them.
func (p Period) Parts() []Period {
	first, last := Daily.Start(p.Since.Add(time.Duration(Daily)-1)), Daily.Start(p.Until)
	if !first.Before(last) {
		return []Period{p}
	}
	var parts []Period
	if p.Since.Before(first) {
		parts = append(parts, Period{p.Granularity, p.Since, first})
	}
	parts = append(parts, Period{Daily, first, last})
	if last.Before(p.Until) {
		parts = append(parts, Period{p.Granularity, last, p.Until})
	}
	return parts
}

// Passed returns how much of the period is over at now.
func (p Period) Passed(now time.Time) time.Duration {
	if now.Before(p.Until) {
		return max(now.Sub(p.Since), 0)
	}
	return p.Until.Sub(p.Since)
}

// Bucket is what verifications came to in one hour or day.
type Bucket struct {
	Start time.Time
	// Counts are by outcome, those that did not occur left out.
	Counts map[Code]int64
}

// Fill returns all buckets of the period in their order, those of found and
// empty ones for the others.
func (p Period) Fill(found []Bucket) []Bucket {
	width := time.Duration(p.Granularity)
	all := make([]Bucket, p.Until.Sub(p.Since)/width)
	for i := range all {
		all[i].Start = p.Since.Add(time.Duration(i) * width)
	}
	for _, b := range found {
		if i := b.Start.Sub(p.Since) / width; i >= 0 && int(i) < len(all) {
			all[i].Counts = b.Counts
		}
	}
	return all
}

// Total returns the sum of buckets by outcome.
func Total(buckets []Bucket) map[Code]int64 {
	total := make(map[Code]int64)
	for _, b := range buckets {
		for code, n := range b.Counts {
			total[code] += n
		}
	}
	return total
}

// KeyUse is how often one key was used.
type KeyUse struct {
	KeyID, Label string
	Count        int64
}

// UsageGroup is what usage is added up by. Its word is stored.
type UsageGroup string

// The groups.
const (
	ByKey          UsageGroup = "api_key_id"
	ByOwner        UsageGroup = "owner_id"
	ByOrganization UsageGroup = "organization_id"
)

// UsagePlace is the place of a row in a list of usage: its start, in microseconds, the
// organization, and the id of the key or of the owner.
type UsagePlace struct {
	Start              int64
	Organization, Name string
}

// UsageRow is what was used in one hour or day.
type UsageRow struct {
	UsagePlace
	Calls, Units int64
}
