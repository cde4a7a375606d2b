package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

func testDeliveryFilters(t *testing.T, f *fixture) {
	a, b := f.hook(t, nil), f.hook(t, func(w *webhook.Webhook) { w.Events = []apikey.EventType{apikey.KeyUpdated} })
	other := f.hook(t, func(w *webhook.Webhook) { w.OrganizationID = "org_other" })
	k := f.create(t, nil)
	f.create(t, func(k *apikey.Key) { k.OrganizationID = "org_other" })
	f.clock.Advance(time.Hour)
	later := f.clock.stored()
	if _, err := f.update(t.Context(), k.ID, label(2)); err != nil {
		t.Fatal(err)
	}
	f.settleOne(t, a.ID, webhook.Outcome{Status: 200})
	// Those of one event are in no certain order.
	names := map[string]string{
		webhook.DeliveryID(a.ID, f.events(t, 3)[0].ID):     "0",
		webhook.DeliveryID(other.ID, f.events(t, 4)[0].ID): "1",
		webhook.DeliveryID(a.ID, f.events(t, 5)[0].ID):     "2",
		webhook.DeliveryID(b.ID, f.events(t, 5)[0].ID):     "3",
	}
	for name, c := range map[string]struct {
		filter store.DeliveryFilter
		want   []string
	}{
		"none":          {store.DeliveryFilter{}, []string{"0", "1", "2", "3"}},
		"organization":  {store.DeliveryFilter{Organization: org}, []string{"0", "2", "3"}},
		"other":         {store.DeliveryFilter{Organization: "org_other"}, []string{"1"}},
		"webhook":       {store.DeliveryFilter{WebhookID: a.ID}, []string{"0", "2"}},
		"its, of other": {store.DeliveryFilter{Organization: org, WebhookID: other.ID}, nil},
		"state":         {store.DeliveryFilter{Organization: org, State: webhook.StateDelivered}, []string{"0"}},
		"event":         {store.DeliveryFilter{Event: apikey.KeyUpdated}, []string{"2", "3"}},
		"resource":      {store.DeliveryFilter{Organization: org, ResourceID: k.ID}, []string{"0", "2", "3"}},
		"since":         {store.DeliveryFilter{Organization: org, Since: later}, []string{"2", "3"}},
		"until":         {store.DeliveryFilter{Organization: org, Until: later}, []string{"0"}},
		"both":          {store.DeliveryFilter{WebhookID: b.ID, Event: apikey.KeyUpdated, State: webhook.StatePending, Since: later, Until: later.Add(1000)}, []string{"3"}},
	} {
		for _, size := range []int{1, 10} {
			var got []string
			for after := ""; ; {
				list, next, err := f.Deliveries(t.Context(), c.filter, after, size)
				if err != nil || len(list) > size {
					t.Fatalf("%s: %d rows, %v", name, len(list), err)
				}
				for _, d := range list {
					got = append(got, names[d.ID])
				}
				if after = next; next == "" {
					break
				}
			}
			slices.Sort(got)
			wantSame(t, name, c.want, got)
		}
	}
}

// testDeliveryBound says how far one call looks for what is rare.
func testDeliveryBound(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	f.create(t, nil)
	if err := f.CopyDeliveries(t.Context(), 25_000); err != nil {
		t.Fatal(err)
	}
	rare := f.deliveryIDs(t)
	f.execute(t, fmt.Sprintf("UPDATE deliveries SET state = 'failed' WHERE id = '%s' OR id = '%s'", rare[9_999], rare[20_000]))
	var pages []int
	for after := ""; ; {
		list, next, err := f.Deliveries(t.Context(), store.DeliveryFilter{Organization: org, State: webhook.StateFailed}, after, 10)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, len(list))
		if after = next; next == "" {
			break
		}
		if len(list) == 1 && list[0].ID != rare[9_999] {
			t.Errorf("found %s", list[0].ID)
		}
	}
	wantSame(t, "pages", []int{1, 0, 1}, pages)
	f.wantDue(t, map[string]time.Time{w.ID: f.clock.stored()})
}

func (f *fixture) deliveryIDs(t *testing.T) (ids []string) {
	t.Helper()
	f.fanOut(t)
	for _, row := range readRows(t, f.Reader(), "SELECT id FROM deliveries ORDER BY id") {
		ids = append(ids, row[0].(string))
	}
	return ids
}

// execute runs a statement as a change.
func (f *fixture) execute(t *testing.T, statement string) {
	t.Helper()
	if err := f.Write(t.Context(), func(exec func(string) error) error { return exec(statement) }); err != nil {
		t.Fatal(err)
	}
}

func testDeliveriesAreDeleted(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	for range 4 {
		f.create(t, nil)
	}
	// Three end, one of them to be opened again; the fourth waits, and ages.
	for range 3 {
		f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
	}
	f.clock.Advance(time.Hour)
	f.create(t, nil)
	f.settleOne(t, w.ID, failed)
	ids := f.deliveryIDs(t)
	before := f.clock.stored()
	_, err := f.ChangeDelivery(t.Context(), operator, org, ids[1], func(d *webhook.Delivery, w *webhook.Webhook, now time.Time) error {
		return d.Retry(w, webhook.TriggerRetry, now)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 1, 0} {
		if n, err := f.DeleteDeliveriesBefore(t.Context(), before, 1); n != want || err != nil {
			t.Errorf("deleted %d, %v, want %d", n, err, want)
		}
	}
	left := []string{ids[1], ids[3], ids[4]}
	wantSame(t, "left", left, f.deliveryIDs(t))
	if rows := readRows(t, f.Reader(), "SELECT * FROM delivery_attempts"); len(rows) != 2 {
		t.Errorf("attempts left: %v", rows)
	}
	// What was opened again and ends late is old from then on.
	f.settleOne(t, w.ID, failed) // the fourth
	f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
	if n, err := f.DeleteDeliveriesBefore(t.Context(), before, 9); n != 0 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	// The log is kept from the oldest event on that a delivery which has not ended is of.
	if n, err := f.DeleteEventsBefore(t.Context(), f.clock.stored().Add(time.Hour), 100); n != 4 || err != nil {
		t.Errorf("deleted %d events, %v", n, err)
	}
	f.clock.Advance(time.Minute)
	for range 2 {
		f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
	}
	if _, err := f.DeleteEventsBefore(t.Context(), f.clock.stored().Add(time.Hour), 100); err != nil {
		t.Fatal(err)
	}
	if list := f.deliveries(t, store.DeliveryFilter{}); len(list) != 3 || list[0].Of != nil {
		t.Errorf("got %+v", list)
	}
	if !slices.Equal(f.deliveryIDs(t), left) {
		t.Error("the rows have changed")
	}
}
