package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

var queueTests = map[string]func(*testing.T, *fixture){
	"Claim":              testClaim,
	"ClaimIsFair":        testClaimIsFair,
	"ClaimOfFew":         testClaimOfFew,
	"ClaimNothing":       testClaimNothing,
	"ClaimOnce":          testClaimOnce,
	"ClaimUnreadable":    testClaimUnreadable,
	"Settle":             testSettle,
	"SettleLostLease":    testSettleLostLease,
	"SettleUnderChanges": testSettleUnderChanges,
	"Release":            testRelease,
	"VoidLeases":         testVoidLeases,
	"CancelIsNoSettle":   testCancelIsNoSettle,
}

var steady = webhook.Backoff{Delays: []time.Duration{time.Minute, time.Hour}, Rand: func() float64 { return 0.5 }}

// failed is what comes of an attempt that an endpoint refused.
var failed = webhook.Outcome{Status: 500, Body: []byte("no"), Failure: webhook.Failure{Class: webhook.ClassHTTPStatus, Message: "The endpoint answered 500."}}

// claim takes up to n deliveries of each webhook for a minute.
func (f *fixture) claim(t *testing.T, lease string, n int, ids ...string) ([]webhook.Claim, map[string]time.Time) {
	t.Helper()
	f.fanOut(t)
	picks := make([]webhook.Pick, len(ids))
	for i, id := range ids {
		picks[i] = webhook.Pick{WebhookID: id, Max: n}
	}
	claims, next, err := f.Claim(t.Context(), picks, lease, f.clock.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range claims {
		if c.Lease != lease || c.Delivery.WebhookID != c.Webhook.ID || c.Delivery.State != webhook.StatePending {
			t.Errorf("claimed %+v", c)
		}
		if c.Event.ID != c.Delivery.EventID && c.Event.ID != "" { // A copy has no event.
			t.Errorf("claimed %s with %s", c.Delivery.EventID, c.Event.ID)
		}
	}
	return claims, next
}

// settle makes an attempt of a second of a claim.
func (f *fixture) settle(t *testing.T, c webhook.Claim, o webhook.Outcome) []webhook.Delivery {
	t.Helper()
	started := f.clock.stored()
	f.clock.Advance(time.Second)
	r := c.Result()
	r.StartedAt, r.EndedAt, r.Outcome = started, f.clock.stored(), o
	settled, err := f.Settle(t.Context(), []webhook.Result{r}, webhook.Rules{}, steady)
	if err != nil {
		t.Fatal(err)
	}
	return settled.Deliveries
}

// settleOne claims and settles the oldest delivery of a webhook.
func (f *fixture) settleOne(t *testing.T, webhookID string, o webhook.Outcome) webhook.Delivery {
	t.Helper()
	claims, _ := f.claim(t, "one", 1, webhookID)
	if len(claims) != 1 {
		t.Fatalf("%d claims", len(claims))
	}
	settled := f.settle(t, claims[0], o)
	if len(settled) != 1 {
		t.Fatalf("%d settled", len(settled))
	}
	return settled[0]
}

// one returns the delivery of the only webhook.
func (f *fixture) one(t *testing.T) webhook.Delivery {
	t.Helper()
	list := f.deliveries(t, store.DeliveryFilter{})
	if len(list) != 1 {
		t.Fatalf("%d deliveries", len(list))
	}
	return list[0].Delivery
}

func (f *fixture) wantDue(t *testing.T, want map[string]time.Time) {
	t.Helper()
	f.fanOut(t)
	got, err := f.Due(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "due", want, got)
}

func testClaim(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	f.wantDue(t, nil)
	for i := range 3 {
		f.clock.Advance(time.Second)
		f.create(t, label(i))
	}
	first := f.deliveries(t, store.DeliveryFilter{})[0].NextAttemptAt
	f.wantDue(t, map[string]time.Time{w.ID: first})
	claims, next := f.claim(t, "a", 2, w.ID)
	if len(claims) != 2 || !claims[0].Delivery.NextAttemptAt.Equal(first) {
		t.Fatalf("claimed %+v", claims)
	}
	wantSame(t, "its webhook", open(w), open(claims[0].Webhook))
	wantSame(t, "next", map[string]time.Time{w.ID: f.clock.stored()}, next)
	claims, next = f.claim(t, "b", 2, w.ID)
	// What is under way may be taken when its lease ends.
	ends := f.clock.stored().Add(time.Minute)
	if len(claims) != 1 {
		t.Errorf("then claimed %+v", claims)
	}
	wantSame(t, "then next", map[string]time.Time{w.ID: ends}, next)
	f.wantDue(t, map[string]time.Time{w.ID: ends})
	f.clock.Advance(time.Minute)
	if claims, next = f.claim(t, "c", 8, w.ID); len(claims) != 3 || len(next) != 0 {
		t.Errorf("after the leases: %d, next %v", len(claims), next)
	}
}

// testClaimIsFair gives one webhook thousands of old deliveries: another's one is
// taken at once.
func testClaimIsFair(t *testing.T, f *fixture) {
	busy := f.hook(t, nil)
	f.create(t, nil)
	if err := f.CopyDeliveries(t.Context(), 5000); err != nil {
		t.Fatal(err)
	}
	f.clock.Advance(time.Hour)
	var ids []string
	for i := range 5 {
		ids = append(ids, f.hook(t, func(w *webhook.Webhook) { w.Label = fmt.Sprint(i) }).ID)
	}
	f.create(t, nil)
	claims, next := f.claim(t, "a", 3, append(ids, busy.ID)...)
	count := make(map[string]int)
	for _, c := range claims {
		count[c.Webhook.ID]++
	}
	for _, id := range ids {
		if count[id] != 1 {
			t.Errorf("%d of webhook %s", count[id], id)
		}
	}
	if count[busy.ID] != 3 || len(next) != 1 || next[busy.ID].IsZero() {
		t.Errorf("%d of the busy one, next %v", count[busy.ID], next)
	}
}

func testClaimOfFew(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	f.create(t, nil)
	if claims, next := f.claim(t, "a", 1, w.ID); len(claims) != 1 || len(next) != 0 {
		t.Errorf("%d claims, next %v", len(claims), next)
	}
}

func testClaimNothing(t *testing.T, f *fixture) {
	disabled := f.hook(t, nil)
	gone := f.hook(t, nil)
	idle := f.hook(t, func(w *webhook.Webhook) { w.Events = []apiEvent{webhook.WebhookFailing} })
	f.create(t, nil)
	f.changeHook(t, disabled.ID, func(w *webhook.Webhook) { w.Enabled = false })
	if err := f.DeleteWebhook(t.Context(), operator, org, gone.ID); err != nil {
		t.Fatal(err)
	}
	f.wantDue(t, nil)
	if claims, next := f.claim(t, "a", 8, disabled.ID, gone.ID, idle.ID, "webhook_1"); len(claims) != 0 || len(next) != 0 {
		t.Errorf("claimed %v, next %v", claims, next)
	}
	// What waited costs nothing, and goes on when the webhook is enabled.
	f.clock.Advance(24 * time.Hour)
	f.changeHook(t, disabled.ID, func(w *webhook.Webhook) { w.Enabled = true })
	claims, _ := f.claim(t, "a", 8, disabled.ID)
	if len(claims) != 1 || claims[0].Delivery.Attempts != 0 {
		t.Errorf("claimed %+v", claims)
	}
}

// testClaimOnce has many take from one webhook at a time: nobody has what another
// has.
func testClaimOnce(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	for range 40 {
		f.create(t, nil)
	}
	var mu sync.Mutex
	taken := make(map[string]int)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for {
				claims, _, err := f.Claim(context.Background(), []webhook.Pick{{WebhookID: w.ID, Max: 3}}, fmt.Sprint(i), f.clock.Now().Add(time.Minute))
				if err != nil {
					t.Error(err)
				}
				if len(claims) == 0 {
					return
				}
				mu.Lock()
				for _, c := range claims {
					taken[c.Delivery.ID]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id, n := range taken {
		if n != 1 {
			t.Errorf("%s was taken %d times", id, n)
		}
	}
	if len(taken) != 40 {
		t.Errorf("%d of 40 were taken", len(taken))
	}
}

// testClaimUnreadable breaks what is sealed of one webhook: it alone waits.
func testClaimUnreadable(t *testing.T, f *fixture) {
	broken, sound := f.hook(t, nil), f.hook(t, nil)
	f.create(t, nil)
	f.execute(t, "UPDATE webhooks SET sealed = 'x' WHERE id = '"+broken.ID+"'")
	claims, next := f.claim(t, "a", 8, broken.ID, sound.ID)
	if len(claims) != 1 || claims[0].Webhook.ID != sound.ID || len(next) != 0 {
		t.Errorf("claimed %+v, next %v", claims, next)
	}
}

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
	_, attempts, err := f.Delivery(t.Context(), org, d.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "attempts", []webhook.Attempt{
		{DeliveryID: d.ID, Number: 1, Trigger: webhook.TriggerSchedule, URL: w.URL, StartedAt: started, Duration: time.Second, Outcome: failed},
		{DeliveryID: d.ID, Number: 2, Trigger: webhook.TriggerSchedule, URL: w.URL, StartedAt: ended.Add(2 * time.Minute), Duration: time.Second, Outcome: webhook.Outcome{Status: 204}},
	}, attempts)
	if got, err := f.Settle(t.Context(), nil, webhook.Rules{}, steady); err != nil || len(got.Deliveries) != 0 {
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
			if err := f.ChangeDelivery(t.Context(), operator, org, claims[0].Delivery.ID, change); err != nil {
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
		settlement, err := f.Settle(t.Context(), []webhook.Result{r}, webhook.Rules{}, steady)
		settled := settlement.Deliveries
		if err != nil || len(settled) != c.settled {
			t.Errorf("%s: settled %+v, %v", name, settled, err)
		}
		got, attempts, err := f.Delivery(t.Context(), org, claims[0].Delivery.ID)
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

func testRelease(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	f.create(t, nil)
	before := f.one(t)
	claims, _ := f.claim(t, "a", 1, w.ID)
	id := claims[0].Delivery.ID
	f.clock.Advance(time.Second)
	if err := f.Release(t.Context(), "b", []string{id}); err != nil {
		t.Fatal(err)
	}
	if claims, _ := f.claim(t, "c", 1, w.ID); len(claims) != 0 {
		t.Errorf("released by another: %+v", claims)
	}
	if err := f.Release(t.Context(), "a", []string{id}); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "as it was", before, f.one(t))
	f.wantDue(t, map[string]time.Time{w.ID: before.NextAttemptAt})
	claims, _ = f.claim(t, "d", 1, w.ID)
	if err := f.ChangeDelivery(t.Context(), operator, org, id, func(d *webhook.Delivery, _ *webhook.Webhook, now time.Time) error {
		_, err := d.Cancel(now)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := f.Release(t.Context(), "d", []string{id, "delivery_1"}); err != nil || len(claims) != 1 {
		t.Fatal(err)
	}
	f.wantDue(t, nil) // It was cancelled, and stays so.
}

func testVoidLeases(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	for range 3 {
		f.create(t, nil)
	}
	f.settleOne(t, w.ID, failed)
	retried := f.deliveries(t, store.DeliveryFilter{})[0].NextAttemptAt
	if claims, _ := f.claim(t, "dead", 8, w.ID); len(claims) != 2 {
		t.Fatalf("%d claims", len(claims))
	}
	if err := f.VoidLeases(t.Context()); err != nil {
		t.Fatal(err)
	}
	claims, next := f.claim(t, "new", 8, w.ID)
	if len(claims) != 2 {
		t.Errorf("%d claims after the death", len(claims))
	}
	wantSame(t, "what waits keeps its time", map[string]time.Time{w.ID: retried}, next)
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
