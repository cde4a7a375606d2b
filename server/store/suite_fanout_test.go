package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

var fanOutTests = map[string]func(*testing.T, *fixture){
	"FanOutHistories":    testFanOutHistories,
	"FanOutPieces":       testFanOutPieces,
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

// history is what happens to one organization, by random turns: its webhooks and keys
// change, alone and together, events are replayed, and the fan-out goes on, or breaks
// off.
type history struct {
	t        *testing.T
	f        *fixture
	org      string
	mu       sync.Mutex // guards the ids
	hooks    []string
	keys     []string
	replayed map[string]bool // deliveries that a replay may have made
}

// made notes the id of what was made.
func (h *history) made(ids *[]string, id string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		*ids = append(*ids, id)
	}
}

func (h *history) createHook(t *rapid.T) func() error {
	events := h.events(t)
	enabled := rapid.Bool().Draw(t, "enabled")
	return func() error {
		w, err := h.f.tryHook(h.t, func(w *webhook.Webhook) {
			w.OrganizationID, w.Events, w.Enabled = h.org, events, enabled
		})
		h.made(&h.hooks, w.ID, err)
		return err
	}
}

func (h *history) events(t *rapid.T) []apikey.EventType {
	return rapid.SampledFrom([][]apikey.EventType{
		{webhook.AllEvents}, {apikey.KeyCreated}, {apikey.KeyUpdated, webhook.WebhookUpdated},
		{webhook.WebhookCreated, webhook.WebhookDeleted, webhook.AllEvents},
	}).Draw(t, "events")
}

func (h *history) changeHook(t *rapid.T) func() error {
	if len(h.hooks) == 0 {
		return h.createHook(t)
	}
	id := rapid.SampledFrom(h.hooks).Draw(t, "webhook")
	field := rapid.SampledFrom([]string{"url", "events", "format", "enabled", "label", "delete"}).Draw(t, "field")
	events := h.events(t)
	n := rapid.IntRange(0, 2).Draw(t, "value")
	return func() error {
		if field == "delete" {
			return notGone(h.f.DeleteWebhook(context.Background(), operator, h.org, id))
		}
		_, err := h.f.ChangeWebhook(context.Background(), operator, h.org, id, webhook.WebhookUpdated, func(w *webhook.Webhook, _ time.Time) error {
			switch field {
			case "url":
				w.URL = fmt.Sprint("https://example.com/", n)
			case "events":
				w.Events = events
			case "format":
				w.Format = []webhook.Format{webhook.FormatClassic, webhook.FormatStandard, webhook.FormatResource}[n]
			case "enabled":
				w.Enabled = !w.Enabled
			case "label":
				w.Label = fmt.Sprint("label ", n)
			}
			return nil
		})
		return notGone(err)
	}
}

// notGone passes over that a webhook was deleted.
func notGone(err error) error {
	if e := apikey.AsError(err); e != nil && e.Kind == apikey.KindNotFound {
		return nil
	}
	return err
}

func (h *history) changeKey(t *rapid.T) func() error {
	if len(h.keys) == 0 || rapid.Bool().Draw(t, "new") {
		return func() error {
			k, err := h.f.tryCreate(h.t, context.Background(), func(k *apikey.Key) { k.OrganizationID = h.org })
			h.made(&h.keys, k.ID, err)
			return err
		}
	}
	id := rapid.SampledFrom(h.keys).Draw(t, "key")
	return func() error {
		_, err := h.f.ChangeKey(context.Background(), operator, h.org, id, apikey.KeyUpdated, func(k *apikey.Key, _ time.Time) error {
			k.Description += "x"
			return nil
		})
		return err
	}
}

// replay replays all events to a webhook that is enabled.
func (h *history) replay(t *rapid.T) {
	if len(h.hooks) == 0 {
		return
	}
	id := rapid.SampledFrom(h.hooks).Draw(t, "webhook")
	w, err := h.f.Webhook(context.Background(), h.org, id)
	if err != nil || !w.Enabled {
		return
	}
	events := h.log(t)
	last := events[len(events)-1].Position
	if _, err := h.f.ReplayEvents(context.Background(), operator, h.org, id, 0, last, 1000, everything); err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if w.Receives(&events[i]) {
			h.replayed[webhook.DeliveryID(id, events[i].ID)] = true
		}
	}
}

