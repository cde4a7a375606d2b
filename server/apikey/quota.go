package apikey

import "time"

// Refill is when a quota is full again of itself.
type Refill string

// The refills. Each happens at 00:00 UTC.
const (
	RefillNone    Refill = "none"
	RefillDaily   Refill = "daily"
	RefillMonthly Refill = "monthly"
)

// FullQuota as the Remaining of a quota that is asked for means its whole limit.
const FullQuota int64 = -1

// Quota is a budget that calls spend. The zero Quota limits nothing.
type Quota struct {
	Limit int64
	// Remaining is what is left of the period that began at RefilledAt, as it is
	// stored: what servers have reserved of it is not in it.
	Remaining int64
	Refill    Refill
	// RefillDay is the day of the month of a monthly refill, 1 to 31; in a month
	// that has no such day it is the last one. Zero for every other refill.
	RefillDay int
	// RefilledAt is when the period began; the zero time where there are none. A
	// clock that was wrong can have put it into the future: At puts that right.
	RefilledAt time.Time
	// Epoch names the setting of the quota: a change of it, which sets what is
	// left, begins a new one, and what was reserved before is void. It ascends.
	Epoch int64
}

// PeriodStart returns the start of the period that now lies in, the zero time
// for a quota that is never refilled.
func (q *Quota) PeriodStart(now time.Time) time.Time {
	year, month, day := now.UTC().Date()
	switch q.Refill {
	case RefillDaily:
		return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	case RefillMonthly:
		if start := dayOfMonth(year, month, q.RefillDay); !start.After(now) {
			return start
		}
		return dayOfMonth(year, month-1, q.RefillDay)
	case RefillNone:
	}
	return time.Time{}
}

// NextRefill returns the first refill after the period that is kept, the zero
// time where there is none.
func (q *Quota) NextRefill() time.Time { return q.refillAfter(q.RefilledAt) }

// refillAfter returns the first refill after t, the zero time where there is none.
func (q *Quota) refillAfter(t time.Time) time.Time {
	year, month, day := t.UTC().Date()
	switch q.Refill {
	case RefillDaily:
		return time.Date(year, month, day+1, 0, 0, 0, 0, time.UTC)
	case RefillMonthly:
		if start := dayOfMonth(year, month, q.RefillDay); start.After(t) {
			return start
		}
		return dayOfMonth(year, month+1, q.RefillDay)
	case RefillNone:
	}
	return time.Time{}
}

// At returns the quota as it is at now: full again if a refill has come since. A
// clock that was set back refills nothing, so that no period is granted twice
// while it is less than a period behind the latest time it has shown.
//
// A period that begins after the next one cannot be explained like that: a clock
// was wrong, and waiting for the time that it showed could mean years without a
// refill. What is left then is what is left of the period of now, and the next
// refill comes in its time.
func (q Quota) At(now time.Time) Quota {
	q = q.refilled(now)
	if start := q.PeriodStart(now); q.RefilledAt.After(q.refillAfter(start)) {
		q.RefilledAt = start
	}
	return q
}

// refilled returns the quota with a refill that has come since, and nothing else
// put right: passing time is no change of a quota, mending it is one.
func (q Quota) refilled(now time.Time) Quota {
	if start := q.PeriodStart(now); start.After(q.RefilledAt) {
		q.Remaining, q.RefilledAt = q.Limit, start
	}
	return q
}

// dayOfMonth returns the start of a day of a month, or of the month's last day
// where it has no such day. The month may be 0 or 13.
func dayOfMonth(year int, month time.Month, day int) time.Time {
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC)
	if day < last.Day() {
		return last.AddDate(0, 0, day-last.Day())
	}
	return last
}

// begin completes a quota that is asked for at now.
func (q *Quota) begin(now time.Time) {
	if *q == (Quota{}) {
		return
	}
	q.complete()
	q.RefilledAt = q.PeriodStart(now)
}

// complete sets the parts that are not asked for.
func (q *Quota) complete() {
	if q.Refill == "" {
		q.Refill = RefillNone
	}
	if q.Refill == RefillMonthly && q.RefillDay == 0 {
		q.RefillDay = 1
	}
	if q.Remaining == FullQuota {
		q.Remaining = q.Limit
	}
}

// amend makes the quota of an update whole, after the parts that named names
// were set in before. Which parts of the quota an update leaves alone follow those that it
// sets: a lower limit cuts off what is left, and the day of a refill that is not
// monthly any more is dropped. Whoever says what is left says it of the period of
// now, whatever period a wrong clock had begun.
func (q *Quota) amend(before Quota, named func(part string) bool, now time.Time) {
	if !named("refill_day") && q.Refill != RefillMonthly {
		q.RefillDay = 0
	}
	if !named("remaining") {
		q.Remaining = min(q.Remaining, q.Limit)
	}
	q.complete()
	if named("remaining") || q.Refill != before.Refill || q.RefillDay != before.RefillDay {
		q.RefilledAt = q.PeriodStart(now)
	} else {
		q.RefilledAt = before.RefilledAt
	}
}

// problems reports what is wrong with a quota.
func (q *Quota) problems(report func(field, format string, args ...any)) {
	switch {
	case q.Limit < 1 || q.Limit > maxQuota:
		report("quota.limit", "must be 1 to %d", maxQuota)
	case q.Remaining < 0 || q.Remaining > q.Limit:
		report("quota.remaining", "must be 0 to the limit, %d", q.Limit)
	}
	switch {
	case q.Refill != RefillNone && q.Refill != RefillDaily && q.Refill != RefillMonthly:
		report("quota.refill", "must be one of none, daily, monthly")
	case q.Refill == RefillMonthly && (q.RefillDay < 1 || q.RefillDay > 31):
		report("quota.refill_day", "must be 1 to 31")
	case q.Refill != RefillMonthly && q.RefillDay != 0:
		report("quota.refill_day", "is for monthly refills alone")
	}
}

// QuotaAsk asks for units of one key's quota, to be spent by this server.
type QuotaAsk struct {
	KeyID string
	// Quota is the key's as the one who asks knows it: its epoch and its refills.
	Quota Quota
	// Want is how many units calls wait for. More may be given while much is left,
	// and less where not so much is.
	Want int64
}

// QuotaGrant is what was given of a quota.
type QuotaGrant struct {
	// Units are the asker's from now on. Zero where nothing is left.
	Units int64
	// Quota is the key's after it, its Remaining without Units. The zero Quota
	// means that the one who asked knows an older epoch or a key that is gone, and
	// nothing was given.
	Quota Quota
}

// QuotaReturn gives units of a grant back.
type QuotaReturn struct {
	KeyID string
	Units int64
	// Epoch and RefilledAt are those of the grant. Where the key has others by
	// now, the units are void.
	Epoch      int64
	RefilledAt time.Time
}

// The most that a server holds beyond what calls wait for, and which part of
// what is left that may be at most. A crash loses as much.
const (
	maxBlock   = 1024
	blockShare = 16
)

// Block returns how many units to give to someone who wants that many of what
// remains: some more, so that not every call has to ask, which become fewer as
// the budget ends, so that it can be spent to its last unit.
func Block(want, remaining int64) int64 {
	if want >= remaining {
		return remaining
	}
	return want + min((remaining-want)/blockShare, maxBlock)
}
