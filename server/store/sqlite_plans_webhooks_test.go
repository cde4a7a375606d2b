package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// TestWebhookQueryPlans is TestQueryPlans for webhooks and their deliveries: what
// the worker does time and again costs the same however many deliveries are kept.
func TestWebhookQueryPlans(t *testing.T) {
	const (
		delivery     = "INDEX sqlite_autoindex_deliveries_1 (id"
		organization = "INDEX delivery_organization_id_id (organization_id=? AND id>?"
		due          = "INDEX delivery_webhook_id_due_at (webhook_id=?"
		event        = "events USING INTEGER PRIMARY KEY (rowid"
	)
	c := newClock()
	s := openSQLite(t, store.Config{Now: c.Now})
	f := &fixture{Store: s, clock: c}
	w := f.hook(t, nil)
	for range 4 {
		f.create(t, nil)
	}
	claims, _ := f.claim(t, "held", 2, w.ID)
	list := func(filter store.DeliveryFilter) func() error {
		return func() error {
			_, _, err := s.Deliveries(t.Context(), filter, "delivery_", 100)
			return err
		}
	}
	trace := s.Trace()
	for name, q := range map[string]struct {
		run  func() error
		want []string
		// scans are the tables that may be read from end to end.
		scans []string
	}{
		"change": {func() error {
			k, err := f.tryCreate(t, t.Context(), nil)
			if err != nil {
				return err
			}
			_, err = f.update(t.Context(), k.ID, func(k *apikey.Key) { k.Label = "x" })
			return err
		}, nil, nil},
		"create webhook": {func() error {
			_, err := f.tryHook(t, nil)
			return err
		}, []string{"webhook_organization_id_id (organization_id=?"}, nil},
		// One look-up a webhook.
		"due": {func() error {
			_, err := s.Due(t.Context())
			return err
		}, []string{"COVERING " + due + " AND due_at>?)"}, []string{"w"}},
		"claim": {func() error {
			f.create(t, nil) // Events of earlier claims are at hand.
			trace.Take()
			_, _, err := s.Claim(t.Context(), []webhook.Pick{{WebhookID: w.ID, Max: 100}}, "lease", time.Minute)
			return err
		}, []string{due + " AND due_at>?)", delivery + "=?)", event + "=?)"}, []string{"v"}},
		"settle": {func() error {
			_, err := s.Settle(t.Context(), []webhook.Result{{Delivery: claims[0].Delivery, Lease: "held", Outcome: failed}}, hookRules, steady)
			return err
		}, []string{delivery + "=?)"}, []string{"v"}},
		"release": {func() error { return s.Release(t.Context(), "held", []string{claims[1].Delivery.ID}) }, []string{delivery + "=?)"}, nil},
		"cancel orphans": {func() error {
			_, err := s.CancelOrphans(t.Context(), 10)
			return err
		}, []string{"deliveries USING COVERING INDEX delivery_webhook_id_due_at (webhook_id>?)", "SEARCH d USING " + due + " AND due_at>?)"}, []string{"pending", "d"}},
		"cancel waiting": {func() error {
			_, err := s.CancelWaiting(t.Context(), c.Now(), 10)
			return err
		}, []string{due + " AND due_at<?)"}, []string{"w"}},
		"fan out": {func() error {
			if _, err := f.tryCreate(t, t.Context(), nil); err != nil {
				return err
			}
			trace.Take()
			_, err := s.FanOut(t.Context(), org, time.Second)
			return err
		}, []string{"event_organization_id_id (organization_id=? AND id>?", "webhookterm_organization_id_webhook_id (organization_id=?", "fan_out_positions USING INDEX sqlite_autoindex_fan_out_positions_1 (organization_id=?)"}, nil},
		"delete events": {func() error {
			_, err := s.DeleteEventsBefore(t.Context(), c.Now().Add(time.Hour), 10)
			return err
		}, []string{"delivery_event_position (event_position<?)"}, []string{"events"}},
		"list":           {list(store.DeliveryFilter{Organization: org}), []string{organization + ")", event + "=?)"}, nil},
		"list of all":    {list(store.DeliveryFilter{}), []string{delivery + ">?)"}, nil},
		"list filtered":  {list(store.DeliveryFilter{Organization: org, State: webhook.StateFailed}), []string{"COVERING " + organization + ")", organization + ")"}, nil},
		"list by times":  {list(store.DeliveryFilter{Organization: org, Since: c.Now(), Until: c.Now()}), []string{organization + ")"}, nil},
		"list of a hook": {list(store.DeliveryFilter{Organization: org, WebhookID: w.ID}), []string{organization + ")"}, nil},
		"delivery": {func() error {
			_, err := s.Delivery(t.Context(), org, claims[0].Delivery.ID)
			return err
		}, []string{delivery + "=?)", "deliveryattempt_delivery_id_number (delivery_id=? AND number<?)", event + "=?)"}, nil},
		"retry": {func() error {
			_, err := s.ChangeDelivery(t.Context(), operator, org, claims[0].Delivery.ID, func(*webhook.Delivery, *webhook.Webhook, time.Time) error { return nil })
			return err
		}, []string{delivery + "=?)"}, nil},
		"replay": {func() error {
			_, err := s.ReplayEvents(t.Context(), operator, org, w.ID, 1, 5, 10, everything)
			return err
		}, []string{"event_organization_id_id (organization_id=? AND id>? AND id<?)", "delivery_webhook_id_event_position (webhook_id=? AND event_position>? AND event_position<?)"}, nil},
		"position": {func() error {
			_, err := s.PositionBefore(t.Context(), c.Now())
			return err
		}, []string{"SEARCH e USING INTEGER PRIMARY KEY (rowid=?)"}, []string{"h", "halves"}},
		"retention": {func() error {
			_, err := s.DeleteDeliveriesBefore(t.Context(), c.Now().Add(-time.Hour), 10)
			return err
		}, []string{"delivery_ended_at (ended_at<?)"}, nil},
		"retry all": {func() error {
			_, _, err := s.RetryDeliveries(t.Context(), operator, org, w.ID, []webhook.DeliveryState{webhook.StateFailed}, 0, 10)
			return err
		}, []string{"delivery_webhook_id_event_position (webhook_id=? AND event_position>?)"}, nil},
		"pending": {func() error {
			_, err := s.Pending(t.Context(), w.ID, 100)
			return err
		}, []string{due}, []string{"pending"}},
	} {
		t.Run(name, func(t *testing.T) {
			trace.Take()
			if err := q.run(); err != nil {
				t.Fatal(err)
			}
			var plans []string
			for _, query := range trace.Take() {
				plan := explain(t, s, query)
				for _, line := range plan {
					table, _, _ := strings.Cut(strings.TrimPrefix(line, "SCAN "), " ")
					scan := strings.HasPrefix(line, "SCAN ") && table != "revisions" && line != "SCAN CONSTANT ROW" && !strings.HasSuffix(line, "VALUES CLAUSE") && !slices.Contains(q.scans, table)
					if scan || strings.Contains(line, "TEMP B-TREE") || strings.Contains(line, "AUTOMATIC") {
						t.Errorf("%s\n%s", query.Text, strings.Join(plan, "\n"))
					}
				}
				plans = append(plans, plan...)
			}
			for _, want := range q.want {
				if !slices.ContainsFunc(plans, func(line string) bool { return strings.Contains(line, want) }) {
					t.Errorf("%q is not in\n%s", want, strings.Join(plans, "\n"))
				}
			}
		})
	}
}
