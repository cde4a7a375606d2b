package store_test

import (
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

func testSettle(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	f.create(t, nil)
	started := f.clock.stored()
	d := f.settleOne(t, w.ID, failed)
	ended := f.clock.stored()
	want := f.deliveries(t, store.DeliveryFilter{})[0]
	wantSame(t, "settled", want.Delivery, d)
	if d.State != webhook.StatePending || d.Attempts != 1 || d.Failures != 1 || !d.NextAttemptAt.Equal(ended.Add(time.Minute)) ||
		d.Delay != time.Minute || !d.FirstSentAt.Equal(started) || d.Trigger != webhook.TriggerSchedule || d.Last.Status != 500 {
		t.Errorf("settled %+v", d)
	}
	f.wantDue(t, map[string]time.Time{w.ID: ended.Add(time.Minute)})
	f.clock.Advance(2 * time.Minute)
	d = f.settleOne(t, w.ID, webhook.Outcome{Status: 204})
	if d.State != webhook.StateDelivered || !d.NextAttemptAt.IsZero() || d.Last.Failure.Class != "" || len(d.Last.Body) != 0 {
		t.Errorf("settled %+v", d)
	}
	f.wantDue(t, nil)
	shown, err := f.Delivery(t.Context(), org, d.ID)
	attempts := shown.Attempts
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "attempts", []webhook.Attempt{
		{DeliveryID: d.ID, Number: 1, Trigger: webhook.TriggerSchedule, URL: w.URL, StartedAt: started, Duration: time.Second, Outcome: failed},
		{DeliveryID: d.ID, Number: 2, Trigger: webhook.TriggerSchedule, URL: w.URL, StartedAt: ended.Add(2 * time.Minute), Duration: time.Second, Outcome: webhook.Outcome{Status: 204}},
	}, attempts)
	if got, err := f.Settle(t.Context(), nil, hookRules, steady); err != nil || len(got.Deliveries) != 0 {
		t.Errorf("nothing settled: %v, %v", got, err)
	}
}

// testSettleLostLease settles what another holds by now, or nobody: it is as if
// the attempt had never been made.
func testSettleLostLease(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	f.create(t, nil)
	lost, _ := f.claim(t, "a", 1, w.ID)
	f.clock.Advance(time.Minute)
	held, _ := f.claim(t, "b", 1, w.ID)
	before := f.one(t)
	if settled := f.settle(t, lost[0], webhook.Outcome{Status: 200}); len(settled) != 0 {
		t.Errorf("settled %+v", settled)
	}
	wantSame(t, "delivery", before, f.one(t))
	if settled := f.settle(t, held[0], failed); len(settled) != 1 || settled[0].Attempts != 1 {
		t.Errorf("the holder settled %+v", settled)
	}
	if settled := f.settle(t, held[0], failed); len(settled) != 0 {
		t.Errorf("settled twice: %+v", settled)
	}
	none := held[0]
	none.Lease = ""
	if settled := f.settle(t, none, failed); len(settled) != 0 {
		t.Errorf("settled without a lease: %+v", settled)
	}
}

// testSettleUnderChanges changes a delivery while its attempt is under way.
func testSettleUnderChanges(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	retry := func(d *webhook.Delivery, w *webhook.Webhook, now time.Time) error {
		return d.Retry(w, webhook.TriggerRetry, now)
	}
	cancel := func(d *webhook.Delivery, _ *webhook.Webhook, now time.Time) error {
		_, err := d.Cancel(now)
		return err
	}
	type rule = func(*webhook.Delivery, *webhook.Webhook, time.Time) error
	for name, c := range map[string]struct {
		changes []rule
		outcome webhook.Outcome
		state   webhook.DeliveryState
		due     bool // at once
		settled int
	}{
		"cancelled, fails":              {[]rule{cancel}, failed, webhook.StateCancelled, false, 1},
		"cancelled, delivered":          {[]rule{cancel}, webhook.Outcome{Status: 200}, webhook.StateDelivered, false, 1},
		"retried, fails":                {[]rule{retry}, failed, webhook.StatePending, true, 1},
		"retried, delivered":            {[]rule{retry}, webhook.Outcome{Status: 200}, webhook.StatePending, true, 1},
		"cancelled, retried, fails":     {[]rule{cancel, retry}, failed, webhook.StatePending, true, 1},
		"cancelled, retried, delivered": {[]rule{cancel, retry}, webhook.Outcome{Status: 200}, webhook.StatePending, true, 1},
		"to and fro":                    {[]rule{cancel, retry, cancel, retry, retry}, webhook.Outcome{Status: 200}, webhook.StatePending, true, 1},
		"to and fro, cancelled":         {[]rule{cancel, retry, cancel}, failed, webhook.StateCancelled, false, 1},
	} {
		f.create(t, nil)
		claims, _ := f.claim(t, name, 1, w.ID)
		started := f.clock.stored()
		f.clock.Advance(time.Second)
		for _, change := range c.changes {
			if _, err := f.ChangeDelivery(t.Context(), operator, org, claims[0].Delivery.ID, change); err != nil {
				t.Fatal(name, err)
			}
		}
		changed := f.clock.stored()
		f.clock.Advance(time.Second)
		// Attempts of one delivery come one after the other.
		if again, _ := f.claim(t, "too soon", 8, w.ID); len(again) != 0 {
			t.Errorf("%s: it was taken while an attempt was under way", name)
		}
		r := claims[0].Result()
		r.StartedAt, r.EndedAt, r.Outcome = started, f.clock.stored(), c.outcome
		settlement, err := f.Settle(t.Context(), []webhook.Result{r}, hookRules, steady)
		settled := settlement.Deliveries
		if err != nil || len(settled) != c.settled {
			t.Errorf("%s: settled %+v, %v", name, settled, err)
		}
		shown, err := f.Delivery(t.Context(), org, claims[0].Delivery.ID)
		got, attempts := shown.DeliveryOf, shown.Attempts
		if err != nil || got.State != c.state || len(attempts) != c.settled {
			t.Errorf("%s: %+v, %d attempts, %v", name, got.Delivery, len(attempts), err)
		}
		var due map[string]time.Time
		if c.due {
			due = map[string]time.Time{w.ID: changed}
		}
		f.wantDue(t, due)
		f.clock.Advance(time.Minute)
		if claims, _ := f.claim(t, "end", 8, w.ID); len(claims) > 0 {
			f.settle(t, claims[0], webhook.Outcome{Status: 200})
		}
	}
}

// testCancelIsNoSettle cancels the deliveries of a webhook that was deleted while
// one is under way and another was acknowledged.
func testCancelIsNoSettle(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	for range 3 {
		f.create(t, nil)
	}
	f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
	claims, _ := f.claim(t, "a", 1, w.ID)
	if err := f.DeleteWebhook(t.Context(), operator, org, w.ID); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 1, 0} {
		if n, err := f.CancelOrphans(t.Context(), 1); n != want || err != nil {
			t.Errorf("cancelled %d, %v, want %d", n, err, want)
		}
	}
	f.wantDeliveries(t, w.ID, webhook.StateDelivered, webhook.StateCancelled, webhook.StateCancelled)
	f.settle(t, claims[0], failed)
	f.wantDeliveries(t, w.ID, webhook.StateDelivered, webhook.StateCancelled, webhook.StateCancelled)
	f.wantDue(t, nil)
}