// together makes changes in one commit group.
func (h *history) together(t *rapid.T) {
	var changes []func() error
	for range rapid.IntRange(2, 5).Draw(t, "changes") {
		if rapid.Bool().Draw(t, "of a webhook") {
			changes = append(changes, h.changeHook(t))
		} else {
			changes = append(changes, h.changeKey(t))
		}
	}
	for _, err := range h.f.together(h.t, changes...) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// log returns the events of the organization.
func (h *history) log(t rapid.TB) []apikey.Event {
	t.Helper()
	page, err := h.f.Events(context.Background(), apikey.EventFilter{Organization: h.org}, apikey.OldestKept, 1000)
	if err != nil || page.More {
		t.Fatal(page.More, err)
	}
	return page.Events
}

// demanded returns what the log says of deliveries: for each event the webhooks as they
// stood before it.
func (h *history) demanded(t rapid.TB) map[string]string {
	t.Helper()
	want := make(map[string]string)
	hooks := make(map[string]*apikeysv1.Webhook)
	for _, e := range h.log(t) {
		for id, w := range hooks {
			subscribed := slices.Contains(w.GetEvents(), string(e.Type)) ||
				strings.HasPrefix(string(e.Type), "api_key.") && slices.Contains(w.GetEvents(), "*")
			if w.GetEnabled() && subscribed && e.ResourceID != id {
				want[webhook.DeliveryID(id, e.ID)] = w.GetUrl() + " " + w.GetFormat().String()
			}
		}
		if e.Type == webhook.WebhookDeleted {
			delete(hooks, e.ResourceID)
		} else if webhook.IsAboutWebhook(e.Type) {
			m, err := wire.Event(&e)
			if err != nil {
				t.Fatal(err)
			}
			hooks[e.ResourceID] = m.GetWebhook()
		}
	}
	return want
}

// check compares the deliveries that there are with what the log demands.
func (h *history) check(t rapid.TB) {
	t.Helper()
	for h.f.turn(t, h.org, time.Second).More {
	}
	want := h.demanded(t)
	list, next, err := h.f.Deliveries(context.Background(), store.DeliveryFilter{Organization: h.org}, "", 1000)
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	for _, d := range list {
		m, err := wire.Delivery(&d.Delivery, d.Of, nil)
		if err != nil {
			t.Fatal(err)
		}
		demanded, ok := want[d.ID]
		delete(want, d.ID)
		switch got := d.URL + " " + wireFormat(d.Format); {
		case d.ID != webhook.DeliveryID(d.WebhookID, d.EventID) || m.GetId() != d.ID:
			t.Errorf("%s is no id of %s and %s", d.ID, d.WebhookID, d.EventID)
		case h.replayed[d.ID]:
		case !ok:
			t.Errorf("nobody asked for %s of %s to %s", d.Event, d.ResourceID, d.WebhookID)
		case got != demanded:
			t.Errorf("%s of %s goes as %s, want %s", d.Event, d.ResourceID, got, demanded)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d deliveries are missing", len(want))
	}
}

func wireFormat(f webhook.Format) string {
	return "WEBHOOK_FORMAT_" + strings.ToUpper(string(f))
}

// testFanOutHistories has random things happen to organizations: in the end the
// deliveries are what each event's place in the log demands, none missing, none twice.
func testFanOutHistories(t *testing.T, f *fixture) {
	histories := 0
	rapid.Check(t, func(rt *rapid.T) {
		histories++
		h := &history{t: t, f: f, org: fmt.Sprint("org_", histories), replayed: make(map[string]bool)}
		do := func(change func(*rapid.T) func() error) func(*rapid.T) {
			return func(rt *rapid.T) {
				if err := change(rt)(); err != nil {
					rt.Fatal(err)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"create a webhook": do(h.createHook),
			"change a webhook": do(h.changeHook),
			"change a key":     do(h.changeKey),
			"together":         h.together,
			"replay":           h.replay,
			"fan out":          func(rt *rapid.T) { f.turn(rt, h.org, time.Second) },
			"crash": func(rt *rapid.T) {
				if err := f.CrashFanOut(context.Background(), h.org); err != nil {
					rt.Fatal(err)
				}
			},
		})
		h.check(rt)
	})
	// What the fan-out has passed needs no terms.
	if rows := readRows(t, f.Reader(), "SELECT * FROM webhook_terms WHERE until_position IS NOT NULL"); len(rows) > 0 {
		t.Errorf("%d terms are left", len(rows))
	}
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
	claims, _, err := f.Claim(t.Context(), []webhook.Pick{{WebhookID: w.ID, Max: 8}}, "lease", f.clock.Now().Add(time.Minute))
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
	revoked, deleted, w := f.create(t, nil), f.create(t, nil), f.hook(t, nil)
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
}
