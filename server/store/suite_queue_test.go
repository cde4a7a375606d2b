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
	"ClaimAfterLoss":     testClaimAfterLoss,
	"ClaimUnreadable":    testClaimUnreadable,
	"Settle":             testSettle,
	"SettleLostLease":    testSettleLostLease,
	"SettleUnderChanges": testSettleUnderChanges,
	"Release":            testRelease,
	"Backlog":            testBacklog,
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
	claims, next, err := f.Claim(t.Context(), picks, lease, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range claims {
		if c.Lease != lease || c.Delivery.WebhookID != c.Webhook.ID || c.Delivery.State != webhook.StatePending {
			t.Errorf("claimed %+v", c)
		}
		if c.Event != nil && c.Event.ID != c.Delivery.EventID { // A copy has no event.
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
	settled, err := f.Settle(t.Context(), []webhook.Result{r}, hookRules, steady)
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
	wantSame(t, "its webhook", open(w), open(*claims[0].Webhook))
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
				claims, _, err := f.Claim(context.Background(), []webhook.Pick{{WebhookID: w.ID, Max: 3}}, fmt.Sprint(i), time.Minute)
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
	if _, err := f.ChangeDelivery(t.Context(), operator, org, id, func(d *webhook.Delivery, _ *webhook.Webhook, now time.Time) error {
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
	want := 2
	if f.Shared() {
		want = 0 // Another server may be alive, and have them under way.
	}
	claims, next := f.claim(t, "new", 8, w.ID)
	if len(claims) != want {
		t.Errorf("%d claims after the death, want %d", len(claims), want)
	}
	if f.Shared() {
		f.clock.Advance(time.Hour)
		claims, next = f.claim(t, "new", 8, w.ID)
		if len(claims) != 3 {
			t.Errorf("%d claims after the leases", len(claims))
		}
		wantSame(t, "nothing waits", map[string]time.Time{}, next)
		return
	}
	wantSame(t, "what waits keeps its time", map[string]time.Time{w.ID: retried}, next)
}

// A database that has lost the newest part of its log gives its positions to other
// events, and the versions of its webhooks to other changes: what is claimed is what is
// there now.
func testClaimAfterLoss(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	k := f.create(t, nil)
	first, _ := f.claim(t, "first", 1, w.ID)
	if len(first) != 1 {
		t.Fatalf("%d claims", len(first))
	}
	if err := f.Release(t.Context(), "first", []string{first[0].Delivery.ID}); err != nil {
		t.Fatal(err)
	}
	const another = "event_0190ffff-ffff-7fff-8fff-ffffffffffff"
	for _, statement := range []string{
		"UPDATE events SET event_id = '" + another + "', resource_id = 'api_key_another' WHERE resource_id = '" + k.ID + "'",
		"UPDATE deliveries SET event_id = '" + another + "', resource_id = 'api_key_another'",
		"UPDATE webhooks SET url = 'https://another.example.com'",
	} {
		f.execute(t, statement)
	}
	f.Forget()
	claims, _ := f.claim(t, "second", 1, w.ID)
	if len(claims) != 1 || claims[0].Event == nil || claims[0].Event.ID != another || claims[0].Event.ResourceID != "api_key_another" {
		t.Fatalf("claimed %+v", claims)
	}
	if url := claims[0].Webhook.URL; url != "https://another.example.com" {
		t.Errorf("the webhook leads to %s", url)
	}
	// Nor does it take a call of Forget for events, of which each claim can be sure.
	if err := f.Release(t.Context(), "second", []string{claims[0].Delivery.ID}); err != nil {
		t.Fatal(err)
	}
	f.execute(t, "UPDATE events SET event_id = '"+first[0].Event.ID+"' WHERE event_id = '"+another+"'")
	f.execute(t, "UPDATE deliveries SET event_id = '"+first[0].Event.ID+"'")
	f.claim(t, "third", 1, w.ID)
}
