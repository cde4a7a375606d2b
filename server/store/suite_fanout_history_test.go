package store_test

import (
	"context"
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
	var events []apikey.Event
	for after := apikey.OldestKept; ; {
		page, err := h.f.Events(context.Background(), apikey.EventFilter{Organization: h.org}, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, page.Events...)
		if !page.More {
			return events
		}
		after = page.Next
	}
}

// deliveries returns the deliveries of the organization.
func (h *history) deliveries(t rapid.TB) []store.DeliveryOf {
	t.Helper()
	var all []store.DeliveryOf
	for after := ""; ; {
		list, next, err := h.f.Deliveries(context.Background(), store.DeliveryFilter{Organization: h.org}, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
		if after = next; next == "" {
			return all
		}
	}
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
	for _, d := range h.deliveries(t) {
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
