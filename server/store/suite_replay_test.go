package store_test

import (
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

type apiEvent = apikey.EventType

var replayTests = map[string]func(*testing.T, *fixture){
	"PositionBefore":  testPositionBefore,
	"Replay":          testReplay,
	"ReplayPieces":    testReplayBatches,
	"ReplayTogether":  testReplayTogether,
	"ReplayIsRefused": testReplayIsRefused,
}

// The two ways to choose.
func everything(*webhook.Delivery) bool   { return true }
func onlyFailed(d *webhook.Delivery) bool { return d != nil && d.State == webhook.StateFailed }

func (f *fixture) replay(t *testing.T, id string, after, last int64, limit int, choose func(*webhook.Delivery) bool) store.Replay {
	t.Helper()
	f.fanOut(t)
	batch, err := f.ReplayEvents(t.Context(), operator, org, id, after, last, limit, choose)
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

func testPositionBefore(t *testing.T, f *fixture) {
	begin := f.clock.Now()
	for i := range 10 {
		f.create(t, label(i))
		if i%3 == 2 { // 1 2 3, 4 5 6, 7 8 9, 10
			f.clock.Advance(time.Minute)
		}
	}
	check := func(times map[time.Duration]int64) {
		t.Helper()
		for after, want := range times {
			if got, err := f.PositionBefore(t.Context(), begin.Add(after).Truncate(time.Microsecond)); got != want || err != nil {
				t.Errorf("before %v: %d, %v, want %d", after, got, err, want)
			}
		}
	}
	check(map[time.Duration]int64{-time.Hour: 0, 0: 0, time.Second: 3, time.Minute: 3, time.Minute + time.Second: 6, 3 * time.Minute: 9, time.Hour: 10})
	if _, err := f.DeleteEventsBefore(t.Context(), begin.Add(time.Second), 100); err != nil {
		t.Fatal(err)
	}
	check(map[time.Duration]int64{-time.Hour: 3, time.Minute: 3, 2 * time.Minute: 6, time.Hour: 10})
	if at, err := f.TimeAt(t.Context(), 4); err != nil || !at.Equal(begin.Add(time.Minute).Truncate(time.Microsecond)) {
		t.Errorf("time of 4: %v, %v", at, err)
	}
	if _, err := f.DeleteEventsBefore(t.Context(), begin.Add(time.Hour), 100); err != nil {
		t.Fatal(err)
	}
	check(map[time.Duration]int64{0: 10, time.Hour: 10})
}

func testReplay(t *testing.T, f *fixture) {
	f.create(t, label(1)) // 1: before the webhook
	w := f.hook(t, nil)   // 2
	f.create(t, label(2)) // 3: delivered
	f.create(t, label(3)) // 4: fails for good
	f.create(t, label(4)) // 5: waits
	f.create(t, func(k *apikey.Key) { k.OrganizationID = "org_other" })
	f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
	for range 3 {
		f.settleOne(t, w.ID, failed)
		f.clock.Advance(2 * time.Hour)
		f.execute(t, "UPDATE deliveries SET due_at = due_at + 36000000000 WHERE event_position = 5 AND due_at < 9000000000000000")
	}
	f.wantDeliveries(t, w.ID, webhook.StateDelivered, webhook.StateFailed, webhook.StatePending)
	position, err := f.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := f.deliveryIDs(t)
	var due []string
	f.OnCommit(func(c store.Commit) { due = append(due, c.Due...) })

	wantSame(t, "only failed", store.Replay{Matched: 1, Queued: 1, Last: position}, f.replay(t, w.ID, 0, position, 100, onlyFailed))
	f.wantDeliveries(t, w.ID, webhook.StateDelivered, webhook.StatePending, webhook.StatePending)
	wantSame(t, "due", []string{w.ID}, due)
	d := f.deliveries(t, store.DeliveryFilter{WebhookID: w.ID})[1]
	if d.Trigger != webhook.TriggerReplay || d.Failures != 0 || d.Attempts != 3 || !d.NextAttemptAt.Equal(f.clock.stored()) {
		t.Errorf("opened again: %+v", d.Delivery)
	}
	wantSame(t, "only failed again", store.Replay{Last: position}, f.replay(t, w.ID, 0, position, 100, onlyFailed))

	wantSame(t, "all", store.Replay{Matched: 4, Queued: 2, Last: position}, f.replay(t, w.ID, 0, position, 100, everything))
	f.wantDeliveries(t, w.ID, webhook.StatePending, webhook.StatePending, webhook.StatePending, webhook.StatePending)
	wantSame(t, "those that were there keep their ids", ids, f.deliveryIDs(t)[1:])
	wantSame(t, "in the order of the events", []string{"api_key.created key 1", "api_key.created key 2", "api_key.created key 3", "api_key.created key 4"}, f.about(t, w.ID))
	wantSame(t, "all again", store.Replay{Matched: 4, Last: position}, f.replay(t, w.ID, 0, position, 100, everything))
	f.wantEvents(t, position) // A replay is no event.
	if claims, _ := f.claim(t, "a", 8, w.ID); len(claims) != 3 {
		t.Errorf("%d of 4 can be taken, one waits for its time", len(claims))
	}
}

// testReplayBatches goes through the log in batches of a few events: whatever the
// size, every event is looked at once.
func testReplayBatches(t *testing.T, f *fixture) {
	for i := range 7 {
		f.create(t, label(i))
		f.create(t, func(k *apikey.Key) { k.OrganizationID = "org_other" })
	}
	for size := range 8 {
		w := f.hook(t, nil)
		matched, after := 0, int64(2)
		for after < 12 {
			batch := f.replay(t, w.ID, after, 12, size+1, everything)
			if batch.Last <= after {
				t.Fatalf("from %d to %d", after, batch.Last)
			}
			matched, after = matched+batch.Matched, batch.Last
		}
		if matched != 5 || len(f.about(t, w.ID)) != 5 || after != 12 {
			t.Errorf("in batches of %d: %d matched, %d there", size+1, matched, len(f.about(t, w.ID)))
		}
	}
}

// testReplayTogether has several replay the same events at a time: each delivery
// is made once, and nobody's change dies of it.
func testReplayTogether(t *testing.T, f *fixture) {
	f.create(t, label(1))
	w := f.hook(t, nil)
	replaying := func() error {
		_, err := f.ReplayEvents(t.Context(), operator, org, w.ID, 0, 100, 10, everything)
		return err
	}
	for i, err := range f.together(t, replaying, f.creating(t, label(2)), replaying, f.refused, replaying) {
		if (err != nil) != (i == 3) {
			t.Errorf("member %d: %v", i, err)
		}
	}
	wantSame(t, "deliveries", []string{"api_key.created key 1", "api_key.created key 2"}, f.about(t, w.ID))
}

func testReplayIsRefused(t *testing.T, f *fixture) {
	f.create(t, nil)
	w := f.hook(t, nil)
	f.changeHook(t, w.ID, func(w *webhook.Webhook) { w.Enabled = false })
	_, err := f.ReplayEvents(t.Context(), operator, org, w.ID, 0, 1, 10, everything)
	if e := apikey.AsError(err); e == nil || e.Reason != webhook.ReasonWebhookDisabled {
		t.Errorf("of a disabled one: %v", err)
	}
	if list := f.deliveries(t, store.DeliveryFilter{}); len(list) != 0 {
		t.Errorf("made %v", list)
	}
}
