package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// BenchmarkDeliveryCounts reads the counts of a day with 24,000 deliveries, against those
// of a day with 1,000.
func BenchmarkDeliveryCounts(b *testing.B) {
	for name, open := range map[string]opener{"sqlite": openSQLite, "postgres": openPostgres} {
		b.Run(name, func(b *testing.B) {
			read := func(deliveries int) func() time.Duration {
				c := newClock()
				f := &fixture{Store: open(b, store.Config{Now: c.Now, NewID: apikey.NewIDAt(c.Now)}), clock: c}
				begin := apikey.Hourly.Start(c.Now())
				f.hook(b, nil)
				f.create(b, nil)
				for range 24 {
					if err := f.CopyDeliveries(b.Context(), deliveries/24); err != nil {
						b.Fatal(err)
					}
					settle := fmt.Sprintf("UPDATE deliveries SET state = 'delivered', attempts = 1, ended_at = %d + -event_position %% 900 * 1000 WHERE state = 'pending'", c.Now().UnixMicro()+1_000_000)
					if err := f.ExecOnWriter(b.Context(), settle); err != nil {
						b.Fatal(err)
					}
					c.Advance(time.Hour)
				}
				return func() time.Duration {
					began := time.Now()
					counts, err := f.Store.DeliveryCounts(b.Context(), org, begin, begin.Add(24*time.Hour), 10)
					if err != nil || len(counts.Hours) != 24 || len(counts.Delays) == 0 {
						b.Fatal(counts, err)
					}
					return time.Since(began)
				}
			}
			few, many := read(1000), read(24_000)
			var floor, ours time.Duration
			for b.Loop() {
				floor += few()
				ours += many()
			}
			b.ReportMetric(float64(floor)/float64(ours), "x-of-floor")
			b.ReportMetric(float64(ours.Microseconds())/float64(b.N), "µs")
		})
	}
}
