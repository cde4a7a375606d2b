package store_test

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// The keys of one row of BenchmarkVerifyLimits, and how many verifications are made of
// them in a turn.
const (
	limitKeys = 100
	limitTurn = 50_000
)

// BenchmarkVerifyLimits verifies keys with limits on both databases, none of which is
// used up: of a local rate limit, an exact one and a quota. The floor of each is keys
// without a limit, on the same database in the same run. Beside the ratio it reports how
// many transactions a thousand verifications cost.
func BenchmarkVerifyLimits(b *testing.B) {
	databases := map[string]func(b *testing.B) *store.Store{
		"SQLite": func(b *testing.B) *store.Store {
			return openAndInitialize(b, store.Config{Path: b.TempDir() + "/apikeys.db", Logger: slog.New(slog.DiscardHandler)})
		},
		"PostgreSQL": func(b *testing.B) *store.Store {
			return openAndInitialize(b, store.Config{Postgres: masked.New(postgresServer(b).lend(b, nil)), Logger: slog.New(slog.DiscardHandler)})
		},
	}
	limits := map[string]func(k *apikey.Key){
		"local": func(k *apikey.Key) { k.RateLimit = apikey.RateLimit{Requests: 1_000_000, WindowSeconds: 1} },
		"exact": func(k *apikey.Key) {
			k.RateLimit = apikey.RateLimit{Requests: 1_000_000, WindowSeconds: 1, Exact: true}
		},
		// Too small for a block: each call that passes is a transaction.
		"exactSmall": func(k *apikey.Key) { k.RateLimit = apikey.RateLimit{Requests: 10, WindowSeconds: 1, Exact: true} },
		"quota":      func(k *apikey.Key) { k.Quota = apikey.Quota{Limit: 1_000_000_000, Remaining: 1_000_000_000} },
	}
	for database, open := range databases {
		for name, with := range limits {
			b.Run(database+"/"+name, func(b *testing.B) {
				s := &limitStand{Store: open(b)}
				m := meter.New(meter.Config{Usage: s, Quotas: s, Rates: s, Logger: slog.New(slog.DiscardHandler)})
				v, err := verify.New(verify.Config{Keys: s, Meter: m, Peppers: peppers})
				if err != nil {
					b.Fatal(err)
				}
				run := func(secrets []string) func() time.Duration {
					return func() time.Duration {
						return together(b, callers, limitTurn, func(i int) {
							r, err := v.Verify(b.Context(), verify.Request{Secret: secrets[i%len(secrets)], Organization: org, Cost: 1})
							if err != nil || r.Code != apikey.CodeValid && r.Code != apikey.CodeRateLimited {
								b.Errorf("%s, %v", r.Code, err)
							}
						})
					}
				}
				alternate(b, limitTurn, run(s.keys(b, func(*apikey.Key) {})), run(s.keys(b, with)))
				b.ReportMetric(1000*float64(s.asks.Load())/float64((b.N+1)*limitTurn), "transactions/1000")
				m.RefundAll(b.Context())
			})
		}
	}
}

// limitStand is a store that counts how often limits are asked for.
type limitStand struct {
	*store.Store
	asks atomic.Int64
}

func (s *limitStand) ReserveRate(ctx context.Context, asks []apikey.RateAsk, now time.Time) ([]apikey.RateGrant, error) {
	s.asks.Add(1)
	return s.Store.ReserveRate(ctx, asks, now)
}

func (s *limitStand) ReserveQuota(ctx context.Context, asks []apikey.QuotaAsk, now time.Time) ([]apikey.QuotaGrant, error) {
	s.asks.Add(1)
	return s.Store.ReserveQuota(ctx, asks, now)
}

// keys makes keys with a limit and returns their secrets.
func (s *limitStand) keys(b *testing.B, with func(k *apikey.Key)) []string {
	b.Helper()
	secrets := make([]string, limitKeys)
	together(b, callers, limitKeys, func(i int) {
		secret, kept := newSecret(b)
		k := apikey.Key{OrganizationID: org, Label: "key " + strconv.Itoa(i), Enabled: true, Secret: kept}
		with(&k)
		if _, err := s.CreateKey(b.Context(), operator, func(now time.Time) (apikey.Key, error) { return rules.Create(k, now) }); err != nil {
			b.Error(err)
		}
		secrets[i] = secret.Reveal()
	})
	return secrets
}
