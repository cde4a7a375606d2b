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

// settle settles an attempt of d that was claimed before it began.
func settle(d *Delivery, o Outcome, trigger Trigger, started time.Time, b Backoff, now time.Time) Attempt {
	r := Result{Outcome: o, Delivery: *d, StartedAt: started, EndedAt: now}
	r.Delivery.Trigger = trigger
	if d.UpdatedAt.After(started) {
		r.Delivery.UpdatedAt = time.Time{}
	}
	return d.Settle(&r, b)
}

func testDelivery() Delivery {
	w := testWebhook()
	d := NewDelivery(&w, &apikey.Event{ID: "event_1", Type: apikey.KeyCreated, ResourceID: "api_key_1"}, TriggerSchedule, testNow)
	d.ID = "delivery_1"
	return d
}

// A delivery that always fails goes through its schedule and ends.
func TestScheduleOfADelivery(t *testing.T) {
	t.Parallel()
	d, now := testDelivery(), testNow
	b := Backoff{Rand: func() float64 { return 0.5 }}
	attempts := 0
	for d.State == StatePending {
		if attempts++; attempts > 20 {
			t.Fatal("no end")
		}
		now = d.NextAttemptAt
		a := settle(&d, failed, d.Trigger, now, b, now.Add(time.Second))
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
	t.Parallel()
	d := testDelivery()
	settle(&d, failed, TriggerSchedule, testNow, Backoff{}, testNow)
	a := settle(&d, acknowledged, TriggerSchedule, testNow, Backoff{}, testNow)
	if d.State != StateDelivered || a.Number != 2 || !d.NextAttemptAt.IsZero() || d.Trigger != "" || d.Retries() != 1 {
		t.Errorf("got %+v", d)
	}
}

func TestRetryAfterMovesADelivery(t *testing.T) {
	t.Parallel()
	d, busy := testDelivery(), failed
	busy.RetryAfter = time.Hour
	settle(&d, busy, TriggerSchedule, testNow, Backoff{}, testNow)
	if got := d.NextAttemptAt.Sub(testNow); got != time.Hour {
		t.Errorf("due after %v", got)
	}
}

// What happened to a delivery while an attempt was under way stays.
func TestChangedWhileUnderWay(t *testing.T) {
	t.Parallel()
	later := testNow.Add(time.Second)
	w := testWebhook()
	d := testDelivery()
	if err := d.Retry(&w, TriggerRetry, later); err != nil {
		t.Fatal(err)
	}
	settle(&d, failed, TriggerSchedule, testNow, Backoff{}, later.Add(time.Second))
	if d.State != StatePending || !d.NextAttemptAt.Equal(later) || d.Trigger != TriggerRetry {
		t.Errorf("retried: %+v", d)
	}
	d = testDelivery()
	if err := d.Retry(&w, TriggerRetry, later); err != nil {
		t.Fatal(err)
	}
	settle(&d, acknowledged, TriggerSchedule, testNow, Backoff{}, later.Add(time.Second))
	if d.State != StatePending || !d.NextAttemptAt.Equal(later) || d.Trigger != TriggerRetry {
		t.Errorf("retried while an attempt was under way that was acknowledged: %+v", d)
	}
	d = testDelivery()
	d.Cancel(later)
	settle(&d, failed, TriggerSchedule, testNow, Backoff{}, later)
	if d.State != StateCancelled || !d.NextAttemptAt.IsZero() {
		t.Errorf("cancelled: %+v", d)
	}
	settle(&d, acknowledged, TriggerSchedule, testNow, Backoff{}, later)
	if d.State != StateDelivered {
		t.Errorf("acknowledged after all: %+v", d)
	}
}

func TestRetryAndCancel(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	const day = 24 * time.Hour
	type step struct {
		after   time.Duration
		outcome Outcome
		state   DeliveryState // that the attempt left
		want    []apikey.EventType
	}
	failing, disabled := []apikey.EventType{WebhookFailing}, []apikey.EventType{WebhookDisabled}
	both := []apikey.EventType{WebhookFailing, WebhookDisabled}
	const wait, end, good = StatePending, StateFailed, StateDelivered
	cases := []struct {
		name   string
		rules  Rules
		steps  []step
		reason DisabledReason
	}{
		{"gone", Rules{DisableAfter: 5 * day}, []step{{0, gone, wait, disabled}}, DisabledGone},
		{"less than two minutes", Rules{DisableAfter: 5 * day}, []step{{0, failed, wait, nil}, {2*time.Minute - 1, failed, wait, nil}}, ""},
		{"two minutes, once", Rules{DisableAfter: 5 * day}, []step{{0, failed, wait, nil}, {2 * time.Minute, failed, wait, failing}, {3 * time.Minute, failed, end, nil}}, ""},
		{"the end of a schedule", Rules{DisableAfter: 5 * day}, []step{{0, failed, wait, nil}, {2 * time.Second, failed, end, failing}}, ""},
		{"again after a success", Rules{DisableAfter: 5 * day}, []step{{0, failed, end, failing}, {1, acknowledged, good, nil}, {2, failed, end, failing}}, ""},
		{"five days", Rules{DisableAfter: 5 * day}, []step{{0, failed, end, failing}, {5*day - 1, failed, wait, nil}, {5 * day, failed, wait, disabled}}, DisabledFailing},
		{"five days with a success", Rules{DisableAfter: 5 * day}, []step{{0, failed, end, failing}, {4 * day, acknowledged, good, nil}, {5 * day, failed, wait, nil}}, ""},
		{"warned before", Rules{DisableAfter: 5 * day}, []step{{0, failed, wait, nil}, {6 * day, failed, wait, both}}, DisabledFailing},
		{"a short limit", Rules{DisableAfter: time.Minute}, []step{{0, failed, wait, nil}, {30 * time.Second, failed, wait, failing}, {time.Minute, failed, wait, disabled}}, DisabledFailing},
		{"nothing after the end", Rules{DisableAfter: 5 * day}, []step{{0, gone, wait, disabled}, {1, gone, wait, nil}}, DisabledGone},
		{"what is our fault", Rules{DisableAfter: 5 * day}, []step{{0, Outcome{Failure: Failure{Class: ClassInternal}}, end, nil}, {6 * day, Outcome{Failure: Failure{Class: ClassEventGone}}, end, nil}}, ""},
	}
	for _, c := range cases {
		w := testWebhook()
		for i, s := range c.steps {
			now := testNow.Add(s.after)
			got := c.rules.RecordAttempt(&w, &Attempt{StartedAt: now, Outcome: s.outcome}, s.state, now)
			if !slices.Equal(got, s.want) {
				t.Errorf("%s: step %d: %v, want %v", c.name, i, got, s.want)
			}
			if want := map[bool]HealthState{true: HealthHealthy, false: HealthFailing}[s.outcome.Acknowledged()]; !s.outcome.Ours() && w.Health.State() != want {
				t.Errorf("%s: step %d: %s, want %s", c.name, i, w.Health.State(), want)
			}
		}
		if w.DisabledReason != c.reason || w.Enabled != (c.reason == "") {
			t.Errorf("%s: %v, %q", c.name, w.Enabled, w.DisabledReason)
		}
		// Enabling begins anew.
		if err := (Rules{}).Update(&w, Patch{[]string{"enabled", "url", "headers"}, Webhook{Enabled: true, URL: "https://new.example/"}}); err != nil {
			t.Fatal(err)
		}
		if w.Health != (Health{}) || w.DisabledReason != "" || w.Health.State() != HealthUnknown {
			t.Errorf("%s: after enabling: %+v", c.name, w.Health)
		}
	}
	w := testWebhook()
	w.UpdatedAt = testNow.Add(time.Second)
	if got := (Rules{}).RecordAttempt(&w, &Attempt{StartedAt: testNow, Outcome: gone}, StatePending, w.UpdatedAt); got != nil || !w.Enabled {
		t.Errorf("an attempt at the old url disabled the new one: %v", got)
	}
}

// Whatever happens to a delivery, what only a pending one has goes with it, and
// counters only grow.
func TestDeliveryInvariants(t *testing.T) {
	t.Parallel()
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
				settle(&d, acknowledged, TriggerRetry, now, Backoff{}, now)
			default:
				settle(&d, failed, TriggerRetry, now, Backoff{}, now)
			}
			waits := !d.NextAttemptAt.IsZero() && d.Trigger != ""
			if waits != (d.State == StatePending) || d.Attempts < attempts || wasDelivered && d.State != StateDelivered {
				t.Fatalf("got %+v", d)
			}
		}
	})
}
