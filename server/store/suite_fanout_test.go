package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

var fanOutTests = map[string]func(*testing.T, *fixture){
	"FanOutHistories":    testFanOutHistories,
	"FanOutPieces":       testFanOutPieces,
	"FanOutOldest":       testFanOutOldest,
	"FanOutLeavesAlone":  testFanOutLeavesAlone,
	"FanOutOfDeleted":    testFanOutOfDeleted,
	"FanOutHasNobody":    testFanOutHasNobody,
	"EventsAreNeeded":    testEventsAreNeeded,
	"ReplayAfterDeleted": testReplayAfterDeleted,
	"CancelWaiting":      testCancelWaiting,
	"ChangesAreHeld":     testChangesAreHeld,
}

// turn is one turn of the fan-out of an organization.
func (f *fixture) turn(tb rapid.TB, organization string, most time.Duration) webhook.FannedOut {
	tb.Helper()
	done, err := f.FanOut(context.Background(), organization, most)
	if err != nil {
		tb.Fatal(err)
	}
	return done
}

// testFanOutOldest tells how far the fan-out is behind.
func testFanOutOldest(t *testing.T, f *fixture) {
	want := func(want time.Time) {
		t.Helper()
		if got, err := f.FanOutOldest(t.Context(), org); err != nil || !got.Equal(want) {
			t.Errorf("behind since %v, %v, want %v", got, err, want)
		}
	}
	if _, err := f.tryCreate(t, t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want(time.Time{}) // Nobody subscribes.
	f.hook(t, nil)
	f.fanOut(t)
	f.clock.Advance(time.Hour)
	began := f.clock.stored()
	for range 2 {
		if _, err := f.tryCreate(t, t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		f.clock.Advance(time.Hour)
	}
	want(began)
	f.fanOut(t)
	want(time.Time{})
}

// testFanOutPieces has turns end in the middle of an event, and die there.
func testFanOutPieces(t *testing.T, f *fixture) {
	const hooks = 80
	for range hooks {
		f.hook(t, nil)
	}
	for range 2 {
		if _, err := f.tryCreate(t, t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int { return len(readRows(t, f.Reader(), "SELECT id FROM deliveries")) }
	for _, want := range []int{50, 100, 150, 160} {
		if err := f.CrashFanOut(t.Context(), org); err != nil {
			t.Fatal(err)
		}
		done := f.turn(t, org, 0)
		if n := count(); n != want || done.More != (n < 2*hooks) {
			t.Errorf("%d deliveries, want %d, %+v", n, want, done)
		}
		if done.More != !done.Oldest.IsZero() || len(done.Due) == 0 || done.Held <= 0 {
			t.Errorf("did %+v", done)
		}
	}
	if done := f.turn(t, org, 0); done.More || done.Idle || len(done.Due) > 0 || count() != 2*hooks {
		t.Errorf("did %+v", done)
	}
}

// testFanOutLeavesAlone replays an event before the fan-out comes to it.
func testFanOutLeavesAlone(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	if _, err := f.tryCreate(t, t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReplayEvents(t.Context(), operator, org, w.ID, 0, 2, 10, everything); err != nil {
		t.Fatal(err)
	}
	claims, _, err := f.Claim(t.Context(), []webhook.Pick{{WebhookID: w.ID, Max: 8}}, "lease", time.Minute)
	if err != nil || len(claims) != 1 {
		t.Fatal(claims, err)
	}
	f.settle(t, claims[0], webhook.Outcome{Status: 200})
	d := f.one(t) // after the fan-out
	if d.State != webhook.StateDelivered || d.ID != claims[0].Delivery.ID {
		t.Errorf("left %+v", d)
	}
}

// testFanOutOfDeleted deletes a webhook before the fan-out comes to its last event.
func testFanOutOfDeleted(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	if _, err := f.tryCreate(t, t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := f.DeleteWebhook(t.Context(), operator, org, w.ID); err != nil {
		t.Fatal(err)
	}
	if d := f.one(t); d.State != webhook.StateCancelled || !d.NextAttemptAt.IsZero() || !d.EndedAt.Equal(f.clock.stored()) {
		t.Errorf("made %+v", d)
	}
	if n, err := f.CancelOrphans(t.Context(), 10); n != 0 || err != nil {
		t.Errorf("cancelled %d, %v", n, err)
	}
}

// testFanOutHasNobody says that an organization without a webhook that is enabled has no
// position, and what it does then goes to nobody.
func testFanOutHasNobody(t *testing.T, f *fixture) {
	f.create(t, nil)
	positions := func() int { return len(readRows(t, f.Reader(), "SELECT * FROM fan_out_positions")) }
	w := f.hook(t, func(w *webhook.Webhook) { w.Enabled = false })
	if n := positions(); n != 0 {
		t.Errorf("%d positions", n)
	}
	enable := func(enabled bool) { f.changeHook(t, w.ID, func(w *webhook.Webhook) { w.Enabled = enabled }) }
	enable(true)
	f.create(t, label(1))
	if n := positions(); n != 1 {
		t.Errorf("%d positions", n)
	}
	enable(false)
	f.create(t, label(2))
	if n := positions(); n != 0 {
		t.Errorf("%d positions", n)
	}
	enable(true)
	f.create(t, label(3))
	wantSame(t, "of it", []string{"api_key.created key 1", "api_key.created key 3"}, f.about(t, w.ID))
	if done := f.turn(t, "org_other", time.Second); !done.Idle {
		t.Errorf("did %+v", done)
	}
}

// testEventsAreNeeded keeps events that the fan-out has not come to.
func testEventsAreNeeded(t *testing.T, f *fixture) {
	f.create(t, nil)
	w := f.hook(t, nil)
	for range 2 {
		if _, err := f.tryCreate(t, t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(want int) {
		t.Helper()
		if n, err := f.DeleteEventsBefore(t.Context(), f.clock.stored().Add(time.Hour), 100); n != want || err != nil {
			t.Errorf("deleted %d, %v, want %d", n, err, want)
		}
	}
	remove(2)
	f.fanOut(t)
	remove(0) // Now deliveries need them.
	f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
	remove(1)
	f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
	remove(1)
}

// testReplayAfterDeleted replays an event whose delivery was deleted when it was old:
// the new row has the same id.
func testReplayAfterDeleted(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	f.create(t, nil)
	f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
	before := f.one(t)
	f.clock.Advance(time.Hour)
	if n, err := f.DeleteDeliveriesBefore(t.Context(), f.clock.Now(), 10); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	f.fanOut(t)
	wantSame(t, "replayed", store.Replay{Matched: 1, Queued: 1, Last: 2}, f.replay(t, w.ID, 0, 2, 10, everything))
	if d := f.one(t); d.ID != before.ID || d.State != webhook.StatePending {
		t.Errorf("replayed as %+v", d)
	}
}

// testCancelWaiting says that a delivery waits for a disabled webhook, but not for ever.
func testCancelWaiting(t *testing.T, f *fixture) {
	w, other := f.hook(t, nil), f.hook(t, nil)
	f.create(t, nil)
	due := f.clock.stored()
	f.changeHook(t, w.ID, func(w *webhook.Webhook) { w.Enabled = false })
	if n, err := f.CancelWaiting(t.Context(), due, 10); n != 0 || err != nil {
		t.Errorf("cancelled %d, %v", n, err)
	}
	if n, err := f.CancelWaiting(t.Context(), due.Add(time.Hour), 10); n != 1 || err != nil {
		t.Errorf("cancelled %d, %v", n, err)
	}
	f.wantDeliveries(t, w.ID, webhook.StateCancelled)
	f.wantDeliveries(t, other.ID, webhook.StatePending)
}

// testChangesAreHeld has changes of an organization wait whose fan-out is behind, but
// not those that end a key or a webhook: many changes by a key that was leaked must not
// hold up its revocation.
func testChangesAreHeld(t *testing.T, f *fixture) {
	revoked, deleted, w, disabledHook := f.create(t, nil), f.create(t, nil), f.hook(t, nil), f.hook(t, nil)
	disabled := f.create(t, nil)
	waiting := f.deliveries(t, store.DeliveryFilter{WebhookID: w.ID})[0]
	behind := errors.New("behind")
	held := 0
	f.HoldWith(func(_ context.Context, organization string) error {
		if organization != org {
			t.Errorf("%q is held", organization)
		}
		held++
		return behind
	})
	relabel := func(k *apikey.Key, _ time.Time) error { k.Label = "other"; return nil }
	for name, c := range map[string]struct {
		change func() error
		held   bool
	}{
		"create": {func() error { _, err := f.CreateKey(t.Context(), operator, nil); return err }, true},
		"update": {func() error {
			_, err := f.ChangeKey(t.Context(), operator, org, revoked.ID, apikey.KeyUpdated, relabel)
			return err
		}, true},
		"make a webhook": {func() error { _, err := f.CreateWebhook(t.Context(), operator, org, nil); return err }, true},
		"test a webhook": {func() error { _, err := f.TestWebhook(t.Context(), operator, org, w.ID); return err }, true},
		"replay":         {func() error { _, err := f.ReplayEvents(t.Context(), operator, org, w.ID, 0, 1, 1, nil); return err }, true},
		"revoke": {func() error {
			_, err := f.ChangeKey(t.Context(), operator, org, revoked.ID, apikey.KeyRevoked, func(k *apikey.Key, now time.Time) error { k.RevokedAt = now; return nil })
			return err
		}, false},
		"disable": {func() error {
			_, err := f.DisableKey(t.Context(), operator, org, disabled.ID, func(k *apikey.Key, _ time.Time) error { k.Enabled = false; return nil })
			return err
		}, false},
		"disable a webhook": {func() error {
			_, err := f.DisableWebhook(t.Context(), operator, org, disabledHook.ID, func(w *webhook.Webhook, _ time.Time) error { w.Enabled = false; return nil })
			return err
		}, false},
		"cancel a delivery": {func() error {
			_, err := f.ChangeDelivery(t.Context(), operator, org, waiting.ID, func(d *webhook.Delivery, _ *webhook.Webhook, now time.Time) error {
				_, err := d.Cancel(now)
				return err
			})
			return err
		}, false},
		"delete":           {func() error { return f.DeleteKey(t.Context(), operator, org, deleted.ID) }, false},
		"delete a webhook": {func() error { return f.DeleteWebhook(t.Context(), operator, org, w.ID) }, false},
		"the server's own": {func() error {
			_, _, err := f.PublishNotices(t.Context(), 1, func(*apikey.Key, time.Time) (apikey.EventType, []string) { return "", nil })
			return err
		}, false},
	} {
		before := held
		if err := c.change(); c.held != errors.Is(err, behind) || c.held != (held > before) || !c.held && err != nil {
			t.Errorf("%s: %v; held %t, want %t", name, err, held > before, c.held)
		}
	}
	// What is not held can do nothing else besides.
	if _, err := f.DisableKey(t.Context(), operator, org, revoked.ID, relabel); err == nil {
		t.Error("a key got another label without being held")
	}
}
