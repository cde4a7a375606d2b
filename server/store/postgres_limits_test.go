package store_test

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// limitReplica is one of several servers on one database: a store with its meter and
// verifier.
type limitReplica struct {
	*store.Store
	*meter.Meter
	*verify.Verifier
}

// newLimitReplicas opens a database as several servers do.
func newLimitReplicas(t *testing.T, now func() time.Time, n int) []limitReplica {
	t.Helper()
	c := store.Config{Postgres: masked.New(postgresServer(t).lend(t, nil)), Now: now, Logger: slog.New(slog.DiscardHandler)}
	all := make([]limitReplica, n)
	for i := range all {
		r := &all[i]
		if i == 0 {
			r.Store = openAndInitialize(t, c)
		} else {
			var err error
			if r.Store, err = store.Open(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := r.Store.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		r.Meter = meter.New(meter.Config{Usage: r.Store, Quotas: r.Store, Rates: r.Store, Now: now, Logger: c.Logger})
		var err error
		if r.Verifier, err = verify.New(verify.Config{Keys: r.Store, Meter: r.Meter, Peppers: peppers, Now: now}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestPostgresLimitsOfReplicas has three servers spend the limits of the same keys at
// the same time, count, flush and give back in the middle of it, and change a quota:
// what is spent in all is what there was, and every count is there.
func TestPostgresLimitsOfReplicas(t *testing.T) {
	t.Parallel()
	clock := newClock()
	all := newLimitReplicas(t, clock.Now, 3)
	f := &fixture{Store: all[0].Store, clock: clock}
	const keys, most = 6, 120
	var secrets [keys]string
	var ids [keys]string
	for i := range secrets {
		secret, kept := newSecret(t)
		k := f.create(t, func(k *apikey.Key) {
			k.Secret = kept
			if i%2 == 0 {
				k.RateLimit = exact(most)
			} else {
				k.Quota = apikey.Quota{Limit: most, Remaining: most}
			}
		})
		secrets[i], ids[i] = secret.Reveal(), k.ID
	}
	// spend makes calls at all servers until a limit refuses them.
	spend := func() (valid [keys]int64) {
		t.Helper()
		var counts [keys]atomic.Int64
		var group sync.WaitGroup
		for n := range 6 {
			r := all[n%len(all)]
			group.Go(func() {
				for i := 0; i < 4*most*keys; i++ {
					key := (i + n) % keys
					v, err := r.Verify(t.Context(), verify.Request{Secret: secrets[key], Organization: org, Cost: 1})
					if err != nil {
						t.Error(err)
						return
					}
					if v.Code == apikey.CodeValid {
						counts[key].Add(1)
					}
					if i%200 == 100 {
						r.ReturnIdle(t.Context())
						if err := r.Flush(t.Context()); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		group.Wait()
		for _, r := range all {
			r.RefundAll(t.Context())
			if err := r.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
		for i := range counts {
			valid[i] = counts[i].Load()
		}
		return valid
	}
	wantTotals := func(what string, totals [keys]int64) {
		t.Helper()
		for i, id := range ids {
			k, err := f.Key(t.Context(), org, id)
			if err != nil || k.Usage.TotalRequests != totals[i] || !k.Usage.LastUsedAt.Equal(clock.stored()) {
				t.Errorf("%s: key %d counts %+v, want %d; %v", what, i, k.Usage, totals[i], err)
			}
		}
	}
	first := spend()
	for i, n := range first {
		left := f.remaining(t, ids[i])
		// Of a quota, what a server gave back last may be unknown to the others for ten seconds.
		if n > most || i%2 == 0 && n < most-20 || i%2 == 1 && n+left != most {
			t.Errorf("key %d: %d of %d were spent, %d are left of the quota", i, n, most, left)
		}
	}
	wantTotals("first", first)

	// A quota that is set anew at one server is spent once at all of them.
	clock.Advance(time.Minute)
	for i, id := range ids {
		if i%2 == 1 {
			resume, err := all[0].PauseQuota(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.ChangeKey(t.Context(), operator, org, id, apikey.KeyUpdated, func(k *apikey.Key, now time.Time) error {
				return rules.Update(k, apikey.Patch{Paths: []string{"quota.remaining"}, Values: apikey.Key{Quota: apikey.Quota{Remaining: 50, Limit: 1}}}, now)
			})
			resume()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range all { // as the log that they follow tells them
				r.Drop([]string{id}, 1000)
			}
		}
	}
	second := spend()
	for i, n := range second {
		if left := f.remaining(t, ids[i]); i%2 == 1 && n+left != 50 || i%2 == 0 && first[i]+n > most+1 {
			t.Errorf("key %d: %d were spent after %d, %d are left of the quota", i, n, first[i], left)
		}
		second[i] += first[i]
	}
	for i, id := range ids {
		if k, err := f.Key(t.Context(), org, id); err != nil || k.Usage.TotalRequests != second[i] {
			t.Errorf("second: key %d counts %+v, want %d; %v", i, k.Usage, second[i], err)
		}
	}
}

// TestPostgresUsageOfReplicas has three servers store counts of the same keys at the same
// time, which are usual of some and of others not: none fails, and every count is there.
func TestPostgresUsageOfReplicas(t *testing.T) {
	t.Parallel()
	const keys, flushes = 60, 10
	clock := newClock()
	all := newLimitReplicas(t, clock.Now, 3)
	template, err := all[0].CreateKey(t.Context(), operator, benchmarkKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := all[0].CopyKeys(t.Context(), template, keys, copyID); err != nil {
		t.Fatal(err)
	}
	hour := apikey.Hourly.Start(clock.Now())
	var running sync.WaitGroup
	for i, r := range all {
		running.Go(func() {
			for n := range flushes {
				var counts []apikey.UsageCount
				for k := range keys {
					c := apikey.UsageCount{
						KeyID: copyID(k), OrganizationID: org, Count: 1, LastUsedAt: clock.Now(),
						Outcomes: []apikey.OutcomeCount{{Hour: hour, Code: apikey.CodeValid, Count: 1}},
						Units:    []apikey.UnitCount{{Hour: hour, Owner: "ann", Calls: 1, Units: 2}},
					}
					if (k+i+n)%3 == 0 {
						c.Outcomes = append(c.Outcomes, apikey.OutcomeCount{Hour: hour, Code: apikey.CodeExpired, Count: 1})
					}
					counts = append(counts, c)
				}
				if stored, err := r.AddUsage(t.Context(), counts); err != nil {
					t.Errorf("stored %d, %v", stored, err)
				}
			}
		})
	}
	running.Wait()
	var total, valid, units int
	err = all[0].Reader().QueryRowContext(t.Context(), `SELECT (SELECT sum(total_requests) FROM api_key_usage),
		(SELECT sum(count) FROM usage_buckets WHERE key_id <> '' AND code = 'valid' AND width = 3600),
		(SELECT sum(units) FROM usage_units WHERE kind = '`+string(apikey.ByKey)+`' AND width = 86400)`).Scan(&total, &valid, &units)
	if want := keys * flushes * len(all); err != nil || total != want || valid != want || units != 2*want {
		t.Errorf("counted %d, %d valid, %d units, want %d, %v", total, valid, units, want, err)
	}
}
