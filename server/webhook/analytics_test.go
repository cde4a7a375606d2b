package webhook

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestAnalyze adds counts up.
func TestAnalyze(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 1, 0, 0, 0, time.UTC)
	counts := DeliveryCounts{
		Hours: []HourOfDeliveries{
			{Start: at, Event: "a", Made: 2, Delivered: 1, Attempted: 1, Delay: time.Second},
			{Start: at, Event: "b", Made: 3, Delivered: 1, Failed: 1, Cancelled: 1, Attempted: 3, Retried: 2, Delay: 2 * time.Second},
			{Start: at.Add(time.Hour), Event: "b", Made: 1, Attempted: 1, Retried: 1},
			{Start: at.Add(time.Hour), Event: "c", Made: 1},
		},
		Delays: []DelayCount{{time.Second, 1}, {2 * time.Second, 1}},
	}
	want := Analytics{
		Totals: map[DeliveryState]int64{StatePending: 3, StateFailed: 1, StateDelivered: 2, StateCancelled: 1},
		Hours: map[time.Time]map[DeliveryState]int64{
			at:                {StatePending: 1, StateFailed: 1, StateDelivered: 2, StateCancelled: 1},
			at.Add(time.Hour): {StatePending: 2, StateFailed: 0, StateDelivered: 0, StateCancelled: 0},
		},
		Attempted: 5, Retried: 3,
		MeanDelay: 1500 * time.Millisecond, P99Delay: 2500 * time.Millisecond,
		Events: []EventDeliveries{{"b", 4}, {"a", 2}},
	}
	if diff := cmp.Diff(want, counts.Analyze(2)); diff != "" {
		t.Errorf("analytics (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(Analytics{Totals: map[DeliveryState]int64{}, Hours: map[time.Time]map[DeliveryState]int64{}}, (&DeliveryCounts{}).Analyze(2)); diff != "" {
		t.Errorf("analytics of nothing (-want +got)\n%s", diff)
	}
}

// TestP99Delay looks for what 99 of 100 delays stay below.
func TestP99Delay(t *testing.T) {
	t.Parallel()
	const us = time.Microsecond
	for _, c := range []struct {
		delays []DelayCount
		want   time.Duration
	}{
		{[]DelayCount{{1000 * us, 1}}, 1200 * us},   // all below, too
		{[]DelayCount{{1000 * us, 100}}, 1188 * us}, // 99 of 100 parts of the way
		{[]DelayCount{{1000 * us, 99}, {9000 * us, 1}}, 1200 * us},
		{[]DelayCount{{1000 * us, 98}, {9000 * us, 2}}, 9500 * us},
		{[]DelayCount{{3500 * us, 1}}, 4000 * us},
		{[]DelayCount{{18 * time.Second, 1}}, 20 * time.Second},
		{[]DelayCount{{45 * time.Second, 1}}, 50 * time.Second},
		{[]DelayCount{{90 * time.Second, 1}}, 100 * time.Second},
	} {
		if got := p99(c.delays); got != c.want {
			t.Errorf("of %v: %v, want %v", c.delays, got, c.want)
		}
	}
}
