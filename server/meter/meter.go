package meter

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/outage"
)

// UsageStore is where the counters of keys are stored.
type UsageStore interface {
	// AddUsage adds counts, which it may sort, and returns how many of them, from
	// the first, are stored: all, unless there is an error.
	AddUsage(ctx context.Context, counts []apikey.UsageCount) (stored int, err error)
}

// QuotaStore is where what is left of quotas is stored.
type QuotaStore interface {
	// ReserveQuota takes units off what is left, for good once it returns, and
	// grants them: as many as the ask wants, or more, or all there are. The grants
	// are in the order of asks. A grant without a quota says that the key has none
	// of that epoch.
	ReserveQuota(ctx context.Context, asks []apikey.QuotaAsk, now time.Time) ([]apikey.QuotaGrant, error)
	// ReturnQuota adds units again that were granted and not spent, unless their
	// epoch or period is over.
	ReturnQuota(ctx context.Context, returns []apikey.QuotaReturn) error
}

// RateStore is where exact rate limits are stored.
type RateStore interface {
	// ReserveRate takes requests off what is left, for good once it returns, and grants
	// them, after it has taken back the blocks of asks: see [apikey.SharedLimiter]. The
	// grants are in the order of asks, of which a key has one. Of an error nobody knows
	// whether anything was done.
	ReserveRate(ctx context.Context, asks []apikey.RateAsk, now time.Time) ([]apikey.RateGrant, error)
}

// Config says what a Meter works with.
type Config struct {
	// Usage is required.
	Usage UsageStore
	// Quotas is required where keys have quotas.
	Quotas QuotaStore
	// Rates is required where keys have exact rate limits.
	Rates RateStore
	// Now is the clock: where servers share a database, that of the database. Defaults
	// to time.Now.
	Now func() time.Time
	// Secrets finds secrets in the names of programs that are kept. Nil knows those alone
	// that have a form.
	Secrets *apikey.SecretFinder
	// Logger hears of counters and quotas that could not be stored. Defaults to
	// slog.Default.
	Logger *slog.Logger
}

// Meter charges verifications to the limits of keys and counts them. Its methods
// are safe for concurrent use.
type Meter struct {
	usage        UsageStore
	now          func() time.Time
	start        time.Time      // rate limits count from here, see micros
	storing      *outage.Outage // of counters
	registry     registry
	reservations reservations
	flushes      flushCounts
}

// New returns a Meter. It starts nothing: Run stores the counters.
func New(c Config) *Meter {
	m := &Meter{usage: c.Usage, now: c.Now}
	if m.now == nil {
		m.now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	m.storing = outage.New(c.Logger, "The usage counters could not be stored; they are kept and tried again.", "The usage counters are stored again.")
	m.start = m.now()
	m.registry.byID = make(map[string]*Counters)
	m.registry.agents.secrets = c.Secrets
	m.reservations.store, m.reservations.rates, m.reservations.now = c.Quotas, c.Rates, m.now
	m.reservations.holds = m.registry.holdLocked
	m.reservations.settling = outage.New(c.Logger, "What was reserved of exact rate limits could not be given back; it counts as spent.", "What is reserved of exact rate limits is given back again.")
	m.reservations.returning = outage.New(c.Logger, "What was reserved of quotas and not spent could not be given back; it is lost.", "What is reserved of quotas is given back again.")
	return m
}

// micros is the time of the rate limits. A difference of two readings keeps to the
// monotonic clock where they have it, so setting the wall clock neither refills
// a limit nor blocks it.
func (m *Meter) micros(now time.Time) int64 { return now.Sub(m.start).Microseconds() }

// The intervals of Run.
const (
	flushInterval = time.Second
	sweepInterval = 30 * time.Second
	flushTimeout  = 10 * time.Second
)

// Run stores the counters and gives back what is idle once a second until ctx ends.
// Before it returns, it stores the counters once more and gives back all that is
// reserved of limits: after a clean stop everything is exact.
func (m *Meter) Run(ctx context.Context) error {
	flush, sweep := time.NewTicker(flushInterval), time.NewTicker(sweepInterval)
	defer flush.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-flush.C:
			m.storing.Note(m.flushWhole(ctx))
			m.ReturnIdle(ctx)
		case <-sweep.C:
			m.Sweep(ctx)
		case <-ctx.Done():
			m.RefundAll(ctx)
			if err := m.flushWhole(ctx); err != nil {
				return errors.Join(errors.New("the last usage counters are lost"), err)
			}
			return nil
		}
	}
}

// flushWhole is Flush for Run. The end of ctx does not interrupt it: of a batch
// that was being written then, nobody could say whether it is stored.
func (m *Meter) flushWhole(ctx context.Context) error {
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	return m.Flush(whole)
}

// Flush stores what was counted since the last flush. What cannot be stored is
// kept for the next.
func (m *Meter) Flush(ctx context.Context) error {
	err := m.registry.flush(ctx, m.usage)
	m.flushes.note(err)
	return err
}

// Sweep forgets the counters of keys that are not held and not needed, and refunds
// what is reserved of quotas that nobody uses. Run calls it twice a minute.
func (m *Meter) Sweep(ctx context.Context) {
	m.drain(ctx, m.registry.sweep(m.micros(m.now())))
}

// RefundAll refunds everything that is reserved of quotas and exact rate limits.
func (m *Meter) RefundAll(ctx context.Context) {
	m.drain(ctx, m.registry.reserving())
	holds, _ := m.registry.takeHolds()
	m.settle(ctx, holds, func(*share) bool { return true })
}

// ReturnIdle gives back what is reserved of limits and was not used of late, so that
// other servers can: of a quota what nobody has spent of for ten calls of it, of an
// exact rate limit what nobody has for two. Run calls it once a second.
func (m *Meter) ReturnIdle(ctx context.Context) {
	holds, idle := m.registry.takeHolds()
	m.drain(ctx, idle)
	m.settle(ctx, holds, func(s *share) bool {
		s.idle++
		return s.idle > 1
	})
}

// settle gives back the blocks of exact rate limits that takes names.
func (m *Meter) settle(ctx context.Context, all []*Counters, takes func(*share) bool) {
	if len(all) == 0 {
		return
	}
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	m.reservations.settle(whole, all, takes)
}

// Len returns how many keys have counters in memory.
func (m *Meter) Len() int {
	m.registry.mu.Lock()
	defer m.registry.mu.Unlock()
	return len(m.registry.byID)
}

// drain refunds what is reserved of quotas of keys that are not in use. What fails
// is lost, and never granted twice.
func (m *Meter) drain(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	resume, err := m.reservations.drain(whole, &m.registry, ids)
	m.reservations.returning.Note(err, "keys", len(ids))
	if err == nil {
		resume()
	}
}
