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

// Config says what a Meter works with.
type Config struct {
	// Usage is required.
	Usage UsageStore
	// Quotas is required where keys have quotas.
	Quotas QuotaStore
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
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
	m.reservations.store, m.reservations.now = c.Quotas, m.now
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

// Run stores the counters once a second until ctx ends, and once more before it
// returns. Then it also refunds what is reserved of quotas: after a clean stop
// both are exact.
func (m *Meter) Run(ctx context.Context) error {
	flush, sweep := time.NewTicker(flushInterval), time.NewTicker(sweepInterval)
	defer flush.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-flush.C:
			m.storing.Note(m.flushWhole(ctx))
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
func (m *Meter) Flush(ctx context.Context) error { return m.registry.flush(ctx, m.usage) }

// Sweep forgets the counters of keys that are not held and not needed, and refunds
// what is reserved of quotas that nobody uses. Run calls it twice a minute.
func (m *Meter) Sweep(ctx context.Context) {
	m.drain(ctx, m.registry.sweep(m.micros(m.now())))
}

// RefundAll refunds everything that is reserved of quotas.
func (m *Meter) RefundAll(ctx context.Context) { m.drain(ctx, m.registry.reserving()) }

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
