package webhook

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

var (
	failed       = Outcome{Status: 500, Failure: Failure{ClassHTTPStatus, "The endpoint answered 500 Internal Server Error."}}
	gone         = Outcome{Status: 410, Failure: Failure{ClassHTTPStatus, "The endpoint answered 410 Gone."}}
	acknowledged = Outcome{Status: 200}
)

func testDelivery() Delivery {
	w := testWebhook()
	d := NewDelivery(&w, &apikey.Event{ID: "event_1", Type: apikey.KeyCreated, ResourceID: "api_key_1"}, TriggerSchedule, testNow)
	d.ID = "delivery_1"
	return d
}

// A delivery that always fails goes through its schedule and ends.
func TestScheduleOfADelivery(t *testing.T) {
	d, now := testDelivery(), testNow
	b := Backoff{Rand: func() float64 { return 0.5 }}
	attempts := 0
	for d.State == StatePending {
		if attempts++; attempts > 20 {
			t.Fatal("no end")
		}
		now = d.NextAttemptAt
		a := d.Settle(failed, d.Trigger, now, b, now.Add(time.Second))
		if a.Number != attempts || a.Trigger != TriggerSchedule || a.Duration != time.Second {
			t.Errorf("attempt %+v", a)
		}
		if d.State == StatePending && d.NextAttemptAt.Sub(now) != time.Second+d.Delay {
			t.Errorf("due at %v with a delay of %v", d.NextAttemptAt, d.Delay)
		}
	}
	if d.State != StateFailed || attempts != 12 || d.Retries() != 11 || !d.NextAttemptAt.IsZero() || !d.FirstSentAt.Equal(testNow) {
		t.Errorf("after %d attempts: %+v", attempts, d)
	}
	w := testWebhook()
	if err := d.Retry(&w, TriggerReplay, now); err != nil || d.State != StatePending || d.Failures != 0 || d.Trigger != TriggerReplay {
		t.Errorf("opened again: %v, %+v", err, d)
	}
}

func TestAcknowledged(t *testing.T) {
	d := testDelivery()
	d.Settle(failed, TriggerSchedule, testNow, Backoff{}, testNow)
	a := d.Settle(acknowledged, TriggerSchedule, testNow, Backoff{}, testNow)
	if d.State != StateDelivered || a.Number != 2 || !d.NextAttemptAt.IsZero() || d.Trigger != "" || d.Retries() != 1 {
		t.Errorf("got %+v", d)
	}
}

func TestRetryAfterMovesADelivery(t *testing.T) {
	d, busy := testDelivery(), failed
	busy.RetryAfter = time.Hour
	d.Settle(busy, TriggerSchedule, testNow, Backoff{}, testNow)
	if got := d.NextAttemptAt.Sub(testNow); got != time.Hour {
		t.Errorf("due after %v", got)
	}
}

// What happened to a delivery while an attempt was under way stays.
func TestChangedWhileUnderWay(t *testing.T) {
	later := testNow.Add(time.Second)
	w := testWebhook()
	d := testDelivery()
	if err := d.Retry(&w, TriggerRetry, later); err != nil {
		t.Fatal(err)
	}
	d.Settle(failed, TriggerSchedule, testNow, Backoff{}, later.Add(time.Second))
	if d.State != StatePending || !d.NextAttemptAt.Equal(later) || d.Trigger != TriggerRetry {
		t.Errorf("retried: %+v", d)
	}
	d = testDelivery()
	d.Cancel(later)
	d.Settle(failed, TriggerSchedule, testNow, Backoff{}, later)
	if d.State != StateCancelled || !d.NextAttemptAt.IsZero() {
		t.Errorf("cancelled: %+v", d)
	}
	d.Settle(acknowledged, TriggerSchedule, testNow, Backoff{}, later)
	if d.State != StateDelivered {
		t.Errorf("acknowledged after all: %+v", d)
	}
}

func TestRetryAndCancel(t *testing.T) {
	w := testWebhook()
	for _, state := range []DeliveryState{StatePending, StateDelivered, StateFailed, StateCancelled} {
		d := testDelivery()
		d.State, d.Failures = state, 3
		if err := d.Retry(&w, TriggerRetry, testNow); err != nil || d.State != StatePending || !d.NextAttemptAt.Equal(testNow) {
			t.Errorf("retry of %s: %v", state, err)
		}
		if want := map[bool]int{true: 3, false: 0}[state == StatePending]; d.Failures != want {
			t.Errorf("retry of %s: %d failures", state, d.Failures)
		}
		d = testDelivery()
		d.State = state
		changed, err := d.Cancel(testNow)
		if changed != (state == StatePending) || (err == nil) != (state == StatePending || state == StateCancelled) {
			t.Errorf("cancel of %s: %v, %v", state, changed, err)
		}
		if e := apikey.AsError(err); err != nil && (e == nil || e.Kind != apikey.KindFailedPrecondition || e.Reason != ReasonNotPending) {
			t.Errorf("cancel of %s: %v", state, err)
		}
	}
	w.Enabled = false
	d := testDelivery()
	if e := apikey.AsError(d.Retry(&w, TriggerRetry, testNow)); e == nil || e.Reason != ReasonWebhookDisabled {
		t.Errorf("retry while disabled: %v", e)
	}
}

