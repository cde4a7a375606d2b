package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// TestDeliveryCountPlans looks at the counts of deliveries among those of other
// organizations and hours.
func TestDeliveryCountPlans(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, c store.Config) {
		tables := []string{"delivery_counts", "delivery_delays", "delivery_failures", "deliveries"}
		checkPlans(t, c, tables, func(f *fixture) {
			f.hook(t, nil)
			f.create(t, nil)
			if err := f.CopyDeliveries(t.Context(), 2000); err != nil {
				t.Fatal(err)
			}
			for table, columns := range map[string]string{
				"delivery_counts (organization_id, start, event, slot, made":                 "'api_key.created', 0, 1",
				"delivery_delays (organization_id, start, least, slot, count":                "1000, 0, 1",
				"delivery_failures (organization_id, start, url, slot, deliveries, attempts": "'https://example.com/', 0, 1, 1",
			} {
				// 400 organizations of 50 hours each.
				rows := fmt.Sprintf("INSERT INTO %s) WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19999) "+
					"SELECT 'org_' || (i %% 400), i / 400 * 3600000000, %s FROM n", table, columns)
				if err := f.ExecOnWriter(t.Context(), rows); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.ExecOnWriter(t.Context(), "INSERT INTO settings (id, value) VALUES ('delivery_counts_from', '1')"); err != nil {
				t.Fatal(err)
			}
		}, func(f *fixture) map[string]plannedRead {
			hour := func(n int) time.Time { return time.UnixMicro(0).Add(time.Duration(n) * time.Hour) }
			return map[string]plannedRead{
				"counts": {
					run: func() error {
						counts, err := f.Store.DeliveryCounts(t.Context(), "org_7", hour(10), hour(34), 10)
						if err == nil && (len(counts.Hours) != 24 || len(counts.Delays) != 1 || len(counts.URLs) != 1) {
							return fmt.Errorf("found %+v", counts)
						}
						return err
					},
					sqlite: []string{
						"INDEX deliverycount_organization_id_start_event_slot (organization_id=? AND start>? AND start<?)",
						"INDEX deliverydelay_organization_id_start_least_slot (organization_id=? AND start>? AND start<?)",
						"INDEX deliveryfailure_organization_id_start_url_slot (organization_id=? AND start>? AND start<?)",
						// Delays and urls are few in each hour, and added up.
						"USE TEMP B-TREE FOR GROUP BY", "USE TEMP B-TREE FOR ORDER BY",
					},
					postgres: []string{"deliverycount_organization_id_start_event_slot", "deliverydelay_organization_id_start_least_slot", "deliveryfailure_organization_id_start_url_slot"},
				},
				"since when": {
					run: func() error {
						_, err := f.DeliveryCountsFrom(t.Context())
						return err
					},
					sqlite: []string{"INDEX sqlite_autoindex_settings_1 (id=?)"},
				},
				"newest": {
					run: func() error {
						_, err := f.NewestDeliveries(t.Context(), org, hour(0), apikey.Hourly.Start(f.clock.Now()), 10)
						return err
					},
					sqlite: []string{"INDEX delivery_organization_id_id (organization_id=? AND id>? AND id<?)"},
				},
				"retention": {
					run: func() error {
						_, err := f.DeleteDeliveryCountsBefore(t.Context(), hour(2), 1500) // more than there are of each table
						return err
					},
					sqlite:   []string{"COVERING INDEX deliverycount_start (start<?)", "COVERING INDEX deliverydelay_start (start<?)", "COVERING INDEX deliveryfailure_start (start<?)"},
					postgres: []string{"deliverycount_start", "deliverydelay_start", "deliveryfailure_start"},
				},
			}
		})
	})
}
