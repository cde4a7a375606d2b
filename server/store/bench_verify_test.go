package store_test

import (
	"context"
	"database/sql"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// storedEnv is how many keys these benchmarks store, 100,000 unless it is set. The
// figures of README are those of 1,000,000.
const storedEnv = "APIKEYS_BENCH_KEYS"

func storedKeys(b *testing.B) int { return sizeOf(b, storedEnv, 100_000) }

// floodEnv is how many secrets that nobody has a flood picks for, 100,000 unless it
// is set. The figure of README is that of 10,000,000.
const floodEnv = "APIKEYS_BENCH_FLOOD"

// sizeOf returns the number in the environment, or standard.
func sizeOf(b *testing.B, name string, standard int) int {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return standard
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 20_000 {
		b.Fatalf("%s must be a number of 20000 at least, not %q", name, text)
	}
	return n
}

// A stand is a store with a verifier over it, as a server has them.
type stand struct {
	*store.Store
	*verify.Verifier
	meter   *meter.Meter
	path    string
	ids     []string
	secrets []string // of the keys that are used, the first of all
}

// newStand stores so many keys, of which hot are used, and verifies those once.
func newStand(b *testing.B, stored, hot int) *stand {
	b.Helper()
	s := &stand{path: filepath.Join(b.TempDir(), "apikeys.db"), ids: make([]string, hot), secrets: make([]string, hot)}
	s.Store = openAndInitialize(b, store.Config{Path: s.path})
	var err error
	s.meter = meter.New(meter.Config{Usage: s.Store, Quotas: s.Store, Rates: s.Store, Logger: slog.New(slog.DiscardHandler)})
	s.Verifier, err = verify.New(verify.Config{Keys: s.Store, Meter: s.meter, Peppers: peppers})
	if err != nil {
		b.Fatal(err)
	}
	s.OnCommit(func(c store.Commit) { s.Drop(c.ChangedKeys, c.Position) })
	var template apikey.Key
	together(b, 64, hot, func(i int) {
		secret, kept := newSecret(b)
		k, err := s.CreateKey(b.Context(), operator, func(now time.Time) (apikey.Key, error) {
			return rules.Create(apikey.Key{
				OrganizationID: org, Label: "Benchmark", Enabled: true, OwnerID: "user_1", Secret: kept,
				Scopes: apikey.Scopes{"invoices.read", "payments.read"}, Metadata: map[string]string{"team": "billing"},
			}, now)
		})
		if err != nil {
			b.Error(err)
		}
		s.ids[i], s.secrets[i] = k.ID, secret.Reveal()
		if i == 0 {
			template = k
		}
	})
	if err := s.CopyKeys(b.Context(), template, stored-hot, copyID); err != nil {
		b.Fatal(err)
	}
	together(b, 64, hot, func(i int) { s.valid(b, i) })
	return s
}

// together calls f for 0 to n-1 from so many callers and returns how long it took.
func together(b *testing.B, callers, n int, f func(i int)) time.Duration {
	b.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range callers {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || b.Failed() {
					return
				}
				f(i)
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

// valid verifies one of the keys that are used.
func (s *stand) valid(b *testing.B, i int) {
	r, err := s.Verify(b.Context(), verify.Request{Secret: s.secrets[i%len(s.secrets)], Organization: org, Cost: 1})
	if err != nil || r.Code != apikey.CodeValid {
		b.Errorf("key %d: %s, %v", i, r.Code, err)
	}
}

// How many verifications one turn makes, and by how many callers.
const (
	turn    = 50_000
	callers = 8
)

// alternate runs a floor and a subject in turns and reports the floor's time as a
// part of the subject's.
func alternate(b *testing.B, n int, floor, subject func() time.Duration) {
	b.Helper()
	floor()
	subject()
	var least, spent time.Duration
	for b.Loop() {
		least += floor()
		spent += subject()
	}
	b.ReportMetric(float64(least)/float64(spent), "x-of-floor")
	b.ReportMetric(float64(b.N*n)/spent.Seconds(), "verify/s")
}

// BenchmarkVerifyHotOfMany verifies 10,000 keys in use among many stored ones. Its
// floor is the same with no others stored.
func BenchmarkVerifyHotOfMany(b *testing.B) {
	const hot = 10_000
	few, many := newStand(b, hot, hot), newStand(b, storedKeys(b), hot)
	run := func(s *stand) func() time.Duration {
		return func() time.Duration { return together(b, callers, turn, func(i int) { s.valid(b, i) }) }
	}
	alternate(b, turn, run(few), run(many))
}

// BenchmarkVerifyUnknown has one call in a hundred ask for a well-formed secret
// that nobody has. Its floor is the same without those.
func BenchmarkVerifyUnknown(b *testing.B) {
	s := newStand(b, 10_000, 10_000)
	unknown := make([]string, 1000)
	for i := range unknown {
		secret, _ := newSecret(b)
		unknown[i] = secret.Reveal()
	}
	run := func(every int) func() time.Duration {
		return func() time.Duration {
			return together(b, callers, turn, func(i int) {
				if every == 0 || i%every > 0 {
					s.valid(b, i)
				} else {
					s.notFound(b, unknown[i/every%len(unknown)])
				}
			})
		}
	}
	alternate(b, turn, run(0), run(100))
}

func (s *stand) notFound(b *testing.B, secret string) {
	r, err := s.Verify(b.Context(), verify.Request{Secret: secret, Organization: org, Cost: 1})
	if err != nil || r.Code != apikey.CodeNotFound {
		b.Errorf("%s, %v", r.Code, err)
	}
}

// BenchmarkVerifyCold verifies keys none of which is in memory. Its floor is one
// read by database/sql of the same row by its hash, with a prepared statement.
func BenchmarkVerifyCold(b *testing.B) {
	const keys = 10_000
	s := newStand(b, keys, keys)
	hashes := make([]apikey.Hash, keys)
	for i := range hashes {
		hashes[i] = peppers.Hash(0, s.secrets[i])
	}
	db, err := sql.Open("sqlite3", "file:"+s.path+"?mode=ro&_query_only=1&_cache_size=-16000")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxIdleConns(4)
	db.SetMaxOpenConns(4)
	row, err := db.PrepareContext(b.Context(), "SELECT * FROM api_keys WHERE secret_hash = ?") //nolint:sqlclosecheck // It is closed below.
	if err != nil {
		b.Fatal(err)
	}
	defer row.Close()
	columns := strings.Count(columnsOf(b, db), ",") + 1
	floor := func() time.Duration {
		return together(b, callers, keys, func(i int) {
			into := make([]any, columns)
			for j := range into {
				into[j] = new(any)
			}
			if err := row.QueryRowContext(b.Context(), hashes[i][:]).Scan(into...); err != nil {
				b.Error(err)
			}
		})
	}
	subject := func() time.Duration {
		s.Drop(s.ids, 0)
		return together(b, callers, keys, func(i int) { s.valid(b, i) })
	}
	alternate(b, keys, floor, subject)
}

func columnsOf(b *testing.B, db *sql.DB) (names string) {
	b.Helper()
	if err := db.QueryRowContext(b.Context(), "SELECT group_concat(name) FROM pragma_table_info('api_keys')").Scan(&names); err != nil {
		b.Fatal(err)
	}
	return names
}

// BenchmarkVerifyUnderRevokes makes, uses and revokes 100 keys a second beside the
// verifications; each must be refused as soon as its revocation was answered. Its
// floor is the same without. A turn is long enough for many revocations to fall
// into it, and how many did is reported: a turn shorter than their pace would
// measure nothing. Several take turns at it, because each step of one waits for a
// core that the verifications hold.
func BenchmarkVerifyUnderRevokes(b *testing.B) {
	const (
		long     = 20 * turn
		revokers = 24
	)
	s := newStand(b, 10_000, 10_000)
	run := func() time.Duration { return together(b, callers, long, func(i int) { s.valid(b, i) }) }
	var revoked atomic.Int64
	var beside time.Duration
	alternate(b, long, run, func() time.Duration {
		ctx, cancel := context.WithCancel(b.Context())
		var others sync.WaitGroup
		start, next := time.Now(), new(atomic.Int64)
		for range revokers {
			others.Go(func() {
				for {
					due := start.Add(time.Duration(next.Add(1)) * 10 * time.Millisecond)
					select {
					case <-ctx.Done():
						return
					case <-time.After(time.Until(due)):
						s.revokeOne(b)
						if ctx.Err() == nil { // else it ended outside the turn
							revoked.Add(1)
						}
					}
				}
			})
		}
		took := run()
		cancel()
		others.Wait()
		beside += took
		return took
	})
	b.ReportMetric(float64(revoked.Load())/beside.Seconds(), "revokes/s")
}

// revokeOne makes a key, uses it so that it is in memory, and revokes it.
func (s *stand) revokeOne(b *testing.B) {
	secret, kept := newSecret(b)
	k, err := s.CreateKey(b.Context(), operator, func(now time.Time) (apikey.Key, error) {
		return rules.Create(apikey.Key{OrganizationID: org, Label: "Benchmark", Enabled: true, Secret: kept}, now)
	})
	if err != nil {
		b.Error(err)
		return
	}
	ask := func(want apikey.Code) {
		r, err := s.Verify(b.Context(), verify.Request{Secret: secret.Reveal(), Organization: org, Cost: 1})
		if err != nil || r.Code != want {
			b.Errorf("%s, %v, want %s", r.Code, err, want)
		}
	}
	ask(apikey.CodeValid)
	_, err = s.ChangeKey(b.Context(), operator, org, k.ID, apikey.KeyRevoked, func(k *apikey.Key, now time.Time) error {
		rules.Revoke(k, apikey.RevokeUnspecified, now)
		return nil
	})
	if err != nil {
		b.Error(err)
	}
	ask(apikey.CodeRevoked)
}

// BenchmarkVerifyFlood picks for hot keys on a schedule while others flood the
// verifier with well-formed secrets that nobody has, and again while as many others
// only verify hot keys: that keeps the machine as busy, so what lies between the
// two is the flood's. Times are from when a call was due, not from when it got to
// run, or the waiting that a flood causes would not be in them.
func BenchmarkVerifyFlood(b *testing.B) {
	s := newStand(b, 10_000, 10_000)
	unknown := make([]string, 100_000)
	for i := range unknown { // made before: making them would be most of the load
		secret, _ := newSecret(b)
		unknown[i] = secret.Reveal()
	}
	var idle, busy, flooded []time.Duration
	var asked atomic.Int64
	var flood time.Duration
	for b.Loop() {
		idle = s.scheduled(b, idle)
		busy, _ = s.beside(b, busy, func(i int) { s.valid(b, i) })
		var took time.Duration
		flooded, took = s.beside(b, flooded, func(i int) {
			s.notFound(b, unknown[i%len(unknown)])
			asked.Add(1)
		})
		flood += took
	}
	b.ReportMetric(float64(p99(flooded).Microseconds()), "µs-p99-flooded")
	b.ReportMetric(float64(p99(busy).Microseconds()), "µs-p99-busy")
	b.ReportMetric(float64(p99(idle).Microseconds()), "µs-p99-idle")
	b.ReportMetric(float64(asked.Load())/flood.Seconds(), "unknown/s")
}

// beside is scheduled while others call load without a pause, and returns how long
// that was too.
func (s *stand) beside(b *testing.B, took []time.Duration, load func(i int)) ([]time.Duration, time.Duration) {
	ctx, cancel := context.WithCancel(b.Context())
	var others sync.WaitGroup
	var next atomic.Int64
	for range callers {
		others.Go(func() {
			for ctx.Err() == nil {
				load(int(next.Add(1)))
			}
		})
	}
	start := time.Now()
	took = s.scheduled(b, took)
	cancel()
	others.Wait()
	return took, time.Since(start)
}

// scheduled verifies a key every 500 microseconds, 2,000 times, and appends how
// long after it was due each was answered. One that is late makes those behind it
// late as well.
func (s *stand) scheduled(b *testing.B, took []time.Duration) []time.Duration {
	const pace = 500 * time.Microsecond
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for i := range 2000 {
		due := start.Add(time.Duration(i) * pace)
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			<-timer.C
		}
		s.valid(b, i)
		took = append(took, time.Since(due))
	}
	return took
}

func p99(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)*99/100]
}