func TestHealth(t *testing.T) {
	const day = 24 * time.Hour
	type step struct {
		after    time.Duration
		outcome  Outcome
		failures int // in a row, of the delivery
		want     []apikey.EventType
	}
	failing, disabled := []apikey.EventType{WebhookFailing}, []apikey.EventType{WebhookDisabled}
	cases := []struct {
		name   string
		steps  []step
		reason DisabledReason
	}{
		{"gone", []step{{0, gone, 1, disabled}}, DisabledGone},
		{"three in a row", []step{{0, failed, 1, nil}, {1, failed, 2, nil}, {2, failed, 3, nil}}, ""},
		{"four in a row, once", []step{{0, failed, 4, failing}, {1, failed, 5, nil}, {2, failed, 4, nil}}, ""},
		{"four of four deliveries", []step{{0, failed, 1, nil}, {1, failed, 1, nil}, {2, failed, 1, nil}, {3, failed, 1, nil}}, ""},
		{"again in the next spell", []step{{0, failed, 4, failing}, {1, acknowledged, 0, nil}, {2, failed, 4, failing}}, ""},
		{"five days", []step{{0, failed, 4, failing}, {5*day - 1, failed, 5, nil}, {5 * day, failed, 6, disabled}}, DisabledFailing},
		{"five days with a success", []step{{0, failed, 4, failing}, {4 * day, acknowledged, 0, nil}, {5 * day, failed, 1, nil}}, ""},
		{"warned before", []step{{0, failed, 1, nil}, {6 * day, failed, 1, nil}, {6*day + 1, failed, 4, []apikey.EventType{WebhookFailing, WebhookDisabled}}}, DisabledFailing},
		{"nothing after the end", []step{{0, gone, 1, disabled}, {1, gone, 2, nil}}, DisabledGone},
	}
	for _, c := range cases {
		w := testWebhook()
		for i, s := range c.steps {
			now := testNow.Add(s.after)
			var got []apikey.EventType
			if s.outcome.Acknowledged() {
				if !(Rules{}).AttemptSucceeded(&w) {
					t.Errorf("%s: step %d ended no spell", c.name, i)
				}
			} else {
				got = Rules{}.AttemptFailed(&w, &Delivery{Failures: s.failures}, &Attempt{StartedAt: now, Outcome: s.outcome}, now)
			}
			if !slices.Equal(got, s.want) {
				t.Errorf("%s: step %d: %v, want %v", c.name, i, got, s.want)
			}
		}
		if w.DisabledReason != c.reason || w.Enabled != (c.reason == "") {
			t.Errorf("%s: %v, %q", c.name, w.Enabled, w.DisabledReason)
		}
		// Enabling begins anew.
		if err := (Rules{}).Update(&w, Patch{[]string{"enabled", "url", "headers"}, Webhook{Enabled: true, URL: "https://new.example/"}}); err != nil {
			t.Fatal(err)
		}
		if w.Health != (Health{}) || w.DisabledReason != "" || (Rules{}).AttemptSucceeded(&w) {
			t.Errorf("%s: after enabling: %+v", c.name, w.Health)
		}
	}
	w := testWebhook()
	w.UpdatedAt = testNow.Add(time.Second)
	if got := (Rules{}).AttemptFailed(&w, &Delivery{Failures: 9}, &Attempt{StartedAt: testNow, Outcome: gone}, w.UpdatedAt); got != nil || !w.Enabled {
		t.Errorf("an attempt at the old url disabled the new one: %v", got)
	}
}

// Whatever happens to a delivery, what only a pending one has goes with it, and
// counters only grow.
func TestDeliveryInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, d, now := testWebhook(), testDelivery(), testNow
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 1e9).Draw(t, "wait")))
			attempts, wasDelivered := d.Attempts, d.State == StateDelivered
			switch step := rapid.IntRange(0, 4).Draw(t, "step"); step {
			case 0:
				if err := d.Retry(&w, TriggerRetry, now); err != nil {
					t.Fatal(err)
				}
				wasDelivered = false
			case 1:
				d.Cancel(now)
			case 2:
				d.Settle(acknowledged, TriggerRetry, now, Backoff{}, now)
			default:
				d.Settle(failed, TriggerRetry, now, Backoff{}, now)
			}
			waits := !d.NextAttemptAt.IsZero() && d.Trigger != ""
			if waits != (d.State == StatePending) || d.Attempts < attempts || wasDelivered && d.State != StateDelivered {
				t.Fatalf("got %+v", d)
			}
		}
	})
}
