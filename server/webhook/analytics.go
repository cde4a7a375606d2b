package webhook

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// DeliveryCounts are counts of deliveries by the hours of their events.
type DeliveryCounts struct {
	Hours  []HourOfDeliveries
	Delays []DelayCount // ascending
	URLs   []URLFailures
}

// HourOfDeliveries is what the deliveries of the events of one hour and type came to.
type HourOfDeliveries struct {
	Start                              time.Time
	Event                              apikey.EventType
	Made, Delivered, Failed, Cancelled int64
	// Attempted is how many were attempted, and Retried how many more than once.
	Attempted, Retried int64
	// Delay is the sum of the times from the event to the acknowledgement.
	Delay time.Duration
}

// DelayCount is how many deliveries were acknowledged after Least or more, and before the
// next delay that is counted apart. Delays are counted to two digits: below 20 of them
// apart by 2, below 50 by 5, else by 10, so that no two which are counted together are
// apart by more than a fifth. The first one has all below.
type DelayCount struct {
	Least time.Duration
	Count int64
}

// shortestDelay is the first that is counted apart.
const shortestDelay = time.Millisecond

// bounds returns between which delays those of c are.
func (c DelayCount) bounds() (from, to time.Duration) {
	us := c.Least.Microseconds()
	unit := int64(1)
	for range len(strconv.FormatInt(us, 10)) - 2 {
		unit *= 10
	}
	step := 10 * unit
	switch digits := us / unit; {
	case digits < 20:
		step = 2 * unit
	case digits < 50:
		step = 5 * unit
	}
	to = c.Least + time.Duration(step)*time.Microsecond
	if c.Least <= shortestDelay {
		return 0, to
	}
	return c.Least, to
}

// URLFailures is how often a url failed, which has no query.
type URLFailures struct {
	URL                  string
	Attempts, Deliveries int64
}

// Analytics is what deliveries came to.
type Analytics struct {
	Totals map[DeliveryState]int64
	// Hours are the totals by the hour of the event.
	Hours map[time.Time]map[DeliveryState]int64
	// Attempted is how many were attempted, and Retried how many more than once.
	Attempted, Retried int64
	// MeanDelay and P99Delay are of the times from the event to the acknowledgement; P99Delay
	// is what 99 of 100 stay below, as near as it is counted. Zero where none was delivered.
	MeanDelay, P99Delay time.Duration
	Events              []EventDeliveries // most first
}

// EventDeliveries is how many deliveries there were of events of a type.
type EventDeliveries struct {
	Event      apikey.EventType
	Deliveries int64
}

// Analyze adds counts up. Of events it returns the first most.
func (c *DeliveryCounts) Analyze(most int) Analytics {
	a := Analytics{Totals: make(map[DeliveryState]int64), Hours: make(map[time.Time]map[DeliveryState]int64)}
	events := make(map[apikey.EventType]int64)
	var delay time.Duration
	for i := range c.Hours {
		h := &c.Hours[i]
		hour := a.Hours[h.Start]
		if hour == nil {
			hour = make(map[DeliveryState]int64)
			a.Hours[h.Start] = hour
		}
		for state, n := range map[DeliveryState]int64{
			StateDelivered: h.Delivered, StateFailed: h.Failed, StateCancelled: h.Cancelled, StatePending: h.Made - h.Delivered - h.Failed - h.Cancelled,
		} {
			hour[state] += n
			a.Totals[state] += n
		}
		a.Attempted += h.Attempted
		a.Retried += h.Retried
		delay += h.Delay
		events[h.Event] += h.Made
	}
	if n := a.Totals[StateDelivered]; n > 0 {
		a.MeanDelay, a.P99Delay = delay/time.Duration(n), p99(c.Delays)
	}
	for event, n := range events {
		a.Events = append(a.Events, EventDeliveries{event, n})
	}
	slices.SortFunc(a.Events, func(x, y EventDeliveries) int {
		return cmp.Or(cmp.Compare(y.Deliveries, x.Deliveries), cmp.Compare(x.Event, y.Event))
	})
	a.Events = a.Events[:min(most, len(a.Events))]
	return a
}

// p99 returns what 99 of 100 delays stay below, as if those that are counted together
// were spread evenly.
func p99(delays []DelayCount) time.Duration {
	var all int64
	for _, d := range delays {
		all += d.Count
	}
	rank := (all*99 + 99) / 100
	for _, d := range delays {
		if rank > d.Count {
			rank -= d.Count
			continue
		}
		from, to := d.bounds()
		return from + time.Duration(float64(to-from)*float64(rank)/float64(d.Count))
	}
	return 0
}
